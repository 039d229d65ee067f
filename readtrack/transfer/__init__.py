"""Lists that come in and go out: Markdown, BibTeX, JSON, CSV, another home."""
