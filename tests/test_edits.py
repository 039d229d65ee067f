"""Edited code of a run: what is recorded and shown, and how it is reverted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from readtrack.home import Home
from readtrack.plugins import edits
from readtrack.plugins.edits import Edit
from readtrack.plugins.find import PluginRef, find
from readtrack.plugins.source import drop_unchanged_copy, own_copy, revert
from readtrack.runs.evidence import best
from readtrack.runs.job import Job, new_job
from readtrack.runs.record import Record


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two plugins: the package `deep`, which builds on the file `flat`."""
    folder = tmp_path / "shipped"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "__init__.py").write_text("from ..flat import rate\n")
    (folder / "deep" / "model.py").write_text("a = 1\nb = 2\nc = 3\n")
    (folder / "flat.py").write_text("rate = 0.1\n")
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(folder))
    return folder


def _edits(home: Home) -> list[Edit]:
    return edits.of_paper("deep", find(home), {"deep": ("flat",)})


def test_the_running_plugin_is_compared_with_the_shadowed_one(home: Home, shipped: Path) -> None:
    assert _edits(home) == []
    main = own_copy(find(home)["deep"], home)
    assert _edits(home) == []
    (main.parent / "model.py").write_text("a = 1\nb = 5\nc = 3\n")
    (main.parent / "more.py").write_text("d = 4\n")
    own_copy(find(home)["flat"], home).write_text("rate = 0.2\n")
    found = _edits(home)
    assert [(edit.file, edit.counts) for edit in found] == [
        ("deep/model.py", "+1 −1"),
        ("deep/more.py", "+1 −0"),
        ("flat.py", "+1 −1"),
    ]
    assert edits.summary("deep", found) == "model.py +1 −1, more.py +1 −0, 1 more file"
    assert found[0].diff() == ["@@ -1,3 +1,3 @@", " a = 1", "-b = 2", "+b = 5", " c = 3"]


def test_a_copy_without_changes_goes_and_a_changed_one_stays(home: Home, shipped: Path) -> None:
    main = own_copy(find(home)["deep"], home)
    drop_unchanged_copy(find(home)["deep"])
    assert not main.parent.exists()
    own_copy(find(home)["deep"], home)
    (main.parent / "notes.txt").write_text("mine")  # a file that exists only in the copy is a change, too
    drop_unchanged_copy(find(home)["deep"])
    assert (main.parent / "notes.txt").read_text() == "mine"
    own_copy(find(home)["flat"], home)
    drop_unchanged_copy(find(home)["flat"])
    assert not (home.plugins / "flat.py").exists()
    drop_unchanged_copy(PluginRef("flat", "shipped", str(shipped / "flat.py")))
    assert (shipped / "flat.py").exists()


def test_a_reverted_copy_is_put_aside_and_never_over_another(home: Home, shipped: Path) -> None:
    kept = []
    for text in ("rate = 1\n", "rate = 2\n"):
        own_copy(find(home)["flat"], home).write_text(text)
        kept.append(revert(find(home)["flat"], home))
    assert [path.read_text() for path in kept] == ["rate = 1\n", "rate = 2\n"]
    assert find(home)["flat"].origin == "path"


def test_a_run_keeps_its_edits_when_the_files_change(home: Home, shipped: Path) -> None:
    own_copy(find(home)["flat"], home).write_text("rate = 0.2\n")
    folder = home.ensure(home.runs / "one")
    edits.save(folder, _edits(home))
    revert(find(home)["flat"], home)
    assert edits.load(folder) == [Edit("flat.py", "rate = 0.1\n", "rate = 0.2\n")]
    assert edits.load(home.runs) == []


@pytest.mark.parametrize("text", ["", "[" * 5000, "{}", "[[1, 2]]", '[{"file": 1}]', "3", "\xff"])
def test_odd_records_of_edits_are_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "edits.json").write_text(text, encoding="latin-1")
    assert edits.load(tmp_path) == []


def test_edits_of_two_runs_are_compared_file_by_file() -> None:
    a = [Edit("x.py", "0\n", "1\n"), Edit("y.py", "0\n", "9\n")]
    b = [Edit("y.py", "0\n", "9\n"), Edit("z.py", "0\n", "2\n")]
    assert edits.between(a, b) == [Edit("x.py", "1\n", "0\n"), Edit("z.py", "0\n", "2\n")]
    assert edits.between(a, a) == []


def test_an_edited_run_is_marked_and_is_not_evidence() -> None:
    job = new_job("deep", edited="model.py +1 −1")
    assert job.condition == "edited: model.py +1 −1"
    assert replace(job, null=True).condition == "null run, edited: model.py +1 −1"
    record = Record.from_job(job)
    record.outcome = "completed"
    plain = replace(record, job=replace(job, edited=""), run_id="plain")
    assert best([record.summary(), plain.summary()]) == plain.summary()
    assert best([record.summary()]) is None


def test_the_job_of_an_older_readtrack_has_no_edits(tmp_path: Path) -> None:
    new_job("deep").write(tmp_path)
    assert Job.read(tmp_path).edited == ""
