"""Recorded roles of arms, and metrics for which less is better."""

from __future__ import annotations

from typing import Any

import pytest

from readtrack.claims import Break, Claim, Figure, at_least, at_most
from readtrack.runs.meaning import Meanings, of_arms, of_claims
from readtrack.runs.record import Record


class Written(list[dict[str, Any]]):
    def emit(self, event: str, **fields: Any) -> None:
        self.append({"event": event, **fields})


def claim(*rule: Any) -> Claim:
    return Claim(
        name="n", sentence="s", paper=Figure("f"), rule=rule, control_arm="control", breaks=(Break("b", "t"),)
    )


def test_the_arm_that_a_rule_compares_is_the_papers() -> None:
    rule = claim(at_least("accuracy", "ours@4", 0.1, minus="control@4"))
    roles, better = of_claims([rule], ["ours", "control", "extra"], ["plain"], ["law"])
    assert roles == {
        "ours": "paper", "control": "control", "extra": "arm", "plain": "yardstick", "law": "reference"
    }  # fmt: skip
    assert better == {"accuracy": "higher"}


@pytest.mark.parametrize(
    ("bound", "better"),
    [
        (at_least("error", "control", 0.1, minus="ours"), "lower"),
        (at_least("error", "control", 2.0, over="ours"), "lower"),
        (at_most("error", "ours", 0.5, over="control"), "lower"),
        (at_most("error", "ours", 0.1), "lower"),
        (at_most("accuracy", "control", -0.1, minus="ours"), "higher"),
        (at_least("accuracy", "control", 0.9), "higher"),
    ],
)
def test_the_side_of_a_bound_shows_whether_less_is_better(bound: Any, better: str) -> None:
    found = of_claims([claim(bound)], ["ours", "control"], (), ())[1]
    assert found == {bound.of.metric: better}


def test_rules_that_disagree_give_no_hint() -> None:
    rules = claim(at_most("rate", "ours", 3.0), at_least("rate", "ours", 1.0))
    assert of_claims([rules], ["ours", "control"], (), ())[1] == {}


def test_of_two_arms_the_other_is_the_papers() -> None:
    assert of_arms(["a", "b"], "a") == {"a": "control", "b": "paper"}
    assert of_arms(["a", "b", "c"], "a") == {"a": "control", "b": "arm", "c": "arm"}


def test_each_is_written_once_and_read_back() -> None:
    written = Written()
    meaning = Meanings(written)  # type: ignore[arg-type]
    meaning.say(roles={"a": "control"}, better={"loss": "lower"})
    meaning.say(roles={"a": "control"})
    meaning.say(roles={"a": "control", "b": "paper"})
    assert [event["roles"] for event in written] == [{"a": "control"}, {"b": "paper"}]
    record = Record("r", "p")
    for event in written:
        record.apply(event)  # type: ignore[arg-type]
    assert (record.roles, record.better) == ({"a": "control", "b": "paper"}, {"loss": "lower"})
    record.apply({"event": "meaning", "roles": 7})  # type: ignore[typeddict-item]
    assert record.bad_events == 1
