"""kill -9 at any moment: no visible PDF is incomplete, and the next sync continues."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback import Server

from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.files import Pdfs
from readtrack.sync.lock import status

DRIVER = Path(__file__).with_name("driver.py")
PAPERS, KILLS = 60, 50


@pytest.mark.slow
def test_killed_at_50_moments(server: Server, papers: Any, home: Home) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    papers({f"p{number}": f'- arxiv: "2001.{number:05}"' for number in range(1, PAPERS + 1)})
    whole = {f"p{number}": server.pdf(f"2001.{number:05}v1") for number in range(1, PAPERS + 1)}
    server.step, server.pause = 8192, 0.0005  # a PDF takes several reads
    kills = completed = parts = most = 0
    with subprocess.Popen(
        [sys.executable, DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "READTRACK_HOME": str(home.root)},
    ) as driver:
        assert driver.stdin
        assert driver.stdout

        def run(requests: int | None) -> int:
            """The sync's exit code, or minus the signal if it was killed soon after this number of
            requests.
            """
            count = len(server.requests)
            driver.stdin.write("\n")
            driver.stdin.flush()
            child = int(driver.stdout.readline())
            if requests is not None:
                process = psutil.Process(child)
                while len(server.requests) < count + requests and process.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(0.0005)
                time.sleep(moments.uniform(0.0, 0.015))
                os.kill(child, signal.SIGKILL)
            driver.stdin.write("\n")
            driver.stdin.flush()
            return int(driver.stdout.readline())

        while kills < KILLS:
            code = run(moments.randint(0, 3))
            if code == 0:
                completed += 1
                for folder in (home.pdfs, home.metadata):
                    shutil.rmtree(folder)
                continue
            assert code == -signal.SIGKILL
            kills += 1
            assert status(home) is None
            visible = list(home.pdfs.glob("*.pdf"))
            most = max(most, len(visible))
            assert all(path.read_bytes() == whole[path.stem] for path in visible)
            for path in (*home.metadata.glob("*.json"), *home.pdfs.glob("*.json")):
                json.loads(path.read_text())
            left = list(home.pdfs.glob("*.part"))
            parts += bool(left)
            assert len(left) <= 2  # a PDF and its record; earlier leftovers were removed
        assert run(None) == 0
        driver.stdin.close()
    print(
        f"{kills} kills, {parts} of them left a part file, {completed} syncs came to their end, {most} PDFs"
    )
    assert {path.stem: path.read_bytes() for path in home.pdfs.glob("*.pdf")} == whole
    assert len(list(home.metadata.glob("*.json"))) == PAPERS
    assert not list(home.root.rglob("*.part")) + list(home.pdfs.glob(".*.record"))
    assert {Pdfs(home).record(paper).origin for paper in whole} == {"fetched"}  # type: ignore[union-attr]
    assert all(Library.open(home).pdf(paper) for paper in whole)
    assert parts > 0
    assert max(request.others for request in server.requests) == 0
