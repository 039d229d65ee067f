"""Real data sets in the reader's home: their origin, location and integrity.

`readtrack.sync.datasets` fetches them, `readtrack.data.stored` reads them. Nothing here imports torch.
"""
