"""Find plugins by name, load one at a time, and check them in a child process."""
