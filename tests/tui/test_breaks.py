"""Runs with a break: the source of the breaks, the dialog, and the reference next to the claims."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import status, until
from textual.pilot import Pilot

from readtrack import published
from readtrack.claims import Bound, Break, Claim, Figure
from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.check import Inspection
from readtrack.present.claims import Baseline
from readtrack.runs import processes
from readtrack.runs.job import Job, new_job
from readtrack.runs.record import Record
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.controllers import breaks
from readtrack.tui.screens.choose_break import ChooseBreak
from readtrack.tui.widgets import claims_page, run_pages
from readtrack.tui.widgets.line_view import Line

LIGHT = Path(__file__).parents[1] / "toys" / "light"
PLUGIN = """
from readtrack.plugin import Bound, Break, Claim, Figure, hookimpl

CLAIM = Claim(
    name="falls",
    sentence="The loss falls.",
    paper=Figure("from 1 to 0.1"),
    rule=(Bound("last loss", "<=", 0.5),),
    breaks=(Break("no idea", "The loss stays where it was, however long the training goes on and on and on."),
            Break("other data", "Other data.")),
)


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    run.claim(CLAIM, {"last loss": 1.0 if run.without("no idea") else 0.1})


@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.fixture
def app(home: Home, papers_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadtrackApp]:
    monkeypatch.setenv("PYTHONPATH", str(LIGHT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(published, "shipped_file", lambda: home.root / "no verdicts")
    home.ensure(home.plugins)
    (home.plugins / "sgd.py").write_text(PLUGIN, encoding="utf-8")
    yield ReadtrackApp(Library.open(home, papers_yaml))
    for folder in home.runs.iterdir() if home.runs.exists() else ():
        processes.kill_leftover_processes(folder.name)


def plain(lines: list[Line]) -> str:
    return "\n".join(line.content.plain for line in lines)


async def to_sgd(pilot: Pilot[int], app: ReadtrackApp) -> None:
    await pilot.pause()
    assert app.main.checklist.go_to_subject("sgd")
    await pilot.pause()


@pytest.mark.slow
async def test_x_queries_the_plugin_and_runs_the_chosen_options(
    app: ReadtrackApp,
    home: Home,
    screen_text: Callable[[ReadtrackApp], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONPATH")  # the real torch, which the benchmark needs
    async with app.run_test(size=(80, 24)) as pilot:
        await to_sgd(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ChooseBreak), "the breaks")
        await until(pilot, lambda: "--break" in screen_text(app), "the dialog to be drawn")
        text = screen_text(app)
        assert "1  no idea" in text
        assert "however long the training goes on and on and on." in " ".join(text.replace("│", "").split())
        assert "$ readtrack run sgd --break 'no idea'" in text
        await pilot.press("j", "left")
        await pilot.pause()
        assert "$ readtrack run sgd --break 'other data' --budget smoke" in screen_text(app)
        await pilot.press("k", "enter")
        await until(pilot, lambda: app.library.results(), "the run")
        await until(pilot, lambda: app.following is None, "the end of the run")
        (folder,) = home.runs.iterdir()
        job = Job.read(folder)
        assert (job.broken, job.budget) == ("no idea", "smoke")
        await until(pilot, lambda: "✓ completed" in screen_text(app), "the end to be drawn")
        assert "sgd  break: no idea" in screen_text(app)
        await until(pilot, lambda: app.main._results, "the results")
        assert app.main.checklist.verdicts == {}
        assert breaks.known(app.library, "sgd")[0].name == "no idea"  # the run's own claims now have them


async def test_the_app_shows_that_it_queries_the_plugin_and_does_so_once(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def examine(name: str, home: Home) -> Inspection:
        asked.append(name)
        time.sleep(0.5)
        return Inspection("has no hook 'benchmark'")

    monkeypatch.setattr(breaks, "examine", examine)
    async with app.run_test() as pilot:
        await to_sgd(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: "Reading the breaks of sgd" in status(app), "the news")
        await pilot.press("x")
        assert "Still reading the breaks of sgd" in status(app)
        await until(pilot, lambda: app._notifications, "the complaint")
        assert "Why: has no hook 'benchmark'." in list(app._notifications)[-1].message
        assert asked == ["sgd"]


async def test_a_paper_without_breaks_is_reported(app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaks, "examine", lambda name, home: Inspection(None))
    async with app.run_test() as pilot:
        await to_sgd(pilot, app)
        await pilot.press("x")
        await until(pilot, lambda: "The claims of sgd have no breaks." in status(app), "the news")
        app.main.checklist.go_to_subject("adam")
        await pilot.press("x")
        assert "it has no plugin yet" in list(app._notifications)[-1].message


async def test_a_reader_who_has_continued_gets_no_question(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaks, "known", lambda library, paper: (Break("no idea", ""),))
    async with app.run_test() as pilot:
        await to_sgd(pilot, app)
        app.main.checklist.go_to_subject("adam")
        app._breaks._offer("sgd", (Break("no idea", ""),), "")
        assert not isinstance(app.screen, ChooseBreak)


def test_shipped_verdicts_name_the_breaks_where_no_run_does(
    home: Home, papers_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"name": "a", "kind": "measured", "breaks": [{"name": "no mean", "takes_away": "m\x1b[1m."}]}
    row = {"paper": "adam", "claim": claim, "verdict": "weak", "held": 1, "seeds": [1], "ours": ""}
    file = tmp_path / "verdicts.json"
    rows = [{**row, "null": None, "breaks": {}}] * 2
    file.write_text(
        json.dumps({"runs": [{"papers": ["adam"], "facts": {}}], "claims": rows}), encoding="utf-8"
    )
    monkeypatch.setattr(published, "shipped_file", lambda: file)
    (found,) = breaks.known(Library.open(home, papers_yaml), "adam")
    assert found.name == "no mean"
    assert "\x1b" not in found.takes_away


def broken_run(values: dict[str, float], **fields: object) -> Record:
    """An ended run with one claim for each name, which fails without "no idea"."""
    found = Record.from_job(new_job("sgd", **fields))
    for name, value in values.items():
        claim = Claim(
            name=name,
            sentence="S.",
            paper=Figure("1"),
            rule=(Bound("x", ">=", 1.0),),
            breaks=(Break("no idea", "The idea [b]itself[/b]."),),
        )
        verdict, why = claim.judge({"x": value})
        event = {
            "claim": claim.to_json(),
            "verdict": verdict,
            "why": why,
            "values": {"x": value},
            "ours": "x",
        }
        found.stated.append(claim.to_json())
        found.claims.append(event)
    found.outcome = "completed"
    return found


WITH_IT = Baseline(
    {"first": "held", "second": "reproduced", "third": "missed"}, "plain run", "the plain run of D"
)


def test_claims_of_a_broken_run_are_next_to_the_plain_ones() -> None:
    found = broken_run({"first": 0, "second": 2, "third": 0, "fourth": 0}, broken="no idea")
    text = plain(claims_page.page(found, 100, WITH_IT))
    assert "break: no idea  The idea [b]itself[/b]." in text
    assert "Next to each claim: the plain run of D." in text
    assert "· missed  first   plain run ✓ held   ✓ it failed" in text
    assert "· held  second   plain run ✓ reproduced   ✗ it did not fail" in text
    assert "· missed  third   plain run ✗ missed\n" in text
    assert "· missed  fourth\n" in text


def test_a_claim_that_does_not_name_the_break_may_stand() -> None:
    text = plain(claims_page.page(broken_run({"first": 2}, broken="another"), 100, WITH_IT))
    assert "· held  first   plain run ✓ held\n" in text


def test_a_claim_that_falls_under_an_edit_is_bad_news() -> None:
    found = broken_run({"first": 0, "second": 2}, edited="model.py +1 −1")
    text = plain(claims_page.page(found, 100, WITH_IT))
    assert "edited: model.py +1 −1     E shows the edits" in text
    assert "✗ missed  first   plain run ✓ held   ✗ it failed" in text
    assert "✓ held  second   plain run ✓ reproduced\n" in text


def test_without_a_plain_run_the_page_explains_how_to_start_one() -> None:
    found = broken_run({"first": 0}, null=True)
    text = plain(claims_page.page(found, 100, Baseline({}, "shipped", "the shipped verdicts")))
    assert "null run" in text
    assert "There is no plain run to compare with yet" in text


def test_a_plain_run_has_no_counterpart() -> None:
    assert "plain run" not in plain(claims_page.page(broken_run({"first": 2}), 100, WITH_IT))


def test_the_head_and_the_ending_of_a_broken_run_name_the_break() -> None:
    found = broken_run({"first": 0}, broken="no idea")
    assert "sgd  break: no idea" in run_pages.title_line(found, "sgd", 100).plain
    assert "break: no idea" in run_pages.ending(found).plain
