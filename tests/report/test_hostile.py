"""Hostile titles, notes and run records appear as plain text on every page, card and replay."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import hostile
import poison
import pytest
from pageread import Page, claim, digest

from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.report.card import Card, of_library, read
from readtrack.report.gather import of_reader
from readtrack.report.pages import write_card
from readtrack.report.replay import replay
from readtrack.report.site import Site, build

# The tags used on pages.
OURS = re.findall(
    r"\w+",
    """a article audio b blockquote body br caption circle code dd defs details div dl dt em fieldset
    figcaption figure footer form g h1 h2 h3 h4 h5 h6 head hr html image img input label legend li line main
    meta nav ol p path polyline pre rect script small span strong style summary svg symbol table tbody td text
    th thead title tr ul use""",
)


def site(home: Home, *, private: bool) -> Site:
    return build(of_reader(Library.open(home), private=private))


def harmless(page: Page) -> None:
    policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
    data = [named.get("type") for tag, named in page.tags if tag == "script"].count("application/json")
    assert [digest(script) for script in page.scripts[: len(page.scripts) - data]] == policy.get(
        "script-src", ""
    ).split()
    assert [digest(style) for style in page.styles] == [policy["style-src"]]
    for tag, named in page.tags:
        assert tag in OURS, tag
        assert not [name for name in named if name.startswith("on") or name in ("style", "srcdoc")], named
        for name in ("href", "src"):
            address = named.get(name, "")
            assert ":" not in address or address.startswith(("https://", "http://")), address
    assert not [file for file in page.files if file.startswith(("http", "//"))]


@pytest.mark.parametrize("private", [False, True])
def test_everything_in_a_home_is_shown_as_text(home: Home, private: bool) -> None:
    poison.fill(home)
    found = site(home, private=private)
    for path, body in found.files.items():
        assert set(path) <= set("abcdefghijklmnopqrstuvwxyz0123456789-./"), path
        if path.endswith(".html"):
            page = Page(body.decode())
            harmless(page)
            said = " ".join([page.text, *(named.get("aria-label", "") for _, named in page.tags)])
            assert poison.SHOWN in said or path == "method.html", path
            assert not set("\x00\x1b\u202e\u2066\u2028") & set(body.decode()), path
    assert ("note" in found.footer) is True
    mine = Page(found.files["papers/mine.html"].decode())
    assert ("Could not read the note" in mine.text) is private


def test_torn_and_missing_files_leave_a_report(home: Home, tmp_path: Path) -> None:
    home.ensure()
    home.papers_yaml.write_text(
        "title: t\nchecklist:\n  - section: s\n    rows:\n      - {text: x, papers: [adam, sgd]}\npapers:\n"
        '  adam:\n    title: "Fast Exact Multiplication by the Hessian"\n'
        "    authors: [Barak A. Pearlmutter]\n"
        "    year: 2014\n    sources: [{page: 'https://example.org/'}]\n"
        "    idea: Small noisy steps find the root.\n"
        "  sgd: {title: S, authors: [A], year: 1951, sources: [{page: 'https://example.org/'}]}\n"
    )
    recorded = Path(hostile.__file__).parent / "recorded"

    def put(until: float = 9e9, run_id: str = "20260102-030405-adam-00ff") -> Path:
        from readtrack.runs.store import load, write_result

        folder = home.runs / run_id
        shutil.copytree(recorded, folder)
        lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
        (folder / "events.jsonl").write_text("".join(one for one in lines if json.loads(one)["t"] <= until))
        if (record := load(folder)).outcome is not None:
            write_result(folder, record)
        return folder

    hostile.fill(home, home.papers_yaml, put)
    found = site(home, private=True)
    for path, body in found.files.items():
        if path.endswith(".html"):
            harmless(Page(body.decode()))
    assert "right to left" in Page(found.files["papers/adam.html"].decode()).text
    library = Library.open(home)
    for folder in sorted(home.runs.iterdir()):
        if folder.name not in ("20260102-030405-adam-00ff", hostile.NEWEST):
            with pytest.raises(ReadtrackError, match="has not ended"):
                of_library(library, folder, private=True)
            continue
        page, text = write_card(of_library(library, folder, private=True), tmp_path, folder.name)
        harmless(Page(page.read_text()))
        assert read(page) == read(text)


@pytest.mark.parametrize("private", [False, True])
def test_cards_of_hostile_runs_are_read_back_and_replayed(home: Home, tmp_path: Path, private: bool) -> None:
    poison.fill(home)
    library = Library.open(home)
    for folder in home.runs.iterdir():
        made = of_library(library, folder, private=private)
        page_file, text_file = write_card(made, tmp_path, folder.name)
        page = Page(page_file.read_text())
        harmless(page)
        assert poison.SHOWN in page.text
        there = read(page_file)
        assert there == read(text_file)
        found = replay(there, there, {})
        assert {one.verdict for one in found.claims} <= {"SAME", "UNCLEAR"}
        assert len(found.claims) == 3


@pytest.mark.slow
def test_a_card_that_was_tampered_with_is_refused_or_harmless(home: Home, tmp_path: Path) -> None:
    poison.fill(home)
    library = Library.open(home)
    made = of_library(library, next(home.runs.glob("*adam*")), private=False)
    body = {**made.to_json(), "claims": made.to_json()["claims"][:2]}
    read_back = refused = 0
    for changed in poison.damaged(body):
        try:
            card = Card.from_json(json.loads(json.dumps(changed)))
        except ValueError:
            refused += 1
            continue
        read_back += 1
        replay(card, made, {})
        replay(made, card, {})
        write_card(card, tmp_path, "card")
        harmless(Page((tmp_path / "card.html").read_text()))
    assert min(read_back, refused) > 50


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 7}, {"sentence": None}, {"kind": "fact"}, {"headline": "yes"}, {"chosen_on": ["x"]},
        {"rule": ["x"]}, {"rule": [{"metric": "m", "op": ">=", "threshold": "0"}]},
        {"rule": [{"metric": "m", "op": ">=", "threshold": 10**400}]},
        {"rule": [{"metric": "m", "op": "~", "threshold": 0.0}]},
        {"rule": [{"metric": "m", "op": ">=", "threshold": float("nan")}]},
        {"paper": {"text": 1}}, {"breaks": [{"name": "n", "takes_away": []}]}, {"history": [1]},
    ],
)  # fmt: skip
def test_a_name_that_is_not_a_claim_is_refused(changes: dict[str, Any]) -> None:
    Claim.from_json(claim())
    with pytest.raises((TypeError, ValueError, KeyError)):
        Claim.from_json(claim(**changes))
