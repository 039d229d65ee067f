r"""Convert mathematics in abstracts (`$\alpha \in \mathbb{R}^n$`) to Unicode.

Unknown commands are left as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pylatexenc.latex2text import LatexNodes2Text

# A formula has no space at its ends, so dollar amounts are not matched.
_MATHS = re.compile(r"\$\$(.+?)\$\$|\$(?=\S)([^$]+?)(?<=\S)\$(?!\d)|\\\((.+?)\\\)", re.DOTALL)
_MACRO = re.compile(r"\\[A-Za-z]+\{[^{}]*\}|\\['\"`^~=.][A-Za-z]|\\['\"`^~=.]\{[A-Za-z]\}|\\[%&#_$]")
_RAISED = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def readable(text: str) -> str:
    """`text` with its formulas and accents in Unicode."""
    if "$" not in text and "\\" not in text:
        return text
    with_maths = _MATHS.sub(lambda found: _converted(next(filter(None, found.groups())), found[0]), text)
    return _MACRO.sub(lambda found: _converted(found[0], found[0]), with_maths)


def _converted(latex: str, otherwise: str) -> str:
    try:
        told = _converter().latex_to_text(latex).strip()
    except Exception:  # the parser may fail on arbitrary text
        return otherwise
    told = re.sub(r"\^([0-9n+-]{1,3})(?![\w])", lambda found: found[1].translate(_RAISED), told)
    return re.sub(r"_([0-9])(?![\w])", lambda found: found[1].translate(_LOWERED), told)


def _unknown(node: object) -> str:
    raise ValueError("unknown macro: the whole formula stays as it is")


@lru_cache(maxsize=1)
def _converter() -> LatexNodes2Text:
    from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

    known = get_default_latex_context_db()
    known.set_unknown_macro_spec(MacroTextSpec("", _unknown))
    return LatexNodes2Text(latex_context=known, math_mode="text")
