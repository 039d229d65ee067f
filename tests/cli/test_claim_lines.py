"""A claim on one line, for a pipe."""

from __future__ import annotations

import pytest

from readtrack.claims import Bound, Claim, Figure
from readtrack.present.claims import judged

CLAIM = Claim(
    name="gain", sentence="It gains.", paper=Figure("twice", read="table"), rule=(Bound("gain", ">=", 2.0),)
)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"verdict": "held", "values": {"gain": 3.0}}, "held: gain: gain 3 (≥ 2); paper: twice"),
        (
            {"verdict": "not judged", "values": {}, "why": "it is about other data"},
            "not judged: gain: it is about other data; paper: twice",
        ),
    ],
)
def test_a_line_gives_the_numbers_or_why_there_are_none(fields, line):
    assert judged({"claim": CLAIM.to_json(), **fields}).line() == line
