"""Integer tokenisation: how GPT-2's vocabulary splits integers, and how this affects a model that adds them.

Millidge 2023, "Integer tokenization is insane", beren.io, 4 February 2023.

The problem. Byte-pair merges are learned from frequencies, and numbers were treated like other text. Frequent
numbers (2019) became single tokens, and other numbers are split irregularly. Such tokens are not digits in
any base, so no general algorithm can add them, and a model must memorise the sum of every pair of tokens.

The idea. The post plots the first 10,000 integers as squares, which are yellow if the integer is a single
token. It then argues about the consequences for arithmetic, which this folder tests. Later models split
numbers into digits, or into groups of three digits.

This folder. `cutting` splits integers with GPT-2's own merges if this machine has the file, and otherwise
with merges learned from the numbers in a text. It also has a lookup table of ids. `experiment` draws the
post's picture, and trains the same model on sums written in digits and in merged tokens. `benchmark` times
the tokenisation.
"""

from collections.abc import Callable

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .cutting import NumberTable, cut, merges_of_numbers, released_file
from .experiment import COMPUTES, COUNT, experiment


@hookimpl
def implementation() -> Callable[..., tuple[str, ...]]:
    return cut
