"""What an experiment's names mean, for those who draw them: the arms' roles, and whether less is better."""

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
    """Records each of these once."""

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
    """Of two arms the one that is not the control is the paper's; of more, nothing says which."""
    other: ArmRole = "paper" if len(names) == 2 else "arm"
    return {name: "control" if name == control else other for name in names}


def of_claims(
    claims: Sequence[Claim], arms: Collection[str], yardsticks: Collection[str], references: Collection[str]
) -> tuple[dict[str, ArmRole], dict[str, Better]]:
    """The roles of a comparison's rows, and of its metrics whether less is better, as its rules say.

    An arm that a rule compares and that is no claim's control is the paper's.
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
