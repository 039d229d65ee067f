"""Exercises: parts of a paper for the reader to write, which are compared with the paper's own code."""
