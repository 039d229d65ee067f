"""Checks of a plugin's exercises: the paper's own code passes and an empty body fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice import sheet, skeleton
from readtrack.practice.judge import Verdict
from readtrack.practice.session import Session


def check_exercises(name: str, folder: Path) -> None:
    """Raise AssertionError if an exercise fails. A plugin without exercises passes."""
    found = sheet.sheets(find(Home())[name])
    if not found:
        return
    for solved, wanted in ((True, "passed"), (False, "empty")):
        verdicts = judged(found, skeleton.text(name, found, solved=solved), folder)
        wrong = [verdict for verdict in verdicts if verdict.outcome != wanted]
        whose = "the paper's own code" if solved else "an empty body"
        if wrong:
            said = "; ".join([wrong[0].hint, *wrong[0].report])
            raise AssertionError(f"exercise {wrong[0].name}: {whose} is {wrong[0].outcome}: {said}")


def judged(found: list[sheet.Sheet], source: str, folder: Path, only: str = "") -> list[Verdict]:
    """The verdicts on a file with this text for all exercises or one. The plugin must be loaded."""
    with judging(found, folder) as verdicts:
        return verdicts(source, only)


@contextmanager
def judging(found: list[sheet.Sheet], folder: Path) -> Iterator[Callable[[str, str], list[Verdict]]]:
    """Like `judged` for many texts, but computes the paper's results only once."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "practice.py"
    opened: list[Session] = []

    def verdicts(source: str, only: str) -> list[Verdict]:
        file.write_text(source, encoding="utf-8")
        if opened:
            opened[0].reload()
        else:
            opened.append(Session(found, file, str(file)))
        return list(opened[0].verdicts([only] if only else [one.name for one in found]))

    try:
        yield verdicts
    finally:
        for session in opened:
            session.close()
