"""Text from outside cannot move the cursor, and its content is kept."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readtrack.text import (
    format_bytes,
    format_duration,
    format_nanoseconds,
    format_number,
    nearest,
    one_line,
    plain,
    quoted,
    shortened,
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[?1049h\x1b[2J\x1b[1;1Hover", "over"),
        ("\x1b]0;title\x07a\x1b]8;;https://x.org\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1b]52;c;c3RvbGVu\x07b", "b"),
        ("\x1bPq#0;2;0;0;0\x1b\\c\x1b_payload\x1b\\d", "cd"),
        ("\x1b]0;never closed", ""),
        ("\x1b\x1b[31m[31m", "[31m"),
        ("\x1bcreset\x1b(B", "reset"),
        ("\x9b31mC1", "31mC1"),
        ("back\x08\x7fspace\x00", "backspace"),
        ("user\u202etxt.exe\u2066\u200f", "usertxt.exe"),
        ("one\r\ntwo\rthree\n\tfour", "one\ntwo\nthree\n\tfour"),
        ("half \ud800 pair", "half  pair"),
        ("Ré 你好 🙂 ∇²f", "Ré 你好 🙂 ∇²f"),
    ],
)
def test_control_sequences_are_removed_and_words_are_kept(text, safe):
    assert plain(text) == safe


BIDIRECTIONAL = {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text())
def test_no_control_is_left(text):
    safe = plain(text)
    assert not {c for c in safe if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"}
    assert not {c for c in safe if unicodedata.bidirectional(c) in BIDIRECTIONAL}
    assert plain(safe) == safe
    safe.encode()


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])))
def test_text_without_controls_is_left_alone(text):
    assert plain(text) == text


@given(st.text())
def test_one_line_is_one_line(text):
    line = one_line(text)
    assert line == " ".join(line.split())
    assert line.splitlines() == ([line] if line else [])


@pytest.mark.parametrize("opening", ["\x1bP", "\x1b]", "\x1b[", "\x1b", "\x1b[1;"])
def test_a_megabyte_of_openings_is_read_quickly(opening):
    assert "\x1b" not in plain(opening * 300_000)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_short(seconds, shown):
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (512, "512 B"), (4_823_449, "4.6 MiB"), (3 * 2**40, "3072.0 GiB"), (-2048, "-2.0 KiB")],
)
def test_sizes_are_in_binary_units(count, shown):
    assert format_bytes(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (2.0, "2"),
        (28.4, "28.4"),
        (1e-9, "1e-09"),
        (4096, "4096"),
        (151_277_313.0, "151,277,313"),
        (-60_000.0, "-60,000"),
        (12_345.6, "1.235e+04"),
        (3e20, "3e+20"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_have_four_digits_and_counts_all_of_theirs(value, shown):
    assert format_number(value) == shown


def test_names_in_messages_are_safe_and_short():
    assert quoted("\x1b[31mmamba\n") == "'mamba'"
    assert quoted("x" * 100) == f"'{'x' * 59}…'"
    assert quoted("x" * 60) == f"'{'x' * 60}'"


def test_the_nearest_name_is_named():
    assert nearest("lstn", ["gru", "lstm"], "see the list") == "did you mean 'lstm'?"
    assert nearest("lstn", ["gru"], "see the list") == "see the list"
    assert nearest("", [], "see the list") == "see the list"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.3, "12.3 ns"),
        (999.4, "999 ns"),
        (999.7, "1 µs"),
        (999_700, "1 ms"),
        (31_234, "31.2 µs"),
        (4.05e6, "4.05 ms"),
        (1.2e9, "1.2 s"),
    ],
)
def test_short_times_have_three_digits(value, text):
    assert format_nanoseconds(value) == text


def test_a_cut_text_ends_with_an_ellipsis():
    assert shortened("end loss,\n0.9", 20) == "end loss, 0.9"
    assert shortened("end loss, 0.9", 11) == "end loss…"
