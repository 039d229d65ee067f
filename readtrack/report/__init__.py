"""The report as a static site, replication cards of runs, and their replay."""
