"""A plugin's declaration of an exercise: the function to write and the inputs on which it is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


YOURS = ", yours"  # suffix of a variant that uses the reader's functions


class Try:
    """One set of arguments.

    label  what is special about these arguments, in a few words, such as "causal" or "a query that sees
           nothing"
    """

    def __init__(self, label: str, /, *arguments: Any, **named: Any) -> None:
        self.label = label
        self.arguments = arguments
        self.named = named


class Draw:
    """Seeded inputs. Floats are float64 with two decimals, so that the reader can check results by hand.

    generator  a seeded CPU generator, for anything that the methods do not offer
    """

    def __init__(self, seed: int = 0) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        import torch

        return torch.randn(shape, generator=self.generator, dtype=torch.float64).mul(100).round().div(100)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers."""
        import torch

        uniform = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * uniform).mul(100).round().div(100)

    def below(self, limit: int, *shape: int) -> Tensor:
        """Integers from 0 to `limit` - 1."""
        import torch

        return torch.randint(limit, shape, generator=self.generator)

    def mask(self, *shape: int, share: float = 0.6) -> Tensor:
        """Booleans; a fraction of about `share` is True."""
        import torch

        return torch.rand(shape, generator=self.generator) < share


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A function or method of a paper for the reader to write.

    name       one or two words
    of         the function in the plugin: "model.attention_weights", "model.MultiHeadAttention.forward". In a
               single-file plugin just its name
    task       the task in one line
    hints      up to three, each more specific than the one before
    tries      the arguments on which results are compared, smallest first (default: generated from the
               signature's shapes). Modules among the arguments get random weights
    through    another function that uses this one and is called instead, if the exercise's function cannot be
               called directly (the backward pass of an autograd function)
    tolerance  the largest allowed relative error in float64
    half       whether bfloat16 and float32 are compared as well
    gradients  whether gradients are compared

    name, of, task and hints must be literals, because they are read without importing the plugin.
    """

    name: str
    of: str
    task: str
    hints: tuple[str, ...] = ()
    tries: Callable[[Draw], Iterator[Try]] | None = None
    through: str = ""
    tolerance: float = 1e-7
    half: bool = True
    gradients: bool = True
