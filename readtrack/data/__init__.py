"""Small data sets that need no network: they ship with Python and scikit-learn, or are made by rule.

Imported by plugins, inside the worker only. Every function returns fresh CPU tensors (or a string) and gives
the same answer each time; what is random takes a generator or a seed. What is made by rule lies in modules of
its own: `scenes`, `strokes`, `balls`, `senses`, `sheet`, `speech` (and `audio`, its spectrograms).
"""

from readtrack.data.shipped import code, digits, photographs, text
from readtrack.data.splits import Parts, characters, parts, split, stretches, tiles, windows

__all__ = [
    "Parts",
    "characters",
    "code",
    "digits",
    "parts",
    "photographs",
    "split",
    "stretches",
    "text",
    "tiles",
    "windows",
]
