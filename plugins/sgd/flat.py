"""Many tensors as views of one vector, so an update is one operation for any number of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Flat:
    """Weights, their gradients and an optimiser's memories, as views of one vector each.

    The weights, `grad` and the memories in `states` become these views; they keep their values and shapes.

    vectors  weights, gradients, then the memories in the order of `names`
    """

    def __init__(
        self, weights: Sequence[Tensor], states: Sequence[dict[str, Any]], names: Sequence[str]
    ) -> None:
        if weights[0].is_complex():
            raise TypeError("complex weights: give the optimiser torch.view_as_real of each instead")
        self._weights, self._states = list(weights), list(states)
        w, places = joined(weights)
        for weight, place in zip(weights, places, strict=True):
            weight.data = place
        self._addresses = [weight.data_ptr() for weight in weights]
        g, self._gradients = joined([weight.grad for weight in weights if weight.grad is not None])
        self.vectors = [w, g]
        self._memories: dict[str, list[Tensor]] = {}
        for name in names:
            vector, self._memories[name] = joined([state[name] for state in states])
            self.vectors.append(vector)
            for state, place in zip(states, self._memories[name], strict=True):
                state[name] = place

    def is_whole(self) -> bool:
        """Whether the weights and memories are still views of the vectors.

        Another optimiser, `Module.to` or a checkpoint may have replaced them.
        """
        return all(
            weight.data_ptr() == address
            for weight, address in zip(self._weights, self._addresses, strict=True)
        ) and all(
            state[name] is place
            for name, places in self._memories.items()
            for state, place in zip(self._states, places, strict=True)
        )

    def gather(self) -> None:
        """Copy gradients that the backward pass has stored elsewhere, and make them views again."""
        elsewhere = [
            (weight, place)
            for weight, place in zip(self._weights, self._gradients, strict=True)
            if weight.grad is not place
        ]
        if elsewhere:
            torch._foreach_copy_([place for _, place in elsewhere], [weight.grad for weight, _ in elsewhere])
            for weight, place in elsewhere:
                weight.grad = place


def joined(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copy all values to one new vector, and return it with the tensors as views of it."""
    vector = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    parts = vector.split([tensor.numel() for tensor in tensors])
    return vector, [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
