"""The meaning of an experiment's names for charts: roles of arms, and whether lower is better."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from readtrack.claims import Claim
from readtrack.runs.events import EventWriter
from readtrack.runs.trial import Keep

ArmRole = Literal["paper", "control", "arm", "yardstick", "reference"]
Better = Literal["lower", "higher"]


_NONE: Mapping[str, str] = MappingProxyType({})


class Meanings:
    """Records each role and direction once."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events
        self._said: set[tuple[str, str, str]] = set()

    def say(self, *, roles: Mapping[str, str] = _NONE, better: Mapping[str, str] = _NONE) -> None:
        new: dict[str, dict[str, str]] = {"roles": {}, "better": {}}
        for kind, words in (("roles", roles), ("better", better)):
            for name, word in words.items():
                if (kind, name, word) not in self._said:
                    self._said.add((kind, name, word))
                    new[kind][name] = word
        if any(new.values()):
            self._events.emit("meaning", **new)


def of_choice(keep: Keep) -> Better:
    return "lower" if keep == "lowest" else "higher"


def of_arms(names: Collection[str], control: str) -> dict[str, ArmRole]:
    """The roles of arms. If there are two, the one that is not the control is the paper's."""
    other: ArmRole = "paper" if len(names) == 2 else "arm"
    return {name: "control" if name == control else other for name in names}


def of_claims(
    claims: Sequence[Claim], arms: Collection[str], yardsticks: Collection[str], references: Collection[str]
) -> tuple[dict[str, ArmRole], dict[str, Better]]:
    """The role of each row of a comparison, and the better direction of each metric, from the claims' rules.

    A compared arm that is not the control of any claim is the paper's.
    """
    controls = {claim.control_arm for claim in claims}
    rules = [(bound, bound.of) for claim in claims for bound in claim.bounds if bound.of]
    compared = {row.partition("@")[0] for _, of in rules for row in of.rows}
    roles: dict[str, ArmRole] = {}
    for name in references:
        roles[name] = "reference"
    for name in yardsticks:
        roles[name] = "yardstick"
    for arm in arms:
        roles[arm] = "control" if arm in controls else "paper" if arm in compared else "arm"
    found: dict[str, set[Better]] = {}
    for bound, of in rules:
        more, of_control = bound.op in (">=", ">"), of.arm.partition("@")[0] in controls
        turned = of_control and bool(of.against)  # the control's lead over another arm
        found.setdefault(of.metric, set()).add("higher" if more != turned else "lower")
    return roles, {metric: way for metric, ways in found.items() for way in ways if len(ways) == 1}
