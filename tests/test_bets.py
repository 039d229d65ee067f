"""Bets: which are valid, which count, and their statistics."""

from __future__ import annotations

import json
import random

import pytest

from readtrack import bets
from readtrack.bets import Bet, BetBook, Stake, calibration, parse, stake
from readtrack.claims import Bound, Claim, Figure, at_least
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.present import bets as present
from readtrack.runs.job import new_job
from readtrack.runs.record import Record, RunSummary

ON = Stake("heads help", "8 heads", "1 head", "accuracy, 8 heads - 1 head ≥ 0.1", "Heads help.")


@pytest.fixture
def library(home: Home) -> Library:
    return Library.open(home)


def claim(name: str, **more: object) -> Claim:
    fields = {"sentence": "S.", "paper": Figure("1"), "rule": (Bound("x", "<=", 0.5),)} | more
    return Claim(name=name, **fields)  # type: ignore[arg-type]


def ended(run_id: str, verdict: str, outcome: str | None = "completed") -> RunSummary:
    summary = Record.from_job(new_job("attention")).summary()
    fields = {name: getattr(summary, name) for name in summary.__dataclass_fields__}
    return RunSummary(
        **{**fields, "run_id": run_id, "outcome": outcome, "claims": (("heads help", verdict, ""),)}
    )


def test_the_headline_claim_that_compares_arms_is_bet_on() -> None:
    rule = (at_least("accuracy", "ours", 0.1, minus="control"),)
    plain = claim("plain")
    compared = claim("compared", rule=rule, control_arm="control")
    headline = claim("headline", control_arm="a GRU", headline=True)
    assert stake([claim("an identity", rule=rule, kind="identity")]) is None
    unnamed = stake([plain])
    assert unnamed is not None
    assert (unnamed.ours, unnamed.control) == ("the paper's", "the control")
    first = stake([plain, compared])
    assert first is not None
    assert (first.claim, first.ours, first.control) == ("compared", "ours", "control")
    second = stake([compared, headline])
    assert second is not None
    assert (second.claim, second.ours, second.control) == ("headline", "the paper's", "a GRU")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("8 heads:80", ("8 heads", 80)),
        ("1 HEAD : 50%", ("1 head", 50)),
        ("paper:99", ("8 heads", 99)),
        ("control=65", ("1 head", 65)),
    ],
)
def test_a_bet_is_an_arm_and_percent(words: str, found: tuple[str, int]) -> None:
    assert parse(words, ON) == found


@pytest.mark.parametrize("words", ["", "8 heads", "8 heads:49", "8 heads:100", "2 heads:80", ":80"])
def test_anything_else_is_refused(words: str) -> None:
    with pytest.raises(ReadtrackError):
        parse(words, ON)


@pytest.mark.parametrize("fields", [{"budget": "smoke"}, {"null": True}, {"only": "benchmark"}])
def test_a_run_without_claims_takes_no_bet(library: Library, fields: dict[str, object]) -> None:
    with pytest.raises(NotAvailableError, match="nothing to bet on"):
        BetBook(library.home).place(library, new_job("attention", **fields), ON, "8 heads", 80)
    assert BetBook(library.home).bets() == []


@pytest.mark.parametrize(
    ("arm", "verdict", "state"),
    [
        ("8 heads", "held", "right"),
        ("8 heads", "missed", "wrong"),
        ("1 head", "missed", "right"),
        ("1 head", "held", "wrong"),
        ("8 heads", "not judged", "not judged"),
    ],
)
def test_the_verdict_decides_once(library: Library, arm: str, verdict: str, state: str) -> None:
    book, job = BetBook(library.home), new_job("attention")
    placed = book.place(library, job, ON, arm, 80)
    assert placed.open
    assert placed.topic == "Development of language models"
    assert book.settle([ended(job.run_id, "held", None), ended("another", "held")]) == []
    (decided,) = book.settle([ended(job.run_id, verdict)])
    assert present.state(decided) == state
    assert decided.counts == (state in ("right", "wrong"))
    assert book.settle([ended(job.run_id, "held")]) == []
    with pytest.raises(NotAvailableError):
        book.withdraw(job.run_id)


def test_a_run_that_did_not_complete_decides_nothing(library: Library) -> None:
    book, job = BetBook(library.home), new_job("attention")
    book.place(library, job, ON, "8 heads", 80)
    (void,) = book.settle([ended(job.run_id, "held", "failed")])
    assert not void.counts
    assert void.void == "the run did not complete"


def test_a_bet_can_be_withdrawn_during_its_run(library: Library) -> None:
    book, job = BetBook(library.home), new_job("attention")
    book.place(library, job, ON, "8 heads", 80)
    assert book.withdraw(job.run_id).void == "withdrawn"
    assert book.settle([ended(job.run_id, "held")]) == []
    assert calibration(book.bets()).bets == 0


def test_a_bet_on_a_run_that_is_gone_is_void(library: Library) -> None:
    book, queued, gone = BetBook(library.home), new_job("attention"), new_job("adam")
    for job in (queued, gone):
        book.place(library, job, ON, "8 heads", 80)
    (void,) = book.settle([], waiting=[queued.run_id])
    assert (void.run_id, void.void) == (gone.run_id, "the run is gone")


def test_lines_that_are_not_bets_are_left_out(library: Library) -> None:
    book, job = BetBook(library.home), new_job("attention")
    book.place(library, job, ON, "8 heads", 80)
    good = json.loads((library.home.root / "bets.jsonl").read_text())
    too_sure = json.dumps({**good, "run": "x", "sure": 100})
    for bad in ("nonsense", "[]", "{}", too_sure, '{"did": "settled", "run": "y"}'):
        with (library.home.root / "bets.jsonl").open("a") as file:
            file.write(bad + "\n")
    assert [bet.run_id for bet in book.bets()] == [job.run_id]


def made(sure: int, right: bool, topic: str = "Vision") -> Bet:
    return Bet("r", "p", "c", "a", "b", True, sure, topic, "2026-01-01", winner="a" if right else "b")


def test_few_bets_give_no_statistics() -> None:
    few = [made(80, True)] * (bets.ENOUGH - 1) + [Bet("r", "p", "c", "a", "b", True, 80, "", "2026")]
    lines = [line.text for line in present.page(few, 80)]
    assert lines == ["Bets   1 open bet", "9 decided bets; 1 more until there is a calibration curve"]
    document = present.document(few)["calibration"]
    figures = {"bets": 9, "missing": 1}
    assert document == [{"topic": None, **figures}, {"topic": "Vision", **figures}]


def test_the_curve_and_the_score_match_the_bets() -> None:
    found = [made(80, i < 6) for i in range(10)] + [made(55, i < 2, "Optimisers") for i in range(4)]
    total = calibration(found)
    assert total.brier == pytest.approx((6 * 0.2**2 + 4 * 0.8**2 + 2 * 0.45**2 + 2 * 0.55**2) / 14)
    assert [part[::2] for part in total.bins] == [(50, 4, 55), (80, 10, 80)]
    assert [part.right for part in total.bins] == [2, 6]
    text = "\n".join(line.text for line in present.page(found, 80))
    assert "80–89 %  ████████████····┆···  6 of 10 right (60 %)" in text
    assert "Vision        10 bets: stated 80 %, right 60 %, Brier 0.280" in text
    assert "Optimisers    4 decided bets; 6 more" in text


def test_a_calibrated_reader_scores_as_expected() -> None:
    draw = random.Random(0)
    found = [made(sure, draw.random() < sure / 100) for sure in (55, 75, 95) for _ in range(4000)]
    total = calibration(found)
    assert total.brier == pytest.approx(sum(p * (1 - p) for p in (0.55, 0.75, 0.95)) / 3, abs=0.01)
    assert all(one.right / one.bets == pytest.approx(one.said / 100, abs=0.03) for one in total.bins)
