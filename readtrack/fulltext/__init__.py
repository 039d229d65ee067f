"""Search by words in all that a home holds, the text of PDFs included."""
