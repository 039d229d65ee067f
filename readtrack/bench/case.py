"""Declarations of a plugin's benchmark. It never reads a clock: `readtrack.bench.measure` does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Budget = Literal["smoke", "quick", "full"]
Role = Literal["naive", "strong", "compiled", "paper", "paper compiled", "vendor", "shipped"]
Mode = Literal["forward", "forward+backward", "step", "decode", "until"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """Algorithmic work of one call: what the mathematics needs, not what an implementation happens to do.

    flops   floating-point operations (a multiply-add counts two); 0 where nothing is calculated
    bytes   bytes that must cross main memory: inputs read once, outputs written once
    """

    flops: float
    bytes: float

    @staticmethod
    def products(flops: float, bytes: float) -> dict[Mode, Cost]:  # noqa: A002
        """A network of matrix products that take `flops` and move `bytes` forward.

        Backward takes two products for each: one for the gradient of either factor. Their gradients are
        written, and the result's is read.
        """
        return {
            "forward": Cost(flops=flops, bytes=bytes),
            "forward+backward": Cost(flops=3 * flops, bytes=2 * bytes),
        }

    @staticmethod
    def matmul(rows: int, inner: int, columns: int, *, itemsize: int, batch: int = 1) -> dict[Mode, Cost]:
        """`batch` products of (rows, inner) with (inner, columns)."""
        moved = rows * inner + inner * columns + rows * columns
        return Cost.products(2 * batch * rows * inner * columns, batch * moved * itemsize)

    @staticmethod
    def attention(
        batch: int,
        heads: int,
        queries: int,
        dim: int,
        *,
        itemsize: int,
        keys: int | None = None,
        kv_heads: int | None = None,
        causal: bool = False,
        window: int | None = None,
        pairs: int | None = None,
    ) -> dict[Mode, Cost]:
        """softmax(q kᵀ) v: two products over every visible pair forward, four backward.

        The scores, calculated again by some implementations, are not counted again, and neither are
        exponentials. q, k, v and the result cross memory once; with backward their gradients as well.

        keys      tokens that are attended to (default: the number of queries)
        kv_heads  heads of k and v (default: the heads of q)
        causal    the last query sees all keys, each earlier one sees one less
        window    keys that a query sees at most
        pairs     visible pairs of one head, where they are fewer for another reason
        """
        keys = queries if keys is None else keys
        kv_heads = heads if kv_heads is None else kv_heads
        if pairs is None:
            seen = (keys - queries + query + 1 if causal else keys for query in range(queries))
            pairs = sum(count if window is None else min(count, window) for count in seen)
        moved = 2 * batch * dim * (heads * queries + kv_heads * keys) * itemsize
        product = 2 * batch * heads * pairs * dim
        return {
            "forward": Cost(flops=2 * product, bytes=moved),
            "forward+backward": Cost(flops=6 * product, bytes=2 * moved),
        }

    @staticmethod
    def elementwise(
        values: int, *, itemsize: int, flops: float, backward: float | None = None, tensors: int = 2
    ) -> dict[Mode, Cost]:
        """Work on each of many values.

        flops     a value, forward
        backward  a value, in addition (default: equal to forward)
        tensors   of that many values, that are read or written forward (default: one each)
        """
        moved = tensors * values * itemsize
        total = flops + (flops if backward is None else backward)
        return {
            "forward": Cost(flops=flops * values, bytes=moved),
            "forward+backward": Cost(flops=total * values, bytes=2 * moved),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One implementation of the case.

    name     for tables
    role     naive (the paper's predecessor or the formula as written, eager), strong (the best free thing in
             torch), compiled (a baseline through torch.compile), paper (this plugin's), vendor (an optional
             package). The core adds "paper compiled": the paper's variants through torch.compile; and
             "shipped": the paper's variants next to those with the reader's code
    call     takes the case's inputs, returns a tensor or a nest of tensors
    needs    why it cannot run here ("needs triton", "needs CUDA"): shown as a skipped cell; "" when it can
    prepare  takes the case's inputs and returns the arguments of `call`, in the same places, outside of the
             clock: the same numbers in the layout that this variant wants (one packed projection, channels
             last), for "decode" also a state of its own. It must be differentiable where gradients are taken.
             For "step" it returns views of the inputs, and may add counters and the like
    """

    name: str
    role: Role
    call: Callable[..., Any]
    needs: str = ""
    prepare: Callable[..., tuple[Any, ...]] | None = None

    @classmethod
    def of_module(
        cls, make: Callable[[], nn.Module], call: Callable[..., Any] | None = None, **fields: Any
    ) -> Variant:
        """For `Case.of_module`: a module that gets the weights by its parameters' names.

        make    builds it; it is called on the meta device, so it must build there
        call    takes the module and the case's inputs after the weights (default: calls the module)
        fields  name, role, needs, prepare; `prepare` gives a module of other names its weights
        """
        from readtrack.bench.module import ModuleCall

        return cls(call=ModuleCall(make, call), **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a benchmark: the same inputs given to every variant.

    name       the operation, the same for all sizes ("attention")
    axes       what varies ("tokens": 1024, "causal": True); the first numeric one is the chart's x axis
    inputs     given a seeded CPU generator, returns the positional arguments: each a fresh float32 (or
               integer) CPU tensor, or tuples, lists and dictionaries of them, with plain constants between.
               The core casts floating tensors to the run's dtype and moves all to its device
    variants   in the order of the table
    cost       per mode the algorithmic work, or None if unknown; its keys are the modes that are
               measured (see below)
    oracle     the correct answer, called with the inputs in float64 (default: the first naive variant)
    tolerance  largest allowed error relative to the oracle's largest magnitude (default: from the dtype)
    gradients  indices of the arguments whose gradients "forward+backward" takes, those of all floating
               tensors in them (default: all arguments; a target or a constant is one without gradient)
    state      index of the argument that "decode" carries on
    fresh      every timed call has its own inputs, made outside of the clock: for calls that may remember
               an answer (caches, tables). A cache of parts of the inputs (words) is cleared by the call

    Modes:

    "forward"           without autograd
    "forward+backward"  with the gradients of `gradients`
    "step"              the call changes its inputs in place (an optimiser) and returns what it changed
    "decode"            one argument is a state that is carried on (a cache): the call returns its output and
                        the new state, and may change the old one. Two calls in a row must be right; what is
                        timed is one, always from a copy of the same state
    "until"             the call runs, with autograd, until a quality is reached, and returns a dictionary of
                        numbers: `reached` (whether it got there, or there is no time), and what it took
                        (`evaluations`, `steps`). There is no oracle, and its cost is None

    Raises ValueError when "until" has a cost.
    """

    name: str
    axes: Mapping[str, int | float | str | bool]
    inputs: Callable[[torch.Generator], tuple[Any, ...]]
    variants: Sequence[Variant]
    cost: Mapping[Mode, Cost | None]
    oracle: Callable[..., Any] | None = None
    tolerance: float | None = None
    gradients: Sequence[int] | None = None
    state: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.cost.get("until") is not None:
            raise ValueError(f"case {self.name!r}: how much work a quality takes is the question, not a cost")

    @classmethod
    def of_module(
        cls,
        make: Callable[[], nn.Module],
        *,
        inputs: Callable[[torch.Generator], tuple[Any, ...]],
        weight: Callable[[str, torch.Size, torch.Generator], Tensor] | None = None,
        **fields: Any,
    ) -> Case:
        """A whole model: the first argument of every call is a dictionary with the module's weights by name.

        A variant is a function of it, `call(weights, *inputs)`, or a module: `Variant.of_module`.

        make    builds the module whose parameters' names and shapes these are, on the meta device
        inputs  the arguments after the weights
        weight  the value of one parameter (default: `readtrack.bench.module.random_weight`)
        fields  the case's other fields. The gradients are those of the weights, and the state of "decode" is
                the first argument after them, unless they say otherwise
        """
        from readtrack.bench.module import random_weights

        weights = random_weights(make, weight)
        return cls(
            inputs=lambda generator: (weights(generator), *inputs(generator)),
            **{"gradients": (0,), "state": 1, **fields},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The argument of a plugin's `benchmark` hook: the device, and the time that it may take."""

    device: torch.device
    dtype: torch.dtype
    budget: Budget

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """The value for this run's budget."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.budget]

    def needs(self, *requirements: str) -> str:
        """Why a variant cannot run here, or "". A requirement is "cuda", "mps", or a package's name."""
        missing = [
            name
            for name in requirements
            if (
                self.device.type != name
                if name in ("cuda", "mps", "xpu")
                else not importlib.util.find_spec(name)
            )
        ]
        return f"needs {' and '.join(missing)}" if missing else ""
