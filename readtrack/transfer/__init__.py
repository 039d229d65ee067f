"""Import and export of lists: Markdown, BibTeX, JSON, CSV, another home."""
