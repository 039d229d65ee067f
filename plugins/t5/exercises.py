"""Exercises: write distance buckets and the bias that uses them, remove spans, and put spans back."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import RelativeBias


def of_distances(draw: Draw) -> Iterator[Try]:
    near = torch.arange(-6, 7)
    yield Try("near, both sides", near, both_sides=True, count=8, furthest=16)
    yield Try("near, before only", near, both_sides=False, count=8, furthest=16)
    yield Try("far, both sides", torch.arange(-40, 41, 8), both_sides=True, count=8, furthest=16)
    yield Try("far, before only", torch.tensor([[-300, -127, -100], [-20, -9, 5]]), both_sides=False)


def of_bias(draw: Draw) -> Iterator[Try]:
    yield Try("3 tokens", RelativeBias(2, both_sides=True, count=8, furthest=16), 3, 3)
    yield Try("the last 2 of 4", RelativeBias(1, both_sides=False, count=8, furthest=16), 2, 4)


def of_spans(draw: Draw) -> Iterator[Try]:
    ids = torch.arange(10, 16)[None]
    yield Try("one span", ids, torch.tensor([[0, 0, 1, 1, 0, 0]]).bool(), 99)
    yield Try("a span at the start, one at the end", ids, torch.tensor([[1, 0, 0, 0, 1, 1]]).bool(), 99)
    both = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1]]).bool()
    yield Try("two texts", torch.stack((ids[0], 10 + ids[0])), both, 50)


def of_pieces(draw: Draw) -> Iterator[Try]:
    yield Try("one span", [10, 99, 14], [99, 11, 12, 98], 99)
    yield Try("two spans", [99, 12, 98, 15], [99, 10, 11, 98, 13, 14, 97], 99)
    yield Try("nothing left out", [10, 11], [99], 99)


EXERCISES = (
    Exercise(
        name="buckets",
        of="model.buckets",
        task="Compute a bucket for each distance, exact for small distances and logarithmic for larger ones.",
        hints=(
            "With both_sides, half of the buckets are for keys after the query, and count is halved.",
            (
                "Half of the remaining buckets are exact. For larger distances, compute log(distance / "
                "exact) / log(furthest / exact)."
            ),
            (
                "Multiply this by the number of other buckets and round down. The last bucket takes all "
                "larger distances."
            ),
        ),
        tries=of_distances,
    ),
    Exercise(
        name="bias",
        of="model.RelativeBias.forward",
        task="Look up a bias for each head, query and key. The last query is at the last key's position.",
        hints=(
            (
                "The distance is the key's position minus the query's. The queries are at the last keys' "
                "positions."
            ),
            (
                "The table gives (queries, keys, heads). Move heads to the front, and add a batch "
                "dimension of 1."
            ),
        ),
        tries=of_bias,
    ),
    Exercise(
        name="corrupt",
        of="spans.corrupt",
        task="Figure 2: replace each span in the source with a sentinel, and list each span after its "
        "sentinel in the target.",
        hints=(
            "A removed token starts a span if the token before it is kept.",
            "In each text, sentinels count down from the first. The target ends with one more sentinel.",
        ),
        tries=of_spans,
    ),
    Exercise(
        name="restore",
        of="spans.restore",
        task="Put each span of the target in place of its sentinel in the source.",
        hints=(
            (
                "Read the target once. A sentinel that is one less than the previous sentinel starts a new "
                "span."
            ),
        ),
        tries=of_pieces,
    ),
)
