"""Running a paper in its own process.

`job` says what to run, `worker` (the child) runs it and appends `events`, `launcher` (the parent) starts,
cancels and buries the child, `record` folds a run's events into what the app and the command line show.
"""
