"""Runs out of memory in the way given by `--set how=...`."""

import resource

from readtrack.plugin import hookimpl


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    how = run.option("how", "limit")
    run.phase("train")
    if how == "limit":
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
        held = []
        while True:
            held.append(bytearray(1 << 20))
    if how == "chained":
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError("the loader failed") from error
    if how == "device":
        raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2 GiB")
    if how == "tensor":
        import torch

        torch.empty(1 << 50)


@hookimpl
def benchmark(bench):
    return iter(())
