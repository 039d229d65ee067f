"""Small data sets that need no network: shipped with Python and scikit-learn, or synthetic.

Imported by plugins, inside the worker only. Every function returns new CPU tensors (or a string) and is
deterministic; random data take a generator or a seed. Synthetic data are in separate modules: `scenes`,
`strokes`, `balls`, `senses`, `sheet`, `speech` (and `audio`, its spectrograms).
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
