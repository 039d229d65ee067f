"""Exercises: write the router, an expert, the dispatch of tokens, and the balance loss."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Router, SparseExperts


def of_routers(draw: Draw) -> Iterator[Try]:
    yield Try("2 of 3 experts", Router(2, 3, 2), draw(1, 2))
    yield Try("one of 4 experts", Router(3, 4, 1), draw(2, 3))
    yield Try("3 of 4 experts", Router(2, 4, 3), draw(3, 2))


def of_experts(draw: Draw) -> Iterator[Try]:
    yield Try("the first expert", SparseExperts(2, 3, experts=2), 0, draw(2))
    yield Try("another expert", SparseExperts(3, 2, experts=3), 2, draw(2, 3))


def of_tokens(draw: Draw) -> Iterator[Try]:
    for label, tokens, experts, active in (
        ("one token", 1, 2, 2),
        ("3 tokens", 3, 3, 2),
        ("experts without a token", 2, 5, 1),
    ):
        layer = SparseExperts(2, 2, experts=experts, active=active)
        weights, chosen = draw(tokens, experts).softmax(-1).topk(active, -1)
        yield Try(label, layer, draw(tokens, 2), weights, chosen)


def of_choices(draw: Draw) -> Iterator[Try]:
    yield Try("even", torch.tensor([[0], [1]]), 0 * draw(2, 2))
    for active in (1, 2):
        logits = draw(4, 3)
        yield Try(f"{active} of 3 experts", logits.topk(active, -1).indices, logits)


EXERCISES = (
    Exercise(
        name="router",
        of="model.Router.forward",
        task="Section 2.1: return the weights of the chosen experts, their indices, and all logits.",
        hints=(
            "Choose the largest logits first.",
            "The softmax is over the chosen logits only, so the weights sum to 1.",
        ),
        tries=of_routers,
    ),
    Exercise(
        name="expert",
        of="model.SparseExperts.expert",
        task="Apply one expert, a SwiGLU layer.",
        hints=("Multiply SiLU(w1 x) and w3 x, and apply w2. Use this expert's slice of each weight.",),
        tries=of_experts,
    ),
    Exercise(
        name="dispatch",
        of="model.SparseExperts.dispatch",
        task="Send each token through its experts and add the weighted outputs. Each expert runs once.",
        hints=(
            "For each expert, find its positions in `chosen`. A row is a token.",
            "Sorting the flattened choices groups the tokens by expert.",
            "Multiply the outputs by the weights and add each to its token with index_add.",
        ),
        tries=of_tokens,
    ),
    Exercise(
        name="balance loss",
        of="model.balance_loss",
        task="Compute the Switch Transformer's load-balancing loss, for several active experts.",
        hints=(
            "Sum over experts: the share of choices that falls on an expert, times its mean probability.",
            "Multiply by `experts` and by `active`. Even routing gives a loss of `active`.",
        ),
        tries=of_choices,
    ),
)
