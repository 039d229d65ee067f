"""The function that an exercise calls and the inputs on which it is compared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from readtrack.practice.exercise import Draw, Exercise, Try
from readtrack.practice.generic import tries_by_signature
from readtrack.practice.parts import mapped
from readtrack.practice.slots import Slot

SEED = 20_17


@dataclass(frozen=True, slots=True)
class Target:
    """The function to call: a slot's function, or one that uses it."""

    slot: Slot
    call: Callable[..., Any]

    @property
    def signature(self) -> inspect.Signature:
        return self.slot.signature if self.call is self.slot.outer else inspect.signature(self.call)

    def named(self, one: Try) -> dict[str, Any]:
        """The arguments by parameter name."""
        try:
            bound = self.signature.bind(*one.arguments, **one.named)
        except TypeError:
            return {f"argument {i}": value for i, value in enumerate(one.arguments)} | one.named
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        return named


def trials_of(exercise: Exercise, target: Target) -> Iterator[Try]:
    """The declared inputs, else inputs from the signature's shapes, with random weights in modules."""
    torch.manual_seed(SEED)
    draw = Draw(SEED)
    given = exercise.tries(draw) if exercise.tries else tries_by_signature(target.signature, draw)
    for one in given:
        drawn = partial(_drawn, generator=draw.generator)
        arguments, named = drawn(one.arguments), drawn(one.named)
        yield Try(one.label, *arguments, **named)


def _drawn(value: Any, generator: torch.Generator) -> Any:
    """Give modules float64 weights that are neither 0 nor 1."""

    def other(weight: Tensor) -> Tensor:
        if not weight.is_floating_point():
            return weight.clone()
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        return weight.double() + 0.2 * noise * weight.requires_grad

    if isinstance(value, nn.Module):
        changed = mapped(lambda weight: weight.double() if weight.is_floating_point() else weight, value)
        with torch.no_grad():
            for weight in changed.parameters():
                if weight.requires_grad:
                    weight.copy_(other(weight))
        return changed
    if type(value) in (list, tuple):
        return type(value)(_drawn(part, generator) for part in value)
    return {key: _drawn(part, generator) for key, part in value.items()} if type(value) is dict else value
