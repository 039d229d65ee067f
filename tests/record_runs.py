"""Records short runs of papers exactly, and compares two records, to check that an edit changes no number.

    python tests/record_runs.py record before.json mamba bert
    python tests/record_runs.py compare before.json after.json --but-null

Each paper has a plain run, a null run and one run per break, with two seeds and two budgets: smoke, with at
least two values in each grid, and quick, with only the first and the last step of each loop. A record has
every curve, metric and claim of these runs. Floats are compared exactly, so both records must come from the
same machine. Times are left out, because they do not depend on the seed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import readtrack.papers
from readtrack.checks.experiment import Short, Watched, run_experiment
from readtrack.plugins.load import claims
from readtrack.runs.record import Record

PLUGINS = Path(__file__).parents[1] / "plugins"
SEEDS = (0, 1)


class TwoValues(Watched):
    """A run that replaces one-value grids at smoke by the first two values of quick's grid."""

    def pick(self, *, smoke: Any, quick: Any, full: Any) -> Any:
        chosen = super().pick(smoke=smoke, quick=quick, full=full)
        one = isinstance(chosen, tuple) and len(chosen) == 1
        return quick[:2] if one and isinstance(quick, tuple) and chosen[0] in quick else chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run papers and write their numbers to a file")
    recording.add_argument("file", type=Path)
    recording.add_argument("papers", nargs="+", metavar="PAPER")
    comparing = commands.add_parser("compare", help="list the differences of two records")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--but-null", action="store_true", help="null runs may differ")
    asked = parser.parse_args()
    if asked.command == "record":
        record(asked.file, asked.papers)
        return 0
    found = list(differences(asked.before, asked.after, but_null=asked.but_null))
    print("\n".join(found) or "No difference.")
    return 1 if found else 0


def record(file: Path, papers: Sequence[str]) -> None:
    readtrack.papers.__path__ = [str(PLUGINS)]
    torch.set_num_threads(1)
    numbers = {
        f"{paper}, {budget}, {condition}, seed {seed}": run_once(paper, budget, seed, **options)
        for paper in papers
        for budget in ("smoke", "quick")
        for condition, options in conditions(paper)
        for seed in SEEDS
    }
    file.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(f"{len(numbers)} runs: {file}")


def conditions(paper: str) -> Iterator[tuple[str, dict[str, Any]]]:
    importlib.import_module(f"readtrack.papers.{paper}")
    yield "plain", {}
    yield "null", {"null": True}
    for name in sorted({one.name for claim in claims(paper) for one in claim.breaks}):
        yield f"break {name}", {"broken": name}


def run_once(paper: str, budget: str, seed: int, **options: Any) -> dict[str, Any]:
    """The numbers of one run in a separate home, so that it cannot use a cached network."""
    module = importlib.import_module(f"readtrack.papers.{paper}")
    kind = TwoValues if budget == "smoke" else Short
    with tempfile.TemporaryDirectory(prefix="readtrack-record-") as folder:
        os.environ["READTRACK_HOME"] = f"{folder}/home"
        made, _ = run_experiment(module, Path(folder, "run"), budget=budget, seed=seed, kind=kind, **options)
    return numbers_of(made)


def numbers_of(record: Record) -> dict[str, Any]:
    """Numbers as text, which keeps all digits and non-finite values."""
    return {
        "curves": {
            f"{name} | {arm}": repr(points)
            for name, arms in record.curves.items()
            if "second" not in name
            for arm, points in arms.items()
        },
        "values": {
            f"{name} | {arm}": repr(value)
            for (name, arm), value in record.values.items()
            if "second" not in name
        },
        "claims": {
            event["claim"]["name"]: {
                **{metric: repr(value) for metric, value in event["values"].items()},
                **{part: repr(event[part]) for part in ("verdict", "why", "edges", "at_least")},
            }
            for event in record.claims
        },
    }


def differences(before: Path, after: Path, *, but_null: bool) -> Iterator[str]:
    old, new = (json.loads(file.read_text(encoding="utf-8")) for file in (before, after))
    for run in sorted(old.keys() | new.keys()):
        if but_null and ", null, " in run:
            continue
        if run not in old or run not in new:
            yield f"{run}: only {'before' if run in old else 'after'}"
            continue
        was, now = flat(old[run]), flat(new[run])
        for place in sorted(was.keys() | now.keys()):
            if was.get(place) != now.get(place):
                yield f"{run}: {place}: {short(was.get(place))} -> {short(now.get(place))}"


def flat(nested: dict[str, Any], place: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in nested.items():
        found |= flat(value, f"{place}{name} / ") if isinstance(value, dict) else {f"{place}{name}": value}
    return found


def short(text: str | None) -> str:
    return "nothing" if text is None else text if len(text) < 80 else f"{text[:77]}..."


if __name__ == "__main__":
    sys.exit(main())
