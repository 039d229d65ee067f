"""Exercises: parts of a paper that the reader writes, and that are compared with the paper's own code."""
