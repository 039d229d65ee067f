"""Fetching papers: abstracts from arXiv's API, PDFs from arXiv and from the other sources on the list.

`engine` joins the parts and is what the app and the command line call. `client` makes requests one at a time:
`gate` says when a host may be asked, `exchange` is one request, `faults` names what can go wrong. `metadata`
and `files` keep what came. Nothing here imports the network libraries before a sync runs.
"""
