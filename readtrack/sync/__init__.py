"""Fetch papers: abstracts from arXiv's API, PDFs from arXiv and from the other sources on the list.

`engine` is the entry point for the app and the command line. `client` makes requests one at a time:
`throttle` decides when a host may be contacted, `transfer` is one request, `faults` classifies errors.
`metadata` and `files` store the results. Nothing here imports the network libraries before a sync runs.
"""
