"""The fate of mutants of every plugin's comparisons: `python tests/mutants.py [PAPER]...` writes
docs/mutants.json and docs/mutants.md.

Each mutant is a mistake that `readtrack plugins check PAPER --mutants` makes in an experiment. All papers
take more than an hour on two cores. With names, only these papers are tested, and the others keep their rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from readtrack.checks.mutants import MUTANTS

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = (
    "Each mutant is a mistake in the comparison of a paper's experiment. It counts as found if the checks of "
    "`readtrack plugins check` reject the experiment with the mistake, or if the experiment itself stops. A "
    "mutant that changes no number of a short run does not apply to the paper. Other mistakes, in the code "
    "of five experiments, are in [mutations.md](mutations.md)."
)
Fates = dict[str, dict[str, tuple[str, str]]]  # the fate and the finders of each mutant, by paper

# Why no check finds a mutant. Its difference is declared, or the paper's own tests find it.
EXPLAINED: dict[tuple[str, str], str] = {}


def tested(papers: list[str], known: Fates) -> Fates:
    for paper in papers:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "answer.json"
            subprocess.run([sys.executable, "-m", "readtrack.checks.mutants", paper, file], check=True)
            known[paper] = {says: (fate, by) for says, fate, by in json.loads(file.read_text("utf-8"))}
        print(paper, Counter(fate for fate, _ in known[paper].values()), flush=True)
    return known


def page(fates: Fates) -> str:
    count = Counter(fate for found in fates.values() for fate, _ in found.values())
    survivors = [
        (paper, says)
        for paper, found in fates.items()
        for says, (fate, _) in found.items()
        if fate == "survived"
    ]
    total, width = count["killed"] + count["survived"], len(MUTANTS)
    marks = {"killed": "✓", "survived": "✗", "does not apply": "-"}
    lines = [
        "# Mutants of comparisons",
        "",
        f"**{count['killed']} of {total} mutants found, in {len(fates)} papers.**",
        "",
        "Written by `python tests/mutants.py`.",
        "",
        INTRODUCTION,
        "",
        *(f"{number}. {mutant.says}" for number, mutant in enumerate(MUTANTS, 1)),
        "",
        row("paper", *map(str, range(1, width + 1))),
        row(*["---"] * (width + 1)),
        *(row(paper, *(marks[found[one.says][0]] for one in MUTANTS)) for paper, found in fates.items()),
        "",
        "✓ found · ✗ not found · - does not apply",
        "",
        "## Mutants that no check finds",
        "",
        row("paper", "mutant", "why"),
        row(*["---"] * 3),
        *(row(paper, says, EXPLAINED[paper, says]) for paper, says in survivors),
    ]
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('_', chr(92) + '_') for cell in cells)} |"


def main(papers: list[str]) -> None:
    data = DOCS / "mutants.json"
    fates: Fates = json.loads(data.read_text("utf-8")) if data.exists() else {}
    fates = tested(papers or list(fates), fates)
    data.write_text(json.dumps(fates, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    (DOCS / "mutants.md").write_text(page(fates), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
