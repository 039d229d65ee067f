"""`readtrack practice --watch` in a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

import pytest

from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice import sheet, skeleton


@pytest.mark.slow
def test_saving_checks_again_and_keys_work(papers, command: str, home: Home) -> None:
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "EDITOR": "true"}
    process = subprocess.Popen(
        [command, "practice", "lstm", "--watch"], stdin=other, stdout=other, stderr=other, env=environment
    )
    os.close(other)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([main], [], [], 0.2)[0]:
                seen += os.read(main, 65536).decode("utf-8", "replace")
        seen = seen.partition(text)[2]

    try:
        until("0 of 2")
        until("○ 1 steps  ")
        until("not written yet")
        until("q quit")
        os.write(main, b"h")
        until("Hint 1 of 3")
        os.write(main, b"2")
        until("Now backward")
        os.write(main, b"o")
        until("[y/N]")
        os.write(main, b"n")
        solved = skeleton.text("LSTM", sheet.sheets(find(home)["lstm"]), solved=True)
        (home.practice / "lstm.py").write_text(solved.replace("f.sigmoid() * c + ", "c + "))
        until("wrong result")
        until("A factor is missing")
        os.write(main, b"1p")
        until("Not all exercises pass yet.")
        os.write(main, b"s")
        until("skipped")
        os.write(main, b"q")
        assert process.wait(timeout=30) == 0
        until("\x1b[?1049l")  # back on the reader's own screen
        until("lstm: 1 of 2 pass")
    finally:
        process.kill()
        process.wait()
        os.close(main)
