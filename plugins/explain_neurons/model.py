"""Implements the score, the predicates that an explainer may choose from, and a model's activations.

Dimensions: tokens, neurons, predicates, windows, time.
"""

import string
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..gpt2 import GPT2

Activations = Float[Tensor, "tokens neurons"]
Predicates = Bool[Tensor, "tokens predicates"]


def correlations(
    activations: Activations, predicates: Float[Tensor, "tokens predicates"]
) -> Float[Tensor, "neurons predicates"]:
    """Pearson's correlation of every neuron with every predicate, or 0 if one of them is constant."""
    single = torch.promote_types(activations.dtype, torch.float32)
    a, b = activations.to(single), predicates.to(single)
    a = a - a.mean(0)
    b = b - b.mean(0)
    lengths = a.norm(dim=0)[:, None] * b.norm(dim=0)
    found = (a.T @ b) / lengths.clamp_min(torch.finfo(single).tiny)
    return torch.where(lengths > 1e-12 * len(a), found, 0.0).to(activations.dtype)


# Predicates

CLASSES = {
    "a vowel": "aeiou",
    "a consonant": "bcdfghjklmnpqrstvwxyz",
    "a capital": string.ascii_uppercase,
    "a digit": string.digits,
    "a blank": " ",
    "a line end": "\n",
    "punctuation": string.punctuation,
}
FREQUENT = " etaoinsrhldcufmpgybwvk.,\n`'()_x\"-:=q"


class Question(NamedTuple):
    """Asks whether the character `back` places before the current one is one of `characters`."""

    name: str
    back: int
    characters: str


def questions() -> list[tuple[Question, ...]]:
    """All candidate explanations: one question, or a pair about the current and the previous character."""
    here, before = ([Question(repr(c), back, c) for c in FREQUENT] for back in (0, 1))
    kinds = {
        back: [Question(name, back, characters) for name, characters in CLASSES.items()] for back in range(4)
    }
    single = [(question,) for question in (*here, *before, *(q for back in kinds.values() for q in back))]
    pairs = [(now, last) for now in (*here, *kinds[0]) for last in (*kinds[1], *before[:16])]
    return single + pairs


def wording(asked: tuple[Question, ...]) -> str:
    places = ("{}", "after {}", "2 characters after {}", "3 characters after {}")
    return " ".join(places[question.back].format(question.name) for question in asked)


def answers(ids: Int[Tensor, "windows time"], alphabet: str, asked: list[tuple[Question, ...]]) -> Predicates:
    """Whether each predicate holds at each character but a window's last.

    A predicate about a character before the window is false.
    """
    memory: dict[tuple[int, str], Tensor] = {}

    def holds(question: Question) -> Tensor:
        key = question.back, question.characters
        if key not in memory:
            wanted = torch.tensor([character in question.characters for character in alphabet])
            found = F.pad(wanted[ids], (question.back, 0))[:, : ids.shape[1]]
            memory[key] = found[:, :-1].flatten()
        return memory[key]

    columns = []
    for one in asked:
        column = holds(one[0])
        for question in one[1:]:
            column = column & holds(question)
        columns.append(column)
    return torch.stack(columns, 1)


# The model and its neurons


def activations_of(model: GPT2, ids: Int[Tensor, "windows time"]) -> Activations:
    """Activations of all neurons (after the GELU) at each character but the last, lower layers first."""
    seen: list[Tensor] = []
    hooks = [
        block.feed_forward[1].register_forward_hook(lambda _, __, out: seen.append(out.flatten(0, 1)))
        for block in model.blocks
    ]
    with torch.no_grad():
        model(ids[:, :-1].to(model.tokens.weight.device))
    for hook in hooks:
        hook.remove()
    return torch.cat(seen, 1).float().cpu()


def losses(model: GPT2, ids: Int[Tensor, "windows time"]) -> Float[Tensor, " tokens"]:
    """The loss of each next character in nats."""
    ids = ids.to(model.tokens.weight.device)
    with torch.no_grad():
        logits = model(ids[:, :-1]).flatten(0, 1).float()
        return F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").cpu()


def rise_without(
    model: GPT2, ids: Int[Tensor, "windows time"], neuron: int, level: float, whole: Float[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """The rise of the loss at each next character when a neuron is fixed at `level`."""
    width = model.blocks[0].feed_forward[0].out_features

    def ablate(_: nn.Module, __: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[..., neuron % width] = level
        return out

    hook = model.blocks[neuron // width].feed_forward[1].register_forward_hook(ablate)
    rise = losses(model, ids) - whole
    hook.remove()
    return rise
