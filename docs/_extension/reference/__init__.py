"""Parts of the reference as Markdown, one module for each source in the code."""
