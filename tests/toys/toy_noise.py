"""Prints disturbing output: fake events, escape sequences, invalid UTF-8, and large amounts."""

import json
import os
import subprocess
import sys

from readtrack.plugin import hookimpl

FAKE = json.dumps({"v": 1, "seq": 1, "t": 0, "event": "end", "outcome": "completed", "detail": "fake"})


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    print("\x1b[2J\x1b[31mred\x07", flush=True)
    print(FAKE, flush=True)
    print(FAKE, file=sys.stderr, flush=True)
    os.write(1, b"\xff\xfe\x00" + FAKE.encode() + b"\n")
    subprocess.run(["echo", FAKE], check=True)
    run.metric("from stdin", len(sys.stdin.read()))
    run.metric("loss", float("nan"), step=0)
    run.metric("loss", float("inf"), step=1)
    run.metric("loss", float("nan"))
    run.log("x" * 300_000)
    for _ in range(run.option("megabytes", 0)):
        os.write(2, b"noise \n" * 150_000)


@hookimpl
def benchmark(bench):
    return iter(())
