"""Whole models in a benchmark: modules with weights from the case."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Weights = Mapping[str, Tensor]
Make = Callable[[], nn.Module]


def random_weights(
    make: Make, value: Callable[[str, torch.Size, torch.Generator], Tensor] | None = None
) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """A function that draws a value for each parameter of the module, keyed by name."""
    skeleton = on_meta(make)
    draw = value or random_weight
    return lambda generator: {
        name: draw(name, weight.shape, generator) for name, weight in skeleton.named_parameters()
    }


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """A random matrix that preserves the scale of its input, a gain around 1, or a bias around 0.

    No weight is 0 or 1, so that a variant that omits one is detected.
    """
    values = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return 0.1 * values if name.endswith("bias") else 1 + 0.1 * values


def on_meta(make: Make) -> nn.Module:
    """The module's shapes and names, without memory."""
    with torch.device("meta"):
        return make()


class ModuleCall:
    """`call(module, *inputs)` as a function of the module's weights: `self(weights, *inputs)`.

    The weights are parameters by name. Buffers keep their values from `make`: a call neither receives nor
    changes them. A module with buffers is built a second time for them.

    call  default: the module itself
    """

    def __init__(self, make: Make, call: Callable[..., Any] | None = None) -> None:
        self._make = make
        self.on_module = call or _forward
        self._caller = _Caller(on_meta(make), self.on_module)
        self._buffers: dict[str, Tensor] | None = None

    def through(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> ModuleCall:
        """The same module with the call replaced by `change(call)`."""
        return ModuleCall(self._make, change(self.on_module))

    def __call__(self, weights: Weights, *inputs: Any) -> Any:
        held = {**weights, **self._buffers_like(weights)}
        return functional_call(self._caller, {f"module.{name}": t for name, t in held.items()}, inputs)

    def module(self, weights: Weights) -> nn.Module:
        """The module with these tensors as its parameters, ready to be called by `on_module`."""
        module = on_meta(self._make)
        parameters = {id(old): nn.Parameter(weights[name]) for name, old in module.named_parameters()}
        buffers = self._buffers_like(weights)
        for prefix, part in list(module.named_modules()):
            for name, old in list(part.named_parameters(recurse=False, remove_duplicate=False)):
                setattr(part, name, parameters[id(old)])  # tied weights stay tied
            for name, _ in list(part.named_buffers(recurse=False, remove_duplicate=False)):
                setattr(part, name, buffers[f"{prefix}.{name}" if prefix else name])
        return module

    def _buffers_like(self, weights: Weights) -> dict[str, Tensor]:
        """Copies of the buffers on the weights' device. Floating-point buffers get the weights' dtype."""
        if self._buffers is None:
            self._buffers = {}
            if any(True for _ in self._caller.buffers()):
                with torch.random.fork_rng(devices=()):
                    torch.manual_seed(0)
                    self._buffers = dict(self._make().named_buffers(remove_duplicate=False))
        like = next(iter(weights.values()))
        return {
            name: buffer.to(
                like.device, like.dtype if buffer.is_floating_point() else buffer.dtype, copy=True
            )
            for name, buffer in self._buffers.items()
        }


class _Caller(nn.Module):
    """Wraps any call with a module as a forward method, so that `functional_call` works."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._call = call

    def forward(self, *inputs: Any) -> Any:
        return self._call(self.module, *inputs)


def _forward(module: nn.Module, *inputs: Any) -> Any:
    return module(*inputs)
