"""Emits the given number of events in the given number of seconds."""

import time

from readtrack.plugin import hookimpl


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    steps, seconds = run.option("steps", 10), run.option("seconds", 0.0)
    run.phase("train")
    for step in range(steps):
        run.check_cancelled()
        run.metric("loss", 1 / (step + 1), step=step, arm="paper")
        time.sleep(seconds / steps)


@hookimpl
def benchmark(bench):
    return iter(())
