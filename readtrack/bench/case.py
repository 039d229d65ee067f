"""Declarations of a plugin's benchmark. Only `readtrack.bench.measure` reads a clock."""

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
    """Algorithmic work of one call, independent of the implementation.

    flops   floating-point operations (a multiply-add counts as two); 0 if nothing is computed
    bytes   bytes that must move to or from main memory: inputs read once, outputs written once
    """

    flops: float
    bytes: float

    @staticmethod
    def products(flops: float, bytes: float) -> dict[Mode, Cost]:  # noqa: A002
        """The cost of matrix multiplications that take `flops` and move `bytes` in the forward pass.

        The backward pass takes two multiplications for each one of the forward pass, for the gradients of
        both factors. It reads the gradient of the result and writes the gradients of the factors.
        """
        return {
            "forward": Cost(flops=flops, bytes=bytes),
            "forward+backward": Cost(flops=3 * flops, bytes=2 * bytes),
        }

    @staticmethod
    def matmul(rows: int, inner: int, columns: int, *, itemsize: int, batch: int = 1) -> dict[Mode, Cost]:
        """`batch` matrix multiplications of (rows, inner) with (inner, columns)."""
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
        """softmax(q kᵀ) v: two multiplications over every visible pair forward, four backward.

        Recomputed scores are not counted again, and exponentials are not counted. q, k, v and the result are
        moved once, and so are their gradients in the backward pass.

        keys      number of keys (default: the number of queries)
        kv_heads  heads of k and v (default: the heads of q)
        causal    the last query sees all keys, and each earlier query sees one key fewer
        window    maximum number of keys visible to a query
        pairs     number of visible pairs per head, if it is lower for another reason
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
        """Elementwise work on `values` values.

        flops     per value in the forward pass
        backward  additional flops per value in the backward pass (default: the same as forward)
        tensors   number of tensors of that size read or written in the forward pass (default: one of each)
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
    role     naive (the paper's predecessor or the formula as written, eager), strong (the best free
             implementation in torch), compiled (a baseline under torch.compile), paper (this plugin's),
             vendor (an optional package). The core adds "paper compiled", the paper's variants under
             torch.compile, and "shipped", the paper's variants next to those with the reader's code
    call     takes the case's inputs, and returns a tensor or a nest of tensors
    needs    why it cannot run here ("needs triton", "needs CUDA"), shown as a skipped cell; "" if it can
    prepare  takes the case's inputs and returns the arguments of `call` in the same order, untimed. The
             numbers stay the same, but may have the layout that this variant expects (one packed projection,
             channels last) or, for "decode", its own kind of state. It must be differentiable where gradients
             are taken. For "step" it returns views of the inputs, and may add counters and the like
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
        """For `Case.of_module`: a module that receives the weights by parameter name.

        make    builds the module, on the meta device
        call    takes the module and the case's inputs after the weights (default: calls the module)
        fields  name, role, needs, prepare; `prepare` maps the weights to a module with other parameter names
        """
        from readtrack.bench.module import ModuleCall

        return cls(call=ModuleCall(make, call), **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a benchmark: the same inputs for every variant.

    name       the operation, the same for all sizes ("attention")
    axes       what varies ("tokens": 1024, "causal": True); the first numeric one is the chart's x axis
    inputs     given a seeded CPU generator, returns the positional arguments: each a new float32 (or integer)
               CPU tensor, or tuples, lists and dictionaries of them, possibly with plain constants. The core
               casts floating-point tensors to the run's dtype and moves all to its device
    variants   in the order of the table
    cost       the algorithmic work by mode, or None if unknown; its keys are the modes to measure (see below)
    oracle     the correct answer, called with the inputs in float64 (default: the first naive variant)
    tolerance  largest error allowed, relative to the oracle's largest magnitude (default: from the dtype)
    together   in half precision, the errors of all outputs form one vector. Its norm may be twice the naive
               variant's. Use it for networks so deep that rounding switches ReLUs and distorts gradients
    gradients  indices of the arguments whose gradients "forward+backward" takes, for all floating-point
               tensors in them (default: all arguments; targets and constants have no gradient)
    state      index of the argument that "decode" carries over from call to call
    fresh      every timed call has its own inputs, created before timing. Use it for calls that may cache
               results. A call must itself clear caches for parts of its inputs, such as words

    Modes:

    "forward"           without autograd
    "forward+backward"  with the gradients of `gradients`
    "step"              the call changes its inputs in place (an optimiser) and returns the changed tensors
    "decode"            one argument is a state that is carried over (a cache): the call returns its output
                        and the new state, and may change the old one. Two consecutive calls are checked; one
                        is timed, always from a copy of the same state
    "until"             the call runs, with autograd, until a quality is reached, and returns a dictionary of
                        numbers: `reached` (if False, there is no time), and the effort (`evaluations`,
                        `steps`). There is no oracle, and its cost is None

    Raises ValueError if "until" has a cost.
    """

    name: str
    axes: Mapping[str, int | float | str | bool]
    inputs: Callable[[torch.Generator], tuple[Any, ...]]
    variants: Sequence[Variant]
    cost: Mapping[Mode, Cost | None]
    oracle: Callable[..., Any] | None = None
    tolerance: float | None = None
    together: bool = False
    gradients: Sequence[int] | None = None
    state: int = 0
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.cost.get("until") is not None:
            raise ValueError(f"case {self.name!r}: mode 'until' measures the work, so it has no cost")

    @classmethod
    def of_module(
        cls,
        make: Callable[[], nn.Module],
        *,
        inputs: Callable[[torch.Generator], tuple[Any, ...]],
        weight: Callable[[str, torch.Size, torch.Generator], Tensor] | None = None,
        **fields: Any,
    ) -> Case:
        """A whole model: the first argument of every call is a dictionary of the module's weights by name.

        A variant is a function `call(weights, *inputs)`, or a module: `Variant.of_module`.

        make    builds the module with these parameter names and shapes, on the meta device
        inputs  the arguments after the weights
        weight  the value of one parameter (default: `readtrack.bench.module.random_weight`)
        fields  the case's other fields. By default the gradients are those of the weights, and the state of
                "decode" is the first argument after them
        """
        from readtrack.bench.module import random_weights

        weights = random_weights(make, weight)
        return cls(
            inputs=lambda generator: (weights(generator), *inputs(generator)),
            **{"gradients": (0,), "state": 1, **fields},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The argument of a plugin's `benchmark` hook: device, dtype and budget."""

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
