"""The mutations of tests/mutate.py still match the experiments that they change, and the page of mutants
explains those that no check finds."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"
MUTATIONS = runpy.run_path(str(Path(__file__).with_name("mutate.py")))["MUTATIONS"]


@pytest.mark.parametrize("paper", MUTATIONS)
def test_each_changes_one_place(paper: str) -> None:
    text = (PLUGINS / paper / "experiment.py").read_text(encoding="utf-8")
    assert {m.what: text.count(m.old) for m in MUTATIONS[paper] if text.count(m.old) != 1} == {}


def test_the_page_of_mutants_is_written_from_their_fates() -> None:
    docs = PLUGINS.parent / "docs"
    page = runpy.run_path(str(Path(__file__).with_name("mutants.py")))["page"]
    fates = json.loads((docs / "mutants.json").read_text(encoding="utf-8"))
    assert (docs / "mutants.md").read_text(encoding="utf-8") == page(fates)
    assert fates.keys() <= {folder.stem for folder in PLUGINS.iterdir()}
