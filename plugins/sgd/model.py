"""The step of Robbins and Monro, and `Optimizer`, the frame in which the whole family stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .flat import Flat

Vector = Float[Tensor, " n"]


class Optimizer(torch.optim.Optimizer):
    """What the optimisers of this family share: `step` hands all weights to `update` as one vector.

    Weights, gradients and memories are views of one vector each. Schedulers, checkpoints, parameter groups
    and closures work as with every optimiser of torch. `zero_grad(set_to_none=False)` keeps the gradients
    where they are and saves a copy in each step. To compile the update:

        optimizer.update = torch.compile(optimizer.update)

    memories  names of the vectors that `update` gets after weights and gradients
    defaults  the settings; a parameter group may have its own
    """

    memories: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Iterable[Any], **defaults: Any) -> None:
        super().__init__(weights, defaults)
        self._flat: dict[tuple[int, ...], Flat] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._flat = {}
        # torch adds a setting to what it loads, which no optimiser here has.
        self.defaults.pop("differentiable", None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights that have a gradient; the others, and their memories, stay as they are.

        closure  measures the loss and the gradients anew; what it returns is returned
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
        """Move the weights `w` and the memories in place.

        t         the number of this step, from 1
        settings  of the weights' group, by the names of the defaults
        """
        raise NotImplementedError

    def begin(self, name: str, weight: Tensor) -> Tensor:
        """The memory of that name before a weight's first step."""
        return torch.zeros_like(weight)

    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Numbers that a weight's step depends on besides the settings, and that `update` gets with them.

        Steps are counted for each weight: one that gets its first gradient late begins with t = 1 then.
        """
        state["t"] = state.get("t", 0) + 1
        return {"t": state["t"]}

    def _alike(self, weights: list[Tensor], settings: dict[str, Any]) -> dict[tuple[Any, ...], list[Tensor]]:
        """The weights with gradients, by what they must share to be moved as one vector."""
        found: dict[tuple[Any, ...], list[Tensor]] = {}
        for w in weights:
            if w.grad is not None:
                key = w.dtype, w.device, *self.count(self.state[w], settings).items()
                found.setdefault(key, []).append(w)
        return found

    def _flattened(self, weights: list[Tensor]) -> Flat:
        """Made when these weights first step together, and again where somebody else has moved them."""
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
    """Constant steps `lr`; any of torch's schedulers makes them shrink."""

    def __init__(self, weights: Iterable[Any], lr: float) -> None:
        super().__init__(weights, lr=lr)

    @staticmethod
    def update(w: Vector, g: Vector, *, t: int, lr: float) -> None:
        """The paper's recursion, with the gradient as what is measured."""
        w.add_(g, alpha=-lr)
