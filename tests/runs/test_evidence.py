"""Which of a paper's runs is shown as its result."""

from __future__ import annotations

import pytest

from readtrack.runs.evidence import best, overall
from readtrack.runs.record import RunSummary


def run(verdict: str | None, **fields: object) -> RunSummary:
    known = {
        "run_id": f"run-{verdict}",
        "paper": "sgd",
        "started": "2026-11-22T08:00:00+00:00",
        "outcome": "completed",
        "detail": "",
        "device": "cpu",
        "budget": "quick",
        "seed": 0,
        "duration": 1.0,
        "claims": (("first", verdict, "x 1"),) if verdict else (),
        "headline": "",
    }
    return RunSummary(**{**known, **fields})  # type: ignore[arg-type]


HELD = run("held")


@pytest.mark.parametrize(
    "later",
    [
        run("not judged", budget="smoke", started="2026-11-23"),
        run(None, outcome="failed", started="2026-11-23"),
        run(None, outcome="cancelled", started="2026-11-23"),
        run(None, outcome=None, started="2026-11-23"),
        run(None, budget="full", started="2026-11-23"),  # benchmark only
        run("missed", condition="null run", started="2026-11-23"),
        run("missed", condition="break: no residual", started="2026-11-23"),
        run("missed", condition="data: fashion-mnist", budget="full", started="2026-11-23"),
        run("missed", started="2026-11-21"),
    ],
)
def test_a_weaker_result_does_not_replace_it(later: RunSummary) -> None:
    assert best([later, HELD]) is HELD
    assert best([HELD, later]) is HELD


@pytest.mark.parametrize(
    "other", [run("missed", budget="full", started="2026-11-20"), run("missed", started="2026-11-23")]
)
def test_a_stronger_result_replaces_it_even_if_it_is_worse(other: RunSummary) -> None:
    assert best([HELD, other]) is other


def test_without_a_completed_run_there_is_none() -> None:
    assert best([]) is None
    assert best([run(None, outcome="crashed"), run("held", condition="null run")]) is None


def test_a_run_is_as_good_as_its_least_good_claim() -> None:
    claims = [("a", "held", ""), ("b", "not judged", ""), ("c", "missed", "")]
    assert overall(run(None, claims=tuple(claims))) == "missed"
    assert overall(run(None, claims=tuple(claims[:2]))) == "held"
    assert overall(run("not judged")) == "not judged"
    assert overall(run(None)) == "completed"
    assert overall(run("held", outcome="failed")) == "failed"
    assert overall(run("held", outcome=None)) == "running"


def test_an_identity_that_held_is_not_evidence() -> None:
    smoke = run(None, claims=(("a", "not judged", ""), ("b", "held", "")), unmeasured=("b",), budget="smoke")
    assert overall(smoke) == "not judged"
    assert overall(run("held", unmeasured=("first",))) == "exact"
    assert overall(run("missed", unmeasured=("first",))) == "missed"
    assert best([smoke, run("missed", budget="smoke", started="2026-11-20")]) is not smoke
