"""The child process of `examine`: `python -m readtrack.plugins NAME FILE` writes its findings to the file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.load import claims, load
from readtrack.text import one_line


def _answer(name: str, path: str) -> None:
    answer: dict[str, object] = {"reason": None, "claims": []}
    try:
        load(name, Home())
        answer["claims"] = [claim.to_json() for claim in claims(name)]
    except ReadtrackError as error:
        answer["reason"] = one_line(str(error))
    Path(path).write_text(json.dumps(answer), encoding="utf-8")
    # A plugin's threads must not keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    _answer(sys.argv[1], sys.argv[2])
