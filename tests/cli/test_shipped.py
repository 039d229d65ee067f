"""`readtrack show` prints the shipped verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readtrack import published
from readtrack.cli.showing import app


@pytest.mark.usefixtures("papers")
def test_show_prints_shipped_measurements_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "paper": "toy_adam",
        "claim": {
            "name": "bowl",
            "sentence": "Adam finds the bowl's floor in fewer steps than SGD.",
            "kind": "measured",
            "breaks": [],
            "deviations": "One bowl.",
        },
        "verdict": "weak",
        "held": 3,
        "seeds": [1, 2, 3, 4, 5],
        "ours": "",
        "null": None,
        "breaks": {},
    }
    file = tmp_path / "verdicts.json"
    facts = {"machine": "two cores", "date": "2026-01-01"}
    identity = row | {"claim": {"name": "same", "kind": "identity", "breaks": []}, "verdict": "held"}
    table = {"runs": [{"papers": ["toy_adam"], "facts": facts}], "claims": [row, identity]}
    file.write_text(json.dumps(table), encoding="utf-8")
    monkeypatch.setattr(published, "shipped_file", lambda: file)

    def shown(*arguments: str) -> str:
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

    lines = shown("toy_adam")
    assert (
        "shipped     weak: bowl, 3 of 5 seeds\n"
        "              Adam finds the bowl's floor in fewer steps than SGD.\n"
        "            exact: same, 3 of 5 seeds\n"
    ) in lines
    assert "than SGD.\n              Differs from the paper: One bowl.\n" in shown("toy_adam", "--verbose")
    assert "            measured on two cores, 2026-01-01" in lines
    (found, _) = json.loads(shown("toy_adam", "--json"))["shipped_verdicts"]
    assert (found["claim"], found["verdict"], found["deviations"]) == ("bowl", "weak", "One bowl.")
    assert "shipped" not in shown("toy_newton")
