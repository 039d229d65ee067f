"""Text on a terminal: widths, wrapping, and characters missing in the locale."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from readtrack.cli import terminal


def test_wide_and_combining_characters_are_counted_in_columns() -> None:
    assert terminal.cells("naïve") == 5
    assert terminal.cells("nai\u0308ve") == 5
    assert terminal.cells("論文") == 4
    assert terminal.cells("zero\u200bwidth") == 9


@pytest.mark.parametrize("columns", [1, 2, 7, 20, 200])
def test_wrapping_keeps_every_word_within_the_columns(columns: int) -> None:
    text = "a row with 論文 in it and https://example.org/a/very/long/link at the end"
    if columns == 1:
        text = text.replace("論文", "x")  # the two columns do not fit into one
    lines = terminal.wrap(text, columns)
    assert all(terminal.cells(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_clipping_shows_that_something_is_missing() -> None:
    assert terminal.clip("abcdef", 6) == "abcdef"
    assert terminal.clip("abcdefg", 6) == "abcde…"
    assert terminal.cells(terminal.clip("論文論文", 4)) <= 4
    assert terminal.clip("x" * 500, None) == "x" * 500


def test_only_the_colours_that_paint_adds_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "a\x1b]52;c;eA==\x07b\x1b[2J\x1b[8mc\x9b\x08"
    monkeypatch.setattr(terminal, "colours", lambda: True)
    terminal.print_out(f"{terminal.paint('well', 'green', 'bold')} {hostile}")
    assert capsys.readouterr().out == "\x1b[32;1mwell\x1b[0m abc\n"
    monkeypatch.setattr(terminal, "colours", lambda: False)
    terminal.print_out(f"\x1b[31mnot ours\x1b[0m {hostile}")
    assert capsys.readouterr().out == "not ours abc\n"


def test_json_keeps_every_character_and_shows_none_that_steers(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"text": "a\x1b]0;t\x07\x9b31m\x7f\u202eb\né"}
    terminal.print_json(document)
    said = capsys.readouterr().out
    assert json.loads(said) == document
    assert said.replace("\n", "").isprintable()


def in_ascii(say: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bytes:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    terminal.prepare()
    say()
    return raw.getvalue()


def test_characters_outside_ascii_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    said = in_ascii(lambda: terminal.print_out("Poincaré ≥ 3 × “naïve” ✓ 論"), monkeypatch)
    assert said == b'Poincare >= 3 x "naive" + ?\n'


def test_json_stays_json_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    said = in_ascii(lambda: terminal.print_json({"title": "“quoted” é"}), monkeypatch)
    assert json.loads(said) == {"title": "“quoted” é"}


def test_a_table_is_aligned_and_the_last_column_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "width", lambda: 20)
    terminal.table([("a", "one"), ("long name", "x" * 40)], head=("id", "what"))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["id         what", "a          one", "long name  xxxxxxxx…"]
