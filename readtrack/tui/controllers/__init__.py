"""Controllers for the sync, runs, imports, notes and so on."""
