"""The report: a static site of what is recorded, the replication card of a run, and its replay."""
