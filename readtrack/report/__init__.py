"""The report as a static site, and replication cards of runs with their replay."""
