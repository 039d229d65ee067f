"""readtrack: keep a list of machine-learning papers, fetch them, and run them."""

__version__ = "0.1.0"
