"""`python -m readtrack.checks NAME FILE`: runs every check of one plugin and writes the outcomes to FILE as
JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.checks.experiment import Watched
    from readtrack.runs.record import Record


def checks(
    name: str, folder: Path, run: Callable[..., tuple[Record, Watched]] | None = None
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The checks of a loaded plugin as (requirement, function).

    run  replaces `experiment.run_experiment`, for example to reuse earlier runs
    """
    import torch

    from readtrack import published
    from readtrack.checks import benchmark, comparing, experiment, practice
    from readtrack.plugins.load import claims

    module = sys.modules[f"readtrack.papers.{name}"]
    own = claims(name)
    run = run or experiment.run_experiment

    @cache
    def smoke() -> tuple[Record, Watched]:
        return run(module, folder / "plain", traced=True)

    def plain() -> Record:
        return smoke()[0]

    @cache
    def short() -> comparing.ShortRuns:
        return comparing.ShortRuns.of(module, folder)

    def compares(check: Callable[[comparing.ShortRuns], None]) -> Callable[[], None]:
        return lambda: check(short()) if getattr(smoke()[1], "compared", None) else None

    yield "every claim names its control and breaks", lambda: experiment.check_claims(own)
    yield (
        "the history explains every rule that changed after its verdict",
        lambda: experiment.check_history(own, published.claims(name)),
    )
    yield "the experiment runs and judges every claim", lambda: experiment.check_plain(plain(), own)
    yield "the seed determines the results", lambda: experiment.check_seeds(module, folder, plain())
    yield (
        "null runs and breaks take effect",
        lambda: experiment.check_conditions(module, own, folder, plain(), run),
    )
    yield "every measured claim has a near miss and a rival", compares(comparing.check_breaks)
    yield "controls have learned, or the claim states a number of steps", compares(comparing.check_learned)
    yield "test data are not used for choices or training", compares(comparing.check_no_leak)
    yield "judged numbers depend on the test data", compares(comparing.check_judge_heard)
    yield "compared arms have equal training", compares(comparing.check_equal_work)
    yield (
        "compared arms differ",
        compares(lambda runs: comparing.check_arms_differ(runs, smoke()[1])),
    )
    yield "the arms of a null run share only data", compares(comparing.check_null)
    yield (
        "smoke executes the lines that quick executes",
        compares(lambda runs: comparing.check_smoke_reaches(runs, smoke()[1], module)),
    )
    yield "networks are evaluated in evaluation mode", compares(comparing.check_modes)
    yield "the benchmark declares cases", lambda: benchmark.check_cases(module)
    yield "every variant is correct in float64", lambda: benchmark.check_variants(module, torch.float64)
    yield (
        "benchmark cases run the paper's own code",
        lambda: (
            benchmark.check_implementation(module, smoke()[1].lines)
            if getattr(smoke()[1], "compared", None) or benchmark.is_optimizer(module.implementation())
            else None
        ),
    )
    yield "every variant is correct in bfloat16", lambda: benchmark.check_variants(module, torch.bfloat16)
    yield "the paper's variants run under autocast", lambda: benchmark.check_autocast(module)
    yield (
        "an optimiser does not change weights without a gradient",
        lambda: benchmark.check_optimizer(module.implementation()),
    )
    yield "exercises accept the paper's own code", lambda: practice.check_exercises(name, folder / "practice")


def main(name: str, file: Path) -> None:
    from readtrack.plugins.load import load

    outcomes: list[tuple[str, str]] = []
    try:
        load(name, Home())
    except ReadtrackError as error:
        outcomes.append(("the plugin can be imported", one_line(str(error))))
    else:
        outcomes.append(("the plugin can be imported", ""))
        with tempfile.TemporaryDirectory(prefix="readtrack-check-") as folder:
            for what, check in checks(name, Path(folder)):
                try:
                    check()
                    reason = ""
                except Exception as error:  # an error of the plugin's code, or a failed check
                    reason = one_line(in_words(error))[:300]
                outcomes.append((what, reason))
    file.write_text(json.dumps(outcomes), encoding="utf-8")


def in_words(error: Exception) -> str:
    """The message of a failed check. For Python's own errors, also the type and the line."""
    own = type(error).__module__ == "builtins" and not isinstance(error, AssertionError)
    if str(error) and not own:
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}: {last.line})"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
