"""Ends in the way given by `--set how=...`."""

import ctypes
import os
import signal
import sys

from readtrack.plugin import hookimpl


class UglyError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    how = run.option("how", "raise")
    run.phase("train")
    if how == "raise":
        raise ValueError("the \x1b[31mloss\x1b[0m\nis wrong")
    if how == "ugly":
        raise UglyError
    if how == "exit":
        sys.exit(3)
    if how == "os_exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "fork":
        os.fork()
    if how == "option":
        run.option("size", 3)


@hookimpl
def benchmark(bench):
    return iter(())
