"""Trees, timelines, proposals and statistics of the shipped list."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta

import pytest

from readtrack import lineage
from readtrack.cli import app
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.load import load, shipped
from readtrack.statistics import heat_map, statistics


@pytest.fixture
def library(home: Home) -> Library:
    return Library.open(home, shipped())


def test_every_paper_that_is_built_on_is_in_the_tree(library: Library) -> None:
    tree = lineage.ancestors(library.catalog, "schedule_free")
    shown = {node.paper for _, node in lineage.drawn(tree.below)}
    assert {"sgd", "momentum", "rmsprop", "adamw", "adam"} == shown
    below = lineage.descendants(library.catalog, "adam")
    assert "schedule_free" in {node.paper for _, node in lineage.drawn(below.below)}


def test_a_paper_is_unfolded_once(library: Library) -> None:
    for id_ in library.catalog.papers:
        for tree in (lineage.ancestors(library.catalog, id_), lineage.descendants(library.catalog, id_)):
            unfolded = [node.paper for _, node in lineage.drawn(tree.below) if node.below]
            assert len(unfolded) == len(set(unfolded))


def test_a_tree_is_drawn_with_its_branches_and_a_circle_is_not_followed(library: Library) -> None:
    sgd = library.catalog.papers["sgd"]
    graph = {"e": ("c", "d"), "c": ("a", "b"), "d": ("b",), "a": (), "b": ("a",), "x": ("x",)}
    papers = {name: sgd._replace(id=name, builds_on=parents) for name, parents in graph.items()}
    made = library.catalog._replace(papers=papers)

    def tree(paper: str) -> list[tuple[str, str, bool]]:
        drawn = lineage.drawn(lineage.ancestors(made, paper).below)
        return [(branch, node.paper, node.again) for branch, node in drawn]

    assert tree("e") == [
        ("├ ", "c", False),
        ("│ ├ ", "a", False),
        ("│ └ ", "b", False),
        ("│   └ ", "a", False),  # a leaf has no subtree to leave out
        ("└ ", "d", False),
        ("  └ ", "b", True),
    ]
    assert tree("a") == []
    assert tree("x") == [("└ ", "x", True)]


def test_the_timeline_is_in_order_and_spells_both_ways() -> None:
    catalog = load(shipped())
    moments = lineage.timeline(catalog, "normalisation and")
    assert moments == lineage.timeline(catalog, "Normalization and")
    years = [one.paper.year for one in moments]
    assert years == sorted(years)
    assert moments[0].paper.id == "batchnorm"
    assert {"layernorm", "rmsnorm", "dyt"} <= {one.paper.id for one in moments}
    with pytest.raises(ReadtrackError, match="fish"):
        lineage.timeline(catalog, "fish")


def test_ready_papers_that_unlock_most_come_first(library: Library) -> None:
    before = lineage.proposals(library)
    assert not before[0].missing
    assert before[0].unlocks
    library.mark(before[0].paper.id, "read")
    after = lineage.proposals(library)
    assert before[0].paper.id not in {one.paper.id for one in after}
    ready = [len(one.unlocks) for one in after if not one.missing]
    assert ready == sorted(ready, reverse=True)


def test_streaks_and_days(library: Library) -> None:
    today = date(2026, 11, 22)
    ids = list(library.catalog.papers)
    for back in (0, 1, 2, 5, 6, 7, 8, 400):
        at = datetime.combine(today - timedelta(days=back), datetime.min.time(), UTC).replace(hour=12)
        line = {"at": at.isoformat(), "id": f"x{back}", "paper": ids[back % 9 + 9], "state": "read"}
        library.home.ensure()
        with library.home.journal.open("a") as file:
            file.write(json.dumps(line) + "\n")
    library.reload()
    found = statistics(library, today)
    assert (found.streak, found.longest, found.this_year) == (3, 4, 7)
    lines = heat_map(found)
    assert len(lines) == 8
    assert sum(len(re.findall("[░▒▓█]", line)) for line in lines) == 7
    assert sum(sum(states.values()) for _, states in found.sections) >= sum(found.states.values())


def test_an_undone_state_is_not_a_day_of_reading(library: Library) -> None:
    library.mark("bert", "read")
    library.undo()
    assert not statistics(library).days


@pytest.mark.parametrize(
    "arguments",
    [
        ("lineage", "adam"),
        ("lineage", "--timeline", "normalization"),
        ("next",),
        ("stats",),
    ],
)
def test_commands_print_text_and_json(
    arguments: tuple[str, ...], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 0
    assert capsys.readouterr().out.strip()
    assert app.run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_bibtex_of_one_paper(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["bibtex", "adam"]) == 0
    assert capsys.readouterr().out.startswith("@misc{kingma2014adam,")
