"""Measure every paper against its rivals: `make bench`, or `make bench PAPERS="bert vit" BUDGET=smoke`.

Each paper's benchmark runs as `readtrack run PAPER --only benchmark`, one after the other. Prints a table of
the papers' variants against the strongest free rival of their case, and writes it to build/bench/table.json.
Exit code 1 if a run fails or a variant computes something wrong. Slow variants do not cause a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from readtrack.present.benchmarks import measured
from readtrack.runs.record import Record
from readtrack.runs.store import load

OUTPUT = Path(__file__).parents[1] / "build" / "bench"
PLUGINS = Path(__file__).parents[1] / "plugins"
FREE = ("naive", "strong", "compiled")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("papers", nargs="*", metavar="PAPER", help="default: all")
    parser.add_argument("--budget", choices=("smoke", "quick", "full"), default="quick")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    for paper in asked.papers or every_paper():
        record, error = benchmarked(paper, asked.budget)
        if record is None or error:
            wrong.append(f"{paper}: {error}")
            continue
        wrong += [f"{paper}: {mistake}" for mistake in mistakes(record)]
        for row in compared(record):
            rows.append(row)
            print(line(row), flush=True)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "table.json").write_text(
        json.dumps({"rows": rows, "wrong": wrong}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"\n{len(rows)} comparisons: {OUTPUT / 'table.json'}")
    for mistake in wrong:
        print(f"WRONG  {mistake}")
    return 1 if wrong else 0


def every_paper() -> list[str]:
    return sorted(path.stem for path in PLUGINS.iterdir() if not path.name.startswith(("_", ".")))


def benchmarked(paper: str, budget: str) -> tuple[Record | None, str]:
    """The run's record and the last line of its errors. A paper without a benchmark has no measurements."""
    command = [sys.executable, "-m", "readtrack", "run", paper, "--only", "benchmark", "--budget", budget]
    home = os.environ | {"READTRACK_HOME": str(OUTPUT / "home")}
    done = subprocess.run([*command, "--json"], env=home, capture_output=True, text=True, check=False)
    result = json.loads((done.stdout.splitlines() or ["{}"])[-1])
    error = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
    if "folder" not in result:
        return None, error
    record = load(Path(result["folder"]))
    return record, "" if record.outcome == "completed" else record.detail or str(record.outcome)


def mistakes(record: Record) -> Iterator[str]:
    for row in record.measurements:
        if row["ok"] and not row["ok"]["passed"]:
            yield f"{measured(row).point}, {row['variant']}: {row['ok']['reason']}"


def compared(record: Record) -> Iterator[dict[str, Any]]:
    """Speed-ups of the paper's variants over the strongest rival, with intervals."""
    for row in record.measurements:
        if row["role"] == "paper" and row["vs_strong"]:
            point = [row[name] for name in ("case", "axes", "mode")]
            rivals = [
                (one["t_ns"]["value"], one["role"], one["variant"])
                for one in record.measurements
                if [one[name] for name in ("case", "axes", "mode")] == point
                and one["role"] in FREE
                and one["t_ns"]
            ]
            _, role, rival = min(rivals)
            yield {
                "paper": record.paper,
                "point": measured(row).point,
                "variant": row["variant"],
                "rival": f"{rival} ({role})",
                "speed": row["vs_strong"],
                "ci95": row["vs_strong_ci95"],
                "flags": row["flags"],
            }


def line(row: dict[str, Any]) -> str:
    low_high = "{:.2f} to {:.2f}".format(*row["ci95"]) if row["ci95"] else "no interval"
    said = f"{row['paper']:<24} {row['speed']:7.2f}×  {low_high:<16}  {row['point']}: {row['variant']}"
    return f"{said} / {row['rival']}  {', '.join(row['flags'])}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
