"""Shipped verdicts on a paper's page, and runs that are not evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack import published
from readtrack.home import Home
from readtrack.runs.store import load, write_result
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.theme import verdict_mark

TABLE = {
    "runs": [{"papers": ["adam"], "facts": {"machine": "two cores", "date": "2026-01-01"}}],
    "claims": [
        {
            "paper": "adam",
            "claim": {
                "name": "bowl",
                "sentence": "Adam goes down.",
                "kind": "measured",
                "breaks": [{"name": "no mean", "takes_away": "m."}],
            },
            "verdict": "reproduced",
            "held": 5,
            "seeds": [1, 2, 3, 4, 5],
            "ours": "ratio 2",
            "null": "not reproduced",
            "breaks": {"no mean": "inconclusive"},
        },
        {
            "paper": "adam",
            "claim": {"name": "bounded step", "kind": "theorem", "breaks": []},
            "verdict": "held",
            "held": 1,
            "seeds": [1],
            "ours": "",
            "null": None,
            "breaks": {},
        },
    ],
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps(TABLE), encoding="utf-8")
    monkeypatch.setattr(published, "shipped_file", lambda: file)


def conditioned(folder: Path, **fields: object) -> None:
    """Give a recorded run a condition."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    (folder / "job.json").write_text(json.dumps({**job, **fields}), encoding="utf-8")
    write_result(folder, load(folder))


async def page_of(
    app: ReadtrackApp, paper: str, read: Callable[[ReadtrackApp], str]
) -> tuple[str, dict[str, str]]:
    """The screen with the paper's page, and the marks of the list."""
    async with app.run_test(size=(120, 60)) as pilot:
        await pilot.pause()
        for _ in range(200):
            if app.main._results or not app.library.results():
                break
            await pilot.pause(0.02)
        assert app.main.checklist.go_to_subject(paper)
        await pilot.pause()
        return read(app), dict(app.main.checklist.verdicts)


@pytest.mark.usefixtures("table")
async def test_shipped_verdicts_stand_on_the_page_before_the_first_run(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    text, _ = await page_of(app, "adam", screen_text)
    assert "Measured on two cores, 2026-01-01" in text
    assert "✓ reproduced  bowl" in text
    assert "Adam goes down." in text
    assert "5 of 5 seeds: ratio 2" in text
    assert "✓ fails in null runs" in text
    assert "✓ fails with no mean" in text
    assert "≡ exact  bounded step  theorem" in text


@pytest.mark.parametrize(
    ("plain", "control", "sign", "words"),
    [
        ("reproduced", "not reproduced", "✓", "fails without it"),
        ("reproduced", "reproduced", "✗", "reproduced without it, too"),
        ("reproduced", "weak", "·", "weak without it"),
        ("not reproduced", "not reproduced", "·", "not reproduced without it"),  # no information
        ("inconclusive", "reproduced", "✗", "reproduced without it, too"),
    ],
)
def test_a_control_is_good_news_where_the_claim_falls_in_it_alone(
    plain: str, control: str, sign: str, words: str
) -> None:
    found = published.Control.of(plain, control, "without it")
    assert (verdict_mark(found.mark)[0], found.words) == (sign, words)


@pytest.mark.usefixtures("table")
async def test_without_a_shipped_run_nothing_is_shown(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    text, _ = await page_of(app, "sgd", screen_text)
    assert "Shipped verdicts" not in text


@pytest.mark.usefixtures("table")
async def test_a_run_without_the_idea_is_listed_as_such_and_marks_nothing(
    app: ReadtrackApp, home: Home, recorded: Callable[..., Path], screen_text: Callable[[ReadtrackApp], str]
) -> None:
    conditioned(recorded(), broken="no mean")
    conditioned(recorded(run_id="20260102-030405-adam-00fe"), null=True)
    text, marks = await page_of(app, "adam", screen_text)
    assert "break: no mean" in text.split("Shipped verdicts")[0]
    assert "✓ completed  null run" in text
    assert "✗" not in text.split("Shipped verdicts")[0]
    assert "Shipped verdicts" in text  # next to the reader's own runs
    assert marks == {}


async def test_a_plain_run_still_marks_its_paper(
    app: ReadtrackApp, recorded: Callable[..., Path], screen_text: Callable[[ReadtrackApp], str]
) -> None:
    recorded()
    conditioned(recorded(run_id="20260103-030405-adam-00fe"), broken="no mean")
    _, marks = await page_of(app, "adam", screen_text)
    assert list(marks) == ["adam"]
