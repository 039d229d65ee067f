"""Hand-written gradients are the same in code compiled by torch.

This file is its own child process, because the shape checks of the papers' tests cannot be compiled.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

from readtrack.papers.batchnorm.model import batch_norm
from readtrack.papers.dyt.model import dynamic_tanh
from readtrack.papers.flashattention import flash_attention
from readtrack.papers.layernorm import layer_norm
from readtrack.papers.rmsnorm import rms_norm


def batch_normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm(x, weight, bias, eps=1e-5)[0]


HEADS = (2, 2, 9, 4)
FUNCTIONS: list[tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = [
    (layer_norm, ((5, 7), (7,), (7,))),
    (rms_norm, ((5, 7), (7,))),
    (batch_normalised, ((5, 7, 3), (7,), (7,))),
    (dynamic_tanh, ((5, 7), (1,), (7,), (7,))),
    (flash_attention, (HEADS, HEADS, HEADS)),
]


def test_compiled_gradients_equal_eager_ones():
    """With torch 2.11, a no-op `to` at the end of a custom forward pass once cut off all gradients."""
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [function.__name__ for function, _ in FUNCTIONS]


def check(function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...]) -> None:
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def loss(first: Tensor, *rest: Tensor) -> Tensor:
        return function(first.sin(), *rest).cos().sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    found = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*inputs), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.norm() > 0
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    for function, shapes in FUNCTIONS:
        check(function, shapes)
        print(function.__name__)
