"""Controllers: the sync, the runs, the question for breaks."""
