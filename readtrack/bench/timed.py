"""Timed calls whose inputs are created, prepared and copied before timing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from readtrack.bench.case import Variant
from readtrack.bench.correctness import CorrectnessCheck, Inputs, Tensors, bound
from readtrack.bench.module import ModuleCall
from readtrack.bench.nests import mapped, tensors

_MADE_BYTES = 256 << 20  # bytes of prepared inputs at a time
_MADE = 64


class TimedCalls:
    """Prepares the calls of one variant outside the timed region. Run them under `gradients_on(mode)`.

    Usually a few calls take turns. If a call's inputs may be cached or consumed (`Case.fresh`, "decode"),
    each is prepared separately.

    shared  input sets shared with other variants; in mode "step" the calls change their inputs, so each
            variant has its own sets
    most    number of calls that may be prepared at once
    once    whether each call may run only once
    """

    def __init__(
        self, checker: CorrectnessCheck, variant: Variant, shared: Sequence[tuple[Inputs, Tensors]] | None
    ) -> None:
        self._checker, self._variant = checker, variant
        self.once = checker.case.fresh or checker.mode == "decode"
        self._sets: list[tuple[Inputs, Tensors]] = []
        self.most = _MADE
        if checker.case.fresh:
            inputs, _ = self._prepared(checker.fresh_inputs())
            self._limit(inputs)
            return
        self._sets = [self._prepared(one) for one in shared or checker.timed_inputs()]
        if checker.mode == "decode":
            self._limit(self._sets[0][0][checker.case.state])
        else:
            self._calls = [self._bound(*one) for one in self._sets]

    @property
    def input_sets(self) -> int | None:
        """Number of rotated input sets; None if each call has its own."""
        return len(self._sets) or None

    def __call__(self, count: int) -> list[Callable[[], Any]]:
        if self._checker.case.fresh:
            made = (self._prepared(self._checker.fresh_inputs()) for _ in range(count))
            return [self._bound(*one) for one in made]
        if not self.once:
            return list(itertools.islice(itertools.cycle(self._calls), count))
        calls = []
        for inputs, cotangents in itertools.islice(itertools.cycle(self._sets), count):
            copied = list(inputs)
            copied[self._checker.case.state] = mapped(Tensor.clone, inputs[self._checker.case.state])
            calls.append(self._bound(tuple(copied), cotangents))
        return calls

    def _prepared(self, one: tuple[Inputs, Tensors]) -> tuple[Inputs, Tensors]:
        inputs, cotangents = one
        call, prepare = self._variant.call, self._variant.prepare
        if prepare is not None:
            with torch.no_grad():
                inputs = tuple(mapped(Tensor.detach, prepare(*inputs)))
        if isinstance(call, ModuleCall):
            weights, *rest = inputs
            inputs = (call.module(weights), *rest)
        return inputs, cotangents

    def _bound(self, inputs: Inputs, cotangents: Tensors) -> Callable[[], Any]:
        call = self._variant.call
        if isinstance(call, ModuleCall):
            call = call.on_module
        return bound(call, self._checker.case, self._checker.mode, inputs, cotangents)

    def _limit(self, made: Any) -> None:
        size = sum(tensor.nbytes for tensor in tensors(made))
        self.most = max(1, min(_MADE, _MADE_BYTES // max(size, 1)))
