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

TRAINING = "The comparison is declared as judged on training, because one of its claims is about {}."
TRAINED, FIRST, TENTH, HALF = (
    "arms are judged on the training data",
    "the control has only the first value of the grid",
    "the control has a tenth of each learning rate",
    "the control is trained for half of the steps",
)
# Why no check finds a mutant.
EXPLAINED = {
    ("dyt", TRAINED): TRAINING.format("the highest learning rate that works"),
    ("resnet", TRAINED): TRAINING.format("the training loss"),
    ("rethinking_generalization", TRAINED): TRAINING.format("the training accuracy"),
    ("super_convergence", TRAINED): TRAINING.format("the length of the training"),
    ("clip", TRAINED): TRAINING.format("the number of training images"),
    ("super_convergence", TENTH): "Different learning rates are declared, because schedules are compared.",
    ("gpt2", TENTH): "Larger models are declared to have smaller learning rates.",
    ("gpt3", TENTH): "Larger models are declared to have smaller learning rates.",
    **{
        ("reformer", what): (
            "Nothing is trained. The grid has the sharpness of attention, which no optimiser or log shows."
        )
        for what in (FIRST, TENTH)
    },
    **{
        ("rcnn", what): (
            "The grid has the C of the SVMs, which are solved directly. No optimiser or log shows the value."
        )
        for what in (FIRST, TENTH)
    },
    ("overfeat", FIRST): (
        "One stage trains the networks of all learning rates. An attempt only selects one, without training."
    ),
    ("flashattention", TRAINED): TRAINING.format("the losses of the training steps"),
    ("gqa", "the paper's arm is the control"): (
        "Each arm draws its own random head, so copies of the control differ. A test compares all "
        "heads with the conversions that the arms are named after."
    ),
    ("vits", HALF): "One arm is declared to take twice as many steps, each at a tenth of the cost.",
    ("clip", HALF): "Arms are declared to stop when they have reached the goal.",
    ("explain_neurons", "settings are chosen on the test data"): (
        "An attempt chooses the explanations itself. They are not points of the grid, and it logs no loss."
    ),
    **{
        ("schedule_free", what): (
            "The arms are declared to differ in optimisers, learning rates and numbers of steps. One "
            "schedule-free run serves three stopping times, and each run with a cosine schedule serves one."
        )
        for what in (TENTH, HALF, "the paper's arm is the control")
    },
}


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
