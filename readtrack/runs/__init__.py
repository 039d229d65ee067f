"""Running a paper in its own process.

`job` has the settings of a run, `worker` (the child) runs it and appends `events`, `launcher` (the parent)
starts, stops and cleans up the child, and `record` folds a run's events into the state that the app and the
command line show.
"""
