"""What the pages draw: product cards, dialogs, charts, tables."""
