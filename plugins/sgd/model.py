"""The Robbins-Monro step, and `Optimizer`, the base class of the whole family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .flat import Flat

Vector = Float[Tensor, " n"]


class Optimizer(torch.optim.Optimizer):
    """Base class of this family's optimisers: `step` passes all weights to `update` as one vector.

    Weights, gradients and memories are views of one vector each. Schedulers, checkpoints, parameter groups
    and closures work as with every torch optimiser. `zero_grad(set_to_none=False)` keeps the gradients in
    place and saves a copy in each step. To compile the update:

        optimizer.update = torch.compile(optimizer.update)

    memories  names of the vectors that `update` gets after weights and gradients
    defaults  the settings; a parameter group may override them
    """

    memories: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Iterable[Any], **defaults: Any) -> None:
        super().__init__(weights, defaults)
        self._flat: dict[tuple[int, ...], Flat] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._flat = {}
        # torch adds this setting to a loaded optimiser, but no optimiser of this family has it.
        self.defaults.pop("differentiable", None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights that have a gradient. The other weights and their memories stay unchanged.

        closure  evaluates the loss and the gradients; its result is returned
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            settings = {name: group[name] for name in self.defaults}
            for (_, _, *numbers), weights in self._alike(group["params"], settings).items():
                flat = self._flattened(weights)
                flat.gather()
                self.update(*flat.vectors, **settings | dict(numbers))
                torch.autograd.graph.increment_version(weights)
        return loss

    @staticmethod
    def update(w: Vector, g: Vector, *memories: Vector, t: int, **settings: Any) -> None:
        """Update the weights `w` and the memories in place.

        t         the number of this step, from 1
        settings  the parameter group's settings, with the names of the defaults
        """
        raise NotImplementedError

    def begin(self, name: str, weight: Tensor) -> Tensor:
        """The initial value of the memory `name` for a weight."""
        return torch.zeros_like(weight)

    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Values besides the settings on which a weight's step depends. They are passed to `update`.

        Steps are counted per weight: a weight that gets its first gradient late starts with t = 1 then.
        """
        state["t"] = state.get("t", 0) + 1
        return {"t": state["t"]}

    def _alike(self, weights: list[Tensor], settings: dict[str, Any]) -> dict[tuple[Any, ...], list[Tensor]]:
        """The weights with gradients, grouped by the properties that weights of one vector must share."""
        found: dict[tuple[Any, ...], list[Tensor]] = {}
        for w in weights:
            if w.grad is not None:
                key = w.dtype, w.device, *self.count(self.state[w], settings).items()
                found.setdefault(key, []).append(w)
        return found

    def _flattened(self, weights: list[Tensor]) -> Flat:
        """The vectors of these weights, rebuilt if the weights have been replaced."""
        key = tuple(map(id, weights))
        found = self._flat.get(key)
        if found is None or not found.is_whole():
            states = [self.state[w] for w in weights]
            for w, state in zip(weights, states, strict=True):
                for name in self.memories:
                    if name not in state:
                        state[name] = self.begin(name, w)
            self._flat = {other: flat for other, flat in self._flat.items() if not {*other} & {*key}}
            found = self._flat[key] = Flat(weights, states, self.memories)
        return found


class SGD(Optimizer):
    """SGD with a constant step size `lr`. torch's schedulers can decrease it."""

    def __init__(self, weights: Iterable[Any], lr: float) -> None:
        super().__init__(weights, lr=lr)

    @staticmethod
    def update(w: Vector, g: Vector, *, t: int, lr: float) -> None:
        """The paper's recursion, with the gradient as the measurement."""
        w.add_(g, alpha=-lr)
