"""Checks that every plugin must pass, for `readtrack plugins check NAME` and the tests.

Run in a child process only: this imports torch and the plugin.
"""
