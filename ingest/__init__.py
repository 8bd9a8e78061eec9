"""From a source of products (a CSV, a folder, the drawn demo) to the catalogue."""
