"""The child process of a run. No other package imports this one."""
