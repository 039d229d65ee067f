"""Exercises: mask tokens, and write the head that predicts them."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import MaskedHead


def of_fates(draw: Draw) -> Iterator[Try]:
    ids = 10 + draw.below(9, 2, 5)
    yield Try(
        "all chosen", ids, draw.mask(2, 5) | True, draw.between(0, 1, 2, 5), draw.below(9, 2, 5), mask=99
    )
    yield Try("some chosen", ids, draw.mask(2, 5), draw.between(0.7, 1, 2, 5), draw.below(9, 2, 5), mask=99)
    edges = draw(1, 4) * 0 + draw(1).new_tensor([0.79, 0.8, 0.89, 0.9])
    yield Try("fates at the limits", ids[:1, :4], ids[:1, :4] > 0, edges, draw.below(9, 1, 4), mask=99)


def of_texts(draw: Draw) -> Iterator[Try]:
    ids = 10 + draw.below(9, 2, 6)
    yield Try("two texts", ids, draw.generator, vocab=9, mask=99)
    yield Try("half of the tokens", ids, draw.generator, vocab=9, mask=99, rate=0.5)
    yield Try("ends that stay", ids, draw.generator, vocab=9, mask=99, special=draw.mask(2, 6), rate=0.5)
    yield Try("hardly any", ids, draw.generator, vocab=9, mask=99, rate=1e-6)


def of_heads(draw: Draw) -> Iterator[Try]:
    yield Try("3 tokens", MaskedHead(5, 2), draw(3, 2), draw(5, 2))
    yield Try("two texts", MaskedHead(4, 3), draw(2, 3, 3), draw(4, 3))


EXERCISES = (
    Exercise(
        name="replace",
        of="model.replaced",
        task="Replace chosen tokens by the mask (fate below 0.8) or by drawn tokens (fate of 0.9 or more).",
        hints=("Nest torch.where in torch.where. All other tokens stay, whether they are chosen or not.",),
        tries=of_fates,
    ),
    Exercise(
        name="mask tokens",
        of="model.mask_tokens",
        task="Section 3.1: choose tokens, then sample their fates and replacements.",
        hints=(
            "Draw the dice, then the fates, then the replacements: torch.rand twice, then torch.randint.",
            (
                "Tokens whose dice value is below the rate are chosen. Give special tokens a value above any "
                "rate."
            ),
            "The token with the smallest dice value is always chosen, unless it is special.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="masked head",
        of="model.MaskedHead.forward",
        task="Apply a dense layer, GELU and normalisation, then compute logits from the embedding, with a "
        "bias.",
        hints=("The last step is F.linear with the embedding as its weight.",),
        tries=of_heads,
    ),
)
