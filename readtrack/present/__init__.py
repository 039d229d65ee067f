"""Texts, marks and scales for both the command line and the app, which only render them."""
