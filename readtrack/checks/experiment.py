"""Checks of a plugin's experiment in short runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

from readtrack.checks.watching import Line, Modes, executed
from readtrack.claims import SHUFFLED, UNTRAINED, Claim
from readtrack.runs.comparing import Comparison
from readtrack.runs.events import EventReader, EventWriter
from readtrack.runs.record import Record
from readtrack.runs.run import Part, Run
from readtrack.runs.table import Table
from readtrack.runs.trained import Trained
from readtrack.verdict_table import rules

Compared: TypeAlias = tuple[Comparison[Any, Any], Table]


class Watched(Run):
    """A run that records the breaks, arms and comparisons that the experiment requested."""

    keeps_trained = False  # these runs are shorter than the usual runs of this budget and seed
    networks: dict[str, Trained] | None = None  # trained networks by key, shared by runs of one kind
    asked_breaks: set[str]
    asked_arms: bool
    compared: list[Compared]
    losses: dict[tuple[str, str], list[float]]
    metrics: set[str]
    parts: dict[str, set[Part]]  # the parts requested of each data stream
    lines: set[Line]
    modes: Modes

    def without(self, name: str) -> bool:
        self.asked_breaks = getattr(self, "asked_breaks", set()) | {name}
        return super().without(name)

    def data(self, stream: str, part: Part) -> torch.Generator:
        self.parts.setdefault(stream, set()).add(part)
        return super().data(stream, part)

    def arms(self, builders, *, control):  # type: ignore[no-untyped-def]
        self.asked_arms = True
        return super().arms(builders, control=control)

    def compare(self, *claims, **given):  # type: ignore[no-untyped-def]
        self.asked_arms = True
        table = super().compare(*claims, **given)
        self.compared = [*getattr(self, "compared", []), (Comparison(claims=claims, **given), table)]
        return table

    def descend(self, *positional, metric="training loss", arm="", **given):  # type: ignore[no-untyped-def]
        value = super().descend(*positional, metric=metric, arm=arm, **given)
        self.losses = getattr(self, "losses", {})
        self.losses.setdefault((metric, arm), []).append(value)
        return value

    def trained(self, key, make, train):  # type: ignore[no-untyped-def]
        if self.networks is None:
            return super().trained(key, make, train)
        if key not in self.networks:
            self.networks[key] = super().trained(key, make, train)
        return deepcopy(self.networks[key])

    def metric(self, name, value, *, step=None, arm=""):  # type: ignore[no-untyped-def]
        self.metrics = getattr(self, "metrics", set()) | {re.sub(r"[\d.]+(e-?\d+)?", "#", name)}
        super().metric(name, value, step=step, arm=arm)

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]:
        for step in super().steps(total, label, state):
            self.modes.looping += 1
            try:
                yield step
            finally:
                self.modes.looping -= 1


class Short(Watched):
    """A run in which each loop has two steps (the first and the last) and each grid of numbers two values."""

    def compare(self, *claims, **given):  # type: ignore[no-untyped-def]
        grid = given.get("grid", ())
        if all(isinstance(point, float) for point in grid):  # an experiment may use other grids as a whole
            given |= {"grid": [*grid[:1], *grid[1:][-1:]], "widen": False}
        return super().compare(*claims, **given)  # type: ignore[no-untyped-call]

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]:
        for step in super().steps(total, label, state):
            if step in (0, total - 1):
                yield step


def run_experiment(
    module: ModuleType,
    folder: Path,
    *,
    budget: str = "smoke",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    settings: Mapping[str, str] | None = None,
    null: bool = False,
    broken: str = "",
    times: int = 1,
    kind: type[Watched] = Watched,
    traced: bool = False,
) -> tuple[Record, Watched]:
    """Run `module.experiment` in `folder` with a run of class `kind`. Return its record and the run.

    traced  whether to record executed lines and modes, which makes the run several times as slow
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = EventWriter(folder)
    run = kind(
        folder=folder,
        events=events,
        device=torch.device("cpu"),
        dtype=dtype,
        seed=seed,
        budget=budget,  # type: ignore[arg-type]
        settings=settings or {},
        null=null,
        broken=broken,
        times=times,
    )
    torch.manual_seed(seed)
    run.modes, run.parts = Modes(), {}
    with ExitStack() as watching:
        if traced:
            run.lines = watching.enter_context(executed(module))
            watching.enter_context(run.modes.noted())
        module.experiment(run)
    events.close()
    record = Record(run_id=folder.name, paper=module.__name__)
    for event in EventReader(folder).read_rest():
        record.apply(event)
    assert record.bad_events == 0, "the run wrote an event that cannot be read"
    assert run.unused_settings() == {}, "the experiment does not read a setting"
    return record, run


def check_plain(record: Record, claims: Sequence[Claim], *, budget: str = "smoke") -> None:
    """Check that there are a curve and an evaluation metric, and that each claim is judged once, on finite
    numbers.
    """
    assert record.curves, "no training curve"
    assert record.values, "no evaluation metric"
    numbers = [value for arms in record.curves.values() for curve in arms.values() for _, value in curve]
    assert any(map(math.isfinite, numbers)), "no curve has a finite value"
    judged = sorted(event["claim"]["name"] for event in record.claims)
    stated = sorted(claim.name for claim in claims if not claim.timed)
    assert judged == stated, f"stated {stated}, judged {judged}"
    for event in record.claims:
        for metric, value in event["values"].items():
            unreached = budget == "smoke" and event["claim"]["kind"] == "measured"
            assert unreached or not math.isnan(value), f"{event['claim']['name']}: {metric} is NaN"
        if budget == "smoke" and event["claim"]["kind"] == "measured":
            assert event["verdict"] == "not judged", "a smoke run judged a measured claim"


def check_claims(claims: Sequence[Claim]) -> None:
    """Fail if a claim is incomplete, for example a measured claim without a break or a control."""
    assert claims, "no claim is defined at module level"
    names = [claim.name for claim in claims]
    assert len(set(names)) == len(names), f"two claims have the same name: {names}"
    for claim in claims:
        if claim.kind == "measured":
            assert claim.breaks or not claim.bounds, f"{claim.name}: a measured claim must name a break"
            assert claim.control or not claim.bounds, f"{claim.name}: a measured claim must name its control"
    if any(claim.control_arm for claim in claims):
        headlines = [claim.name for claim in claims if claim.headline]
        assert len(headlines) == 1, f"exactly one claim must be the paper's headline, not {headlines}"
        for claim in claims:
            alone = not claim.deviations.startswith("As above")
            assert alone, f"{claim.name}: deviations must be complete without the claim above"
            said = claim.deviations or claim.kind != "measured"
            assert said, f"{claim.name}: deviations do not state the differences from the paper's set-up"


def check_history(claims: Sequence[Claim], published: Mapping[str, Claim]) -> None:
    """Check that a claim whose thresholds differ from its published verdict's has the earlier rule in
    `history`.

    published  the claims of the shipped table, by name. Metrics may be renamed

    Only papers that use `Run.compare` are checked.
    """
    if not any(claim.control_arm for claim in claims):
        return
    for claim in claims:
        before = published.get(claim.name)
        if before is not None and _asked(claim) != _asked(before):
            assert len(claim.history) > len(before.history), (
                f"{claim.name}: its rule is not the one that was judged ({rules(before)}), and history does "
                "not say so"
            )


def _asked(claim: Claim) -> list[str]:
    return sorted(f"{bound.op} {bound.threshold} {bound.direction}" for bound in claim.rule)


def check_conditions(
    module: ModuleType,
    claims: Sequence[Claim],
    folder: Path,
    plain: Record,
    run_experiment: Callable[..., tuple[Record, Watched]] = run_experiment,
) -> None:
    """Check that null runs get their arms from `Run`, and that each break is used, judges its claims and
    changes a number of the run `plain`.
    """
    by_experiment = [claim for claim in claims if claim.kind == "measured" and claim.bounds]
    if not by_experiment:
        return
    if any(not claim.timed for claim in by_experiment):
        record, run = run_experiment(module, folder / "null", null=True)
        assert getattr(run, "asked_arms", False), "a null run used neither run.compare nor run.arms"
        judged = {event["claim"]["name"] for event in record.claims}
        assert {c.name for c in by_experiment if not c.timed} <= judged, "a null run skipped a measured claim"
    for name in dict.fromkeys(one.name for claim in by_experiment for one in claim.breaks):
        record, run = run_experiment(module, folder / f"break-{abs(hash(name))}", broken=name)
        assert name in getattr(run, "asked_breaks", set()), (
            f"no comparison has break {name!r}, and nothing calls run.without"
        )
        judged = {event["claim"]["name"] for event in record.claims}
        wanted = {c.name for c in by_experiment if name in {one.name for one in c.breaks} and not c.timed}
        assert wanted <= judged, f"break {name!r} left out {wanted - judged}"
        compares = getattr(run, "compared", [])
        changed = not compares or name in (UNTRAINED.name, SHUFFLED.name) or _changed(plain, record)
        assert changed, f"break {name!r} changes no number that a plain run has"


def _changed(plain: Record, broken: Record) -> bool:
    """Whether any number that both runs have differs."""

    def numbers(record: Record) -> dict[tuple[str, str, str], str]:
        points = {
            ("curve", name, arm): repr(p) for name, arms in record.curves.items() for arm, p in arms.items()
        }
        values = {("value", *key): repr(value) for key, value in record.values.items()}
        judged = {
            ("claim", event["claim"]["name"], metric): repr(value)
            for event in record.claims
            for metric, value in event["values"].items()
        }
        return {key: text for key, text in (points | values | judged).items() if "second" not in key[1]}

    before, after = numbers(plain), numbers(broken)
    return any(before[key] != after[key] for key in before.keys() & after.keys())


def check_seeds(module: ModuleType, folder: Path, first: Record) -> None:
    """Check that seed 0 reproduces the numbers of `first`, and that another seed does not."""
    again, other = (run_experiment(module, folder / f"seed-{seed}", seed=seed)[0] for seed in (0, 1))
    common = first.curves.keys() & again.curves.keys()
    assert common, "the same seed gave different curves"
    assert _numbers(first, common) == _numbers(again, common), "the same seed gave different numbers"
    assert _numbers(first, common) != _numbers(other, common), "another seed gave the same numbers"


def _numbers(record: Record, common: Set[str]) -> str:
    """All numbers except times, and the curves in `common`. A run that finds its network in the cache
    (`Run.trained`) lacks that network's training curve.
    """
    curves = {name: arms for name, arms in record.curves.items() if name in common and "second" not in name}
    values = {name: value for name, value in record.values.items() if "second" not in name[0]}
    return repr((curves, values))
