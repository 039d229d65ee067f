"""How GPT-2's vocabulary cuts integers, and what that means for a model that is to add them.

Millidge 2023, "Integer tokenization is insane", beren.io, 4 February 2023.

The problem. Byte-pair merges were found by counting, and numbers were counted with everything else: what
stood in enough texts became a token (2019), what did not is left in pieces that follow no rule. There is no
base in which such tokens could be added by a method: each sum of two tokens is a fact of its own.

The idea. Look at it: a square for each of the first 10,000 integers, yellow where it is one token. What
follows for arithmetic the post argues in words; here it is tried. Later models cut numbers into digits, or
groups of three.

This folder. `cutting`: merges of GPT-2's own file where this machine has one, else merges learned by
byte-pair encoding from the numbers of a text; a table of ids. `experiment` draws the post's picture, and
trains the same model on sums in digits and in tokens. `benchmark` times the making of ids.
"""

from collections.abc import Callable

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .cutting import NumberTable, cut, merges_of_numbers, released_file
from .experiment import COMPUTES, COUNT, experiment


@hookimpl
def implementation() -> Callable[..., tuple[str, ...]]:
    return cut
