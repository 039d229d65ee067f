"""Two apps and four command lines use one home and are killed at random: no acknowledged data are lost.

To run it for longer: `python tests/test_storm.py SECONDS [SEED]`.
"""

from __future__ import annotations

import os
import pty
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from readtrack import notes
from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs.processes import reconcile

SECONDS = 4.0
TOYS = Path(__file__).parent / "toys"
PAPERS = ("bert", "gpt2", "resnet", "vit")
COMMAND_LINES = 4
APPS = 2


@dataclass
class Storm:
    """Acknowledged data by kind, (paper, text), and the number of operations."""

    home: Home
    seconds: float
    seed: int
    acknowledged: dict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: {"tag": [], "note": [], "highlight": []}
    )
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def rage(self) -> None:
        self._end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._command_line, args=(n,)) for n in range(COMMAND_LINES)]
        threads += [threading.Thread(target=self._app, args=(n,)) for n in range(APPS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @property
    def _over(self) -> bool:
        return time.monotonic() > self._end

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "READTRACK_HOME": str(self.home.root),
            "XDG_STATE_HOME": str(self.home.root.parent / "state"),
            "READTRACK_PLUGIN_PATH": str(TOYS),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(TOYS / "light")])),
            "TERM": "xterm-256color",
        }

    def _command_line(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + number)
        step = 0
        while not self._over:
            step += 1
            paper, text = chance.choice(PAPERS), f"storm-{number}-{step}"
            kind = chance.choices(("tag", "note", "highlight", "results", "run"), (5, 5, 5, 1, 1))[0]
            arguments = {
                "tag": ["tag", paper, text],
                "note": ["note", paper, text],
                "highlight": ["highlight", paper, text, "--page", "1"],
                "results": ["results"],
                "run": ["run", "toy_ok", "--only", "experiment", "--budget", "smoke"],
            }[kind]
            child = subprocess.Popen(
                [sys.executable, "-m", "readtrack", *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                _, said = child.communicate(
                    timeout=chance.uniform(0.1, 2.0) if chance.random() < 0.4 else 120
                )
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                self.counts[f"{kind} killed"] += 1
                continue
            self.counts[f"{kind} done"] += 1
            if child.returncode == 0 and kind in self.acknowledged:
                self.acknowledged[kind].append((paper, text))
            elif child.returncode not in (0, 3):  # 3: there are no results yet
                self.failures.append(f"{' '.join(arguments)}: {child.returncode}: {said}")

    def _app(self, number: int) -> None:
        chance = random.Random(self.seed * 100 + 50 + number)
        while not self._over:
            terminal, inside = pty.openpty()
            child = subprocess.Popen(
                [sys.executable, "-m", "readtrack"],
                env=self._environment(),
                stdin=inside,
                stdout=inside,
                stderr=inside,
                start_new_session=True,
            )
            os.close(inside)
            drain = threading.Thread(target=_drain, args=(terminal,))
            drain.start()
            lives = min(time.monotonic() + chance.uniform(1.0, 10.0), self._end)
            while time.monotonic() < lives:
                time.sleep(0.2)
                os.write(terminal, chance.choice((b"j", b"k", b"G", b"g")))
            child.kill()
            child.wait()
            self.counts["app killed"] += 1
            drain.join()
            os.close(terminal)

    def lost(self) -> list[tuple[str, str, str]]:
        """Acknowledged data that are missing."""
        library = Library.open(self.home)
        there = {
            "tag": {paper: library.tags(paper) for paper in PAPERS},
            "note": {paper: set(library.note(paper).splitlines()) for paper in PAPERS},
            "highlight": {
                paper: {one.quote for one in notes.highlights(library.note(paper))} for paper in PAPERS
            },
        }
        return [
            (kind, paper, text)
            for kind, pairs in self.acknowledged.items()
            for paper, text in pairs
            if text not in there[kind][paper]
        ]


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            continue
    except OSError:
        return  # the app has ended


def unended(home: Home) -> list[str]:
    """Runs without an end, two minutes after their last event."""
    now = time.time() - 120
    for file in home.runs.glob("*/*"):
        os.utime(file, (now, now))
    reconcile(home)
    return [run.run_id for run in Library.open(home).results() if run.outcome is None]


@pytest.mark.slow
def test_no_tag_note_or_highlight_is_lost_in_a_storm(home: Home) -> None:
    storm = Storm(home, SECONDS, seed=1)
    storm.rage()
    assert storm.failures == []
    assert sum(map(len, storm.acknowledged.values())) > 0
    assert storm.lost() == []
    assert unended(home) == []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        one = Storm(Home(Path(folder) / "home"), float(sys.argv[1]), int((sys.argv[2:] or ["1"])[0]))
        one.rage()
        print({kind: len(pairs) for kind, pairs in one.acknowledged.items()}, dict(one.counts))
        print("lost:", one.lost(), "failed:", one.failures, "not ended:", unended(one.home))
