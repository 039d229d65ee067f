"""Many processes write states at once and are killed: no acknowledged entry is lost or torn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.journal import STATES
from readtrack.reading_list.load import shipped

WRITERS = 8
SECONDS = 1.5  # use ten after a change of the journal's code

# Reports an entry only after it is on disk.
WRITE = """
import sys, time
from readtrack.library import Library
from readtrack.reading_list.load import shipped
library = Library.open(None, shipped())
papers = sorted(library.catalog.papers)
number = int(sys.argv[1])
while True:
    number += 1
    paper = papers[(int(sys.argv[1]) * 7 + number) % len(papers)]
    library._journal.append([paper], tag=f"+w{sys.argv[1]}-{number}")
    print(paper, f"w{sys.argv[1]}-{number}", flush=True)
    time.sleep(0.005)
"""


def write_and_kill(folder: Path, seconds: float) -> list[tuple[str, str]]:
    """The entries that writers acknowledged before they were killed."""
    files = [(folder / f"writer-{number}.txt") for number in range(WRITERS)]
    writers = []
    for number, file in enumerate(files):
        with file.open("w") as out:
            writers.append(subprocess.Popen([sys.executable, "-c", WRITE, str(number)], stdout=out))
    end = time.monotonic() + 60
    while not all(file.stat().st_size for file in files) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(seconds)
    for writer in writers:
        writer.kill()
        writer.wait()
    lines = [line for file in files for line in file.read_text().split("\n")[:-1]]
    return [(paper, tag) for paper, _, tag in (line.partition(" ") for line in lines)]


def test_no_acknowledged_entry_is_lost_or_torn(tmp_path: Path, home: Home) -> None:
    acknowledged = write_and_kill(tmp_path, SECONDS)
    assert len({tag.partition("-")[0] for _, tag in acknowledged}) == WRITERS
    library = Library.open(home, shipped())
    lost = [(paper, tag) for paper, tag in acknowledged if tag not in library.tags(paper)]
    assert lost == []
    # A killed writer may leave one torn line of its own.
    assert len(library.problems) <= WRITERS
    library.mark("bert", STATES[1])
    assert Library.open(home, shipped()).state("bert") == STATES[1]
    lines = home.journal.read_bytes().split(b"\n")
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    assert all(isinstance(json.loads(line), dict) for line in whole)
