"""The shipped table of verdicts is read, or ignored if it is not a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readtrack.claims import Bound, Break, Claim, Figure
from readtrack.published import published
from readtrack.verdict_table import VerdictRow, VerdictTable
from readtrack.verdicts import judge_over_seeds

CLAIM = Claim(
    name="gain",
    sentence="It gains.",
    paper=Figure("2"),
    rule=(Bound("gain", ">=", 0.2),),
    breaks=(Break("no gate", "It is\nopen."),),
)


def test_a_table_by_verify_is_read(tmp_path: Path) -> None:
    stated = {seed: [{"claim": CLAIM.to_json(), "values": {"gain": 0.3}}] for seed in range(5)}
    rows = [
        VerdictRow.of(one, "not reproduced", {"no \x1b[31mgate": "weak"})
        for one in judge_over_seeds("paper", stated)
    ]
    file = tmp_path / "verdicts.json"
    file.write_text(VerdictTable(rows, {"paper": {"machine": "two cores", "date": "2026-01-01"}}).to_json())
    (one,) = published(file)["paper"]
    assert (one.claim, one.kind, one.verdict) == ("gain", "measured", "reproduced")
    assert (one.held, one.seeds, one.null) == (5, 5, "not reproduced")
    assert one.breaks == (("no gate", "weak"),)
    assert one.takes_away == (("no gate", "It is open."),)
    assert one.made == "two cores, 2026-01-01"

    assert one.ours.endswith("required ≥ 0.2")

    body = json.loads(file.read_text())
    body["claims"][0]["guards"] = {"gain ≥ 0.2": "the untrained arm"}
    file.write_text(json.dumps(body))
    assert published(file)["paper"][0].ours.endswith("required ≥ 0.2 (a guard, not counted)")

    body["claims"][0]["claim"]["rule"] = [{"bound": "speedup", "case": "copies", "threshold": 2.0}]
    file.write_text(json.dumps(body))
    assert (one.counted, published(file)["paper"][0].counted) == ("5 of 5 seeds", "benchmark")

    body["claims"][0]["procedure"] -= 1
    file.write_text(json.dumps(body))
    assert published(file)["paper"][0].made == "two cores, 2026-01-01, judged by the earlier procedure"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"runs": [], "claims": [{}]}', '{"runs": 1, "claims": []}'])
def test_text_that_is_not_a_table_is_unchanged(tmp_path: Path, text: str) -> None:
    file = tmp_path / "verdicts.json"
    file.write_text(text)
    assert published(file) == {}
    assert published(tmp_path / "missing.json") == {}
