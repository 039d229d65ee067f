"""The format of numbers and names on the pages of the report."""

from __future__ import annotations

import math
import re

from readtrack.text import one_line

# Class names and symbols are made from these words alone, never from a word in a record.
VERDICTS: dict[str, str] = {
    "reproduced": "Reproduced",
    "not specific": "Not specific",
    "weak": "Weak",
    "inconclusive": "Inconclusive",
    "not reproduced": "Not reproduced",
    "not judged": "Not judged",
    "held": "Held",
    "missed": "Missed",
}
ORDER = list(VERDICTS)[:6]  # order of the verdicts over seeds
MEANING = {
    "reproduced": "the mean clears every bound of the rule",
    "not specific": "true here, but a rival passes the rule, too",
    "weak": "the effect has the right sign but is not clearly as large as required",
    "inconclusive": "the seeds do not settle the claim",
    "not reproduced": "a bound of the rule is missed",
    "not judged": "no verdict is possible from these runs",
    "held": "checked and true",
    "missed": "checked and false",
}
STATES = {
    "todo": "To read",
    "reading": "Reading",
    "read": "Read",
    "implemented": "Implemented",
    "skipped": "Skipped",
}
_UNITS = ("", "k", "M", "G")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(verdict: str) -> str:
    """The verdict if it is one, else "not judged": safe as part of a class name."""
    return verdict if verdict in VERDICTS else "not judged"


def css_class(verdict: str) -> str:
    return known(verdict).replace(" ", "-")


def number(value: float | None, unit: str = "") -> str:
    """Three digits and the unit: `0.159`, `2,048`, `92.3M`, `5.7 × 10⁻⁷`, `1.5×`, with a real minus."""
    if value is None or math.isnan(value):
        return "no number"
    if math.isinf(value):
        return f"∞{unit}" if value > 0 else f"−∞{unit}"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size < 0.001:
        digits, power = f"{value:.1e}".split("e")
        text = f"{digits.removesuffix('.0')} × 10{str(int(power)).translate(_RAISED)}"
    elif size < 999.5:
        text = f"{value:.3g}"
    elif size < 9999.5:
        text = f"{value:,.0f}"
    else:
        step = min(len(_UNITS) - 1, int(math.log10(size * 1.0005) // 3))
        short = value / 1000**step
        text = f"{short:.3g}{_UNITS[step]}" if abs(short) < 1000 else f"{value:.2e}"
    return text.replace("-", "−") + unit


def sentence(text: str) -> str:
    """One line that begins with a capital letter."""
    line = one_line(text)
    return line[:1].upper() + line[1:]


def slug(text: str) -> str:
    """A name for files and anchors: at most 60 lower-case ASCII letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "x"


def anchors(names: list[str]) -> list[str]:
    """A unique slug for each name."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem = anchor = slug(name)
        count = 2
        while anchor in taken:
            anchor, count = f"{stem}-{count}", count + 1
        taken.add(anchor)
        found.append(anchor)
    return found
