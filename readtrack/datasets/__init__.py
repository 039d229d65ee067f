"""Real data sets in the reader's home: where they come from, where they lie, and whether they are whole.

`readtrack.sync.datasets` fetches them, `readtrack.data.stored` reads them. Nothing here imports torch.
"""
