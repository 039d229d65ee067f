"""Conversion of texts to ASCII, for terminals and encodings that lack other characters."""

from __future__ import annotations

from unicodedata import east_asian_width, normalize

# Pairs of a sign and its replacement, one column each.
_PAIRS = """
○. ◐~ ●x ◆# ⊘- ✓v ≈~ ≡: ✗X ·- ■# ⧖T ▲! ▸> ▾v ▶> ★* ☆. ‹[ ›]
│| ┤| ├| ┬+ ┴+ ┼+ └+ ┘+ ┌+ ┐+ ─- ━= ═= ║| ╭+ ╮+ ╰+ ╯+ ▀# █# ▌| ▐| ▎| ▏| ▊| ▕| ▁_ ▂_ ▃_ ▄# ▅# ▆# ▇# ▔- ░-
…. –- —- −- ‐- ×x ÷/ ±~ ≥> ≤< →> ←< ↑^ ↓v “" ”" ‘' ’' µu
ŁL łl ØO øo ßs ĐD đd ıi
"""
_ONE_COLUMN = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()})
# More readable replacements where columns need not be kept.
_SPELLED = {"≥": ">=", "≤": "<=", "→": "->", "…": "...", "±": "+/-", "✓": "+", "✗": "x", "·": "-"}


def one_column(text: str) -> str:
    """`text` in ASCII, with the same width, so that columns stay aligned."""
    return "".join(map(_narrow, text.translate(_ONE_COLUMN)))


def spelled(character: str) -> str:
    """One character in ASCII, of any length."""
    plain = _SPELLED.get(character) or character.translate(_ONE_COLUMN)
    return plain if plain.isascii() else normalize("NFKD", plain).encode("ascii", "ignore").decode() or "?"


def _narrow(character: str) -> str:
    if character.isascii():
        return character
    if 0x2800 <= ord(character) <= 0x28FF:
        dots = ord(character) - 0x2800
        upper, lower = dots & 0b0001_1011, dots & 0b1110_0100
        return ":" if upper and lower else "'" if upper else "." if lower else " "
    letter = normalize("NFKD", character)[0]
    columns = 2 if east_asian_width(character) in "WF" else 1
    return letter if letter.isascii() and columns == 1 else "?" * columns
