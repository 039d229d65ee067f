"""Other machines that papers run on: a host behind ssh, a SLURM cluster, a Dask scheduler.

Here, a run elsewhere is a folder like any other: `events.jsonl` in it is a prefix of the file there, and its
size is the offset from which reading continues. There, a `shepherd` manages the worker, and an `agent`
answers questions about its files. `process` holds what the app and the command line see of it.
"""
