"""Holds the interpreter lock for two seconds, like a long C call, and then completes."""

import ctypes

from readtrack.plugin import hookimpl


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    run.log("holding the lock")
    ctypes.PyDLL(None).sleep(2)
    run.metric("loss", 1.0, step=0)


@hookimpl
def benchmark(bench):
    return iter(())
