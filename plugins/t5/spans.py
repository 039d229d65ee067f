"""Removes spans from texts and turns them into targets (sections 3.1.4 and 3.3.4)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def draw_spans(
    count: int, length: int, generator: torch.Generator, *, share: float = 0.15, mean: float = 3.0
) -> Bool[Tensor, "{count} {length}"]:
    """Draw the tokens to remove: the same number of tokens and spans in every text, at random positions.

    share  share of tokens to remove, in spans of `mean` tokens on average; a text's first token is kept

    The released code ends every text with a span. In texts as short as the experiment's, almost every span
    would then be the end of its text. Our texts may also end with tokens that are kept.
    """
    gone = min(max(round(length * share), 1), length - 1)
    spans = min(max(round(gone / mean), 1), length - gone)
    left_out = torch.zeros(count, length, dtype=torch.bool)
    for row in left_out:
        at = 0
        # The kept end of the text may be empty, so it is an additional part with one token too many.
        *kept, _ = _parts(length - gone + 1, spans + 1, generator)
        for keep, leave in zip(kept, _parts(gone, spans, generator), strict=True):
            row[at + keep : at + keep + leave] = True
            at += keep + leave
    return left_out


def _parts(total: int, count: int, generator: torch.Generator) -> list[int]:
    """A random list of `count` positive numbers that add up to `total`, uniform over all such lists."""
    cuts = torch.randperm(total - 1, generator=generator)[: count - 1].sort().values.tolist()
    return [b - a for a, b in zip([-1, *cuts], [*cuts, total - 1], strict=True)]


def corrupt(
    ids: Int[Tensor, "batch length"], left_out: Bool[Tensor, "batch length"], first_sentinel: int
) -> tuple[Int[Tensor, "batch source"], Int[Tensor, "batch target"]]:
    """Figure 2: replace spans with sentinels. In the target, each span follows its sentinel, and one more
    sentinel ends the target.

    left_out        has the same number of tokens and of spans in each text
    first_sentinel  sentinels count down from it, as in the released vocabulary
    """
    sources, targets = [], []
    for text, gone in zip(ids.tolist(), left_out.tolist(), strict=True):
        source: list[int] = []
        target: list[int] = []
        sentinel = first_sentinel
        for index, (token, out) in enumerate(zip(text, gone, strict=True)):
            if not out:
                source.append(token)
            elif index and gone[index - 1]:
                target.append(token)
            else:
                source.append(sentinel)
                target += [sentinel, token]
                sentinel -= 1
        sources.append(source)
        targets.append([*target, sentinel])
    return ids.new_tensor(sources), ids.new_tensor(targets)


def restore(source: list[int], target: list[int], first_sentinel: int) -> list[int]:
    """Invert `corrupt`: put each span in place of its sentinel."""
    spans: dict[int, list[int]] = {}
    sentinel = first_sentinel + 1
    for token in target:
        if token == sentinel - 1:
            sentinel = token
            spans[sentinel] = []
        else:
            spans[sentinel].append(token)
    return [part for token in source for part in spans.get(token, [token])]
