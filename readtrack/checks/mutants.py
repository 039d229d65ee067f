"""Mutants of a plugin's comparisons: mistakes that the checks of `readtrack.checks.comparing` must find.

`python -m readtrack.checks.mutants NAME FILE` writes the fate of each mutant to FILE as JSON.

Each mutant changes the arguments of `Run.compare` or the requested data, and is then checked like any plugin.
A mutant that changes no number of a short run does not apply to the plugin.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from readtrack.checks import comparing
from readtrack.checks.comparing import ShortRuns
from readtrack.home import Home
from readtrack.plugins.load import load
from readtrack.runs.comparing import papers_arms
from readtrack.runs.run import Part, Run

if TYPE_CHECKING:
    from readtrack.data.sources import DataSource
    from readtrack.datasets.catalogue import Kind

CHECKS = {
    "no leak": comparing.check_no_leak,
    "test data are used": comparing.check_judge_heard,
    "equal work": comparing.check_equal_work,
    "arms differ": comparing.check_arms_differ,
    "null runs": comparing.check_null,
}


class Outcome(NamedTuple):
    """The fate of a mutant ("killed", "survived" or "does not apply"), and the check that killed it."""

    mutant: str
    fate: Literal["killed", "survived", "does not apply"]
    by: str = ""


class Mutant(Run):
    """A run of an experiment with a mistake."""

    says: str


class _OtherPart(Mutant):
    """Replaces the data of one part with the data of another."""

    asked: Part
    given: Part

    def data(self, stream: str, part: Part) -> torch.Generator:
        if part != self.asked:
            return super().data(stream, part)
        return super().data(f"{stream}, of another part", self.given)

    def data_seed(self, part: Part) -> int:
        return super().data_seed(part) if part != self.asked else 7919 + super().data_seed(self.given)

    def rows(self, count: int, part: Part) -> torch.Tensor:
        return super().rows(count, part) if part != self.asked else super().rows(count, self.given).flip(0)

    def source(self, kind: Kind, **asked: Any) -> DataSource:
        found = super().source(kind, **asked)
        parts = found.parts._asdict()
        return found._replace(parts=found.parts._replace(**{self.asked: parts[self.given]}))


class ChoosesOnJudge(_OtherPart):
    says = "settings are chosen on the test data"
    asked, given = "choose", "judge"


class TrainsOnJudge(_OtherPart):
    says = "arms are trained on the test data"
    asked, given = "train", "judge"


class JudgesOnTraining(_OtherPart):
    says = "arms are judged on the training data"
    asked, given = "judge", "train"


class _OtherArguments(Mutant):
    """Passes other arguments to `Run.compare`."""

    def compare(self, *claims: Any, **given: Any) -> Any:
        measured = [claim for claim in claims if claim.control_arm]
        if measured:
            control = measured[0].control_arm
            paper = next((name for name in papers_arms(measured[0]) if name in given["arms"]), control)
            given = {**given, **self.changed(control, paper, given)}
        return super().compare(*claims, **given)

    def changed(self, control: str, paper: str, given: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class PaperIsControl(_OtherArguments):
    says = "the paper's arm is the control"

    def changed(self, control: str, paper: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"arms": {**given["arms"], paper: given["arms"][control]}}


class _OtherPoint(_OtherArguments):
    """Trains the control at a point other than the requested one."""

    def changed(self, control: str, paper: str, given: Mapping[str, Any]) -> dict[str, Any]:
        attempt: Callable[..., Any] = given["attempt"]

        def other(at: Any, arm: Any, point: Any) -> Any:
            ours = at.name.partition("@")[0] == control
            return attempt(at, arm, self.point(point, given["grid"]) if ours else point)

        return {"attempt": other} if given.get("grid") else {}

    def point(self, point: Any, grid: Any) -> Any:
        raise NotImplementedError


class OneRate(_OtherPoint):
    says = "the control has only the first value of the grid"

    def point(self, point: Any, grid: Any) -> Any:
        return grid[0]


class TenthOfTheRate(_OtherPoint):
    says = "the control has a tenth of each learning rate"

    def point(self, point: Any, grid: Any) -> Any:
        return point / 10 if isinstance(point, float) else point


class HalfTheSteps(_OtherArguments):
    says = "the control is trained for half of the steps"
    _starved = ""

    def changed(self, control: str, paper: str, given: Mapping[str, Any]) -> dict[str, Any]:
        self._starved = control
        return {}

    def share_of_steps(self, arm: str) -> float:
        return 0.5 if arm == self._starved else super().share_of_steps(arm)


class HalfTheStages(_OtherArguments):
    says = "the stage of the control is trained for half of the steps"

    def changed(self, control: str, paper: str, given: Mapping[str, Any]) -> dict[str, Any]:
        arm = given["arms"][control]
        if arm.before is None:
            return {}

        def short(at: Any) -> Any:
            at._share = 0.5
            return arm.before(at)

        return {"arms": {**given["arms"], control: type(arm)(arm.make, before=short)}}


MUTANTS: tuple[type[Mutant], ...] = (
    ChoosesOnJudge,
    TrainsOnJudge,
    JudgesOnTraining,
    PaperIsControl,
    OneRate,
    TenthOfTheRate,
    HalfTheSteps,
    HalfTheStages,
)


def outcomes(module: ModuleType, folder: Path) -> Iterator[Outcome]:
    """The fate of each mutant of a plugin whose experiment compares arms."""
    sound = _numbers(ShortRuns.of(module, folder / "sound"))
    for mutant in MUTANTS:
        try:
            runs = ShortRuns.of(module, folder / mutant.__name__, mutant=mutant)
        except Exception as error:  # the mistake makes the plugin's own code raise an error
            yield Outcome(mutant.says, "killed", f"the experiment itself: {type(error).__name__}")
            continue
        if _numbers(runs) == sound:
            yield Outcome(mutant.says, "does not apply")
            continue
        killers = [name for name, check in CHECKS.items() if _finds(check, runs)]
        yield Outcome(mutant.says, "killed" if killers else "survived", ", ".join(killers))


def _finds(check: Callable[[ShortRuns], None], runs: ShortRuns) -> bool:
    try:
        check(runs)
    except Exception:  # an unexpected error of a check also counts as a finding
        return True
    return False


def _numbers(runs: ShortRuns) -> str:
    """Rows and losses in the plain short run."""
    return repr(
        [
            (
                {row: {name: str(one) for name, one in cells.items()} for row, cells in table.rows.items()},
                [(work.arm, work.losses, work.score, work.taken) for work in table.works],
            )
            for _, table in runs.compared
        ]
    )


def main(name: str, file: Path) -> None:
    load(name, Home())
    with tempfile.TemporaryDirectory(prefix="readtrack-check-") as folder:
        found = list(outcomes(sys.modules[f"readtrack.papers.{name}"], Path(folder)))
    file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
