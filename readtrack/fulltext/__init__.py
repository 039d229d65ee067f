"""Full-text search in a home, including the text of PDFs."""
