"""Implements decoders for connectionist temporal classification (CTC): the best path and prefix search."""

import math
from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor


def greedy(logs: Float[Tensor, "time labels"]) -> list[int]:
    """The labels of the most probable path, with repeats merged and blanks (0) removed."""
    return [label for label in logs.argmax(-1).unique_consecutive().tolist() if label]


def prefix_search(logs: Float[Tensor, "time labels"], beams: int = 8) -> tuple[list[int], float]:
    """The text whose paths sum to the highest probability, and the sum's log (Graves et al. 2006, 2012).

    Each prefix has two sums, one over the paths that end in a blank and one over the paths that end in its
    last label. The search is exact if there are at least as many beams as prefixes.
    """
    never = -math.inf
    kept = {(): (0.0, never)}
    for row in logs.tolist():
        ahead: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [never, never])
        for prefix, (blank, label) in kept.items():
            both = added(blank, label)
            ahead[prefix][0] = added(ahead[prefix][0], both + row[0])
            if prefix:
                ahead[prefix][1] = added(ahead[prefix][1], label + row[prefix[-1]])
            for next_label in range(1, len(row)):
                before = blank if prefix and prefix[-1] == next_label else both
                longer = ahead[(*prefix, next_label)]
                longer[1] = added(longer[1], before + row[next_label])
        best = sorted(ahead.items(), key=lambda item: -added(*item[1]))[:beams]
        kept = {prefix: (blank, label) for prefix, (blank, label) in best}
    text, ends = max(kept.items(), key=lambda item: added(*item[1]))
    return list(text), added(*ends)


def added(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def decode(logs: Float[Tensor, "batch time labels"], rows: list[int]) -> list[list[int]]:
    """Greedy decoding of each utterance. `rows` holds the number of valid time steps of each."""
    return [greedy(one[:length]) for one, length in zip(torch.unbind(logs), rows, strict=True)]
