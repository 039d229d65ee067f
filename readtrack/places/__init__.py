"""Running papers on other machines: an ssh host, a SLURM cluster, a Dask scheduler.

On this machine, a remote run is a folder like any other. Its `events.jsonl` is a prefix of the remote file,
and its size is the offset from which reading continues. On the remote machine, a `shepherd` supervises the
worker, and an `agent` answers requests about its files. `process` is the interface for the app and the
command line.
"""
