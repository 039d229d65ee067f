"""Benchmark cases for all optimisers of this family: one step, and training to a target loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.sgd import sgd as torch_sgd

from readtrack import data
from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import SGD
from .trials import pixel_scales

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def step_cases(
    bench: Bench,
    name: str,
    *,
    naive: Callable[..., None],
    strong: Callable[..., None],
    ours: Callable[..., None],
    memories: int,
    flops: int,
    traffic: int,
    strong_name: str = "torch fused",
) -> Iterator[Case]:
    """Cases of one step on many small tensors and on a few large ones.

    All weights are one vector, and so are their gradients and each memory. Memories are mean squares.
    Gradients differ by orders of magnitude between tensors, and a tenth of each tensor has had no gradient so
    far, so its divisor is eps.

    naive, strong   take lists of tensors, views of the vectors; `strong` also gets each tensor's step
                    count, 9, as torch stores it
    ours            takes the vectors
    flops, traffic  per weight: operations, and values read from or written to main memory
    """
    small, large = ((64, 64), (64,)) * 50, ((1024, 1024),) * 2
    for shapes in bench.pick(smoke=(((3, 5), (3,)),), quick=(small, large), full=(small * 8, large * 8)):
        count = sum(torch.Size(shape).numel() for shape in shapes)
        listed = partial(views, shapes=shapes)
        yield Case(
            name=name,
            axes={"weights": count, "tensors": len(shapes)},
            inputs=partial(step_inputs, shapes=shapes, memories=memories),
            variants=(
                Variant(
                    name="one tensor at a time", role="naive", call=partial(on_views, naive), prepare=listed
                ),
                Variant(
                    name=strong_name,
                    role="strong",
                    call=partial(on_views, strong),
                    prepare=partial(listed, counted=True),
                ),
                Variant(name="one vector", role="paper", call=partial(on_vectors, ours)),
            ),
            cost={"step": Cost(flops=flops * count, bytes=traffic * count * bench.dtype.itemsize)},
        )


def views(
    *vectors: Tensor, shapes: Sequence[tuple[int, ...]], counted: bool = False
) -> tuple[tuple[Tensor, ...], list[list[Tensor]]]:
    """The vectors without the gradients, and for each vector the list of its views as tensors."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    lists = [
        [part.view(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]
        for vector in vectors
    ]
    if counted:
        lists.append([torch.full((), 9.0, device=vectors[0].device) for _ in shapes])
    w, _, *memories = vectors
    return (w, *memories), lists


def on_views(step: Callable[..., None], changed: tuple[Tensor, ...], lists: list[list[Tensor]]) -> Any:
    step(*lists)
    return changed


def on_vectors(step: Callable[..., None], w: Tensor, g: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
    step(w, g, *memories)
    return w, *memories


def step_inputs(
    generator: torch.Generator, *, shapes: Sequence[tuple[int, ...]], memories: int
) -> tuple[Tensor, ...]:
    """Weights, gradients and memories."""
    sizes = [torch.Size(shape).numel() for shape in shapes]
    scales = torch.cat([(10 ** (-3 * torch.rand((), generator=generator))).expand(size) for size in sizes])
    w = torch.randn(sum(sizes), generator=generator)
    idle = torch.rand(sum(sizes), generator=generator) < 0.1

    def gradients() -> Tensor:
        return torch.where(idle, 0.0, scales * torch.randn(sum(sizes), generator=generator))

    return w, gradients(), *(gradients().square() for _ in range(memories))


def until_case(
    bench: Bench,
    optimisers: Mapping[tuple[str, str], tuple[Make, int]],
    *,
    target: float,
    limit: int,
    spread: float = 0.0,
) -> Case:
    """Time to reduce a perceptron's loss on all digits to `target`, within `limit` steps.

    optimisers  maps (name, role) to (constructor, batch size), in the order of the table. The learning rate
                of each is the one in `RATES` that reached the quick budget's target in the fewest steps,
                over three seeds
    spread      the pixels' scales lie between 10^-spread and 10^spread

    To find the learning rate of an optimiser, such as RMSProp, declare the case with any learning rate, and
    print the number of steps for each one in `RATES`. `benchmark` is the new plugin's function:

        *_, case = benchmark(Bench(device=torch.device("cpu"), dtype=torch.float32, budget="quick"))
        for lr in RATES:
            for seed in range(3):
                inputs = case.inputs(torch.Generator().manual_seed(seed))
                make = partial(RMSProp, lr=lr)
                print(lr, train_until(make, 64, *inputs, target=case.axes["loss"], limit=5000))
    """

    def inputs(generator: torch.Generator) -> tuple[Any, ...]:
        images, labels = data.digits()
        shapes = ((64, 64), (64,), (10, 64), (10,))
        weights = [(torch.rand(shape, generator=generator) - 0.5) / 4 for shape in shapes]
        return images.flatten(1) * pixel_scales(generator, spread=spread), labels, weights

    return Case(
        name="digits until trained",
        axes={"loss": target},
        inputs=inputs,
        variants=[
            Variant(name=name, role=role, call=partial(train_until, make, batch, target=target, limit=limit))
            for (name, role), (make, batch) in optimisers.items()
        ],
        cost={"until": None},
    )


def train_until(
    make: Make,
    batch: int,
    images: Float[Tensor, "rows pixels"],
    labels: Int[Tensor, " rows"],
    weights: list[Tensor],
    *,
    target: float,
    limit: int,
) -> dict[str, int]:
    """Train until the loss on all rows, checked every tenth step, is at most `target`. Return whether the
    target was reached, and the number of steps.
    """
    w1, b1, w2, b2 = parameters = [nn.Parameter(w.clone()) for w in weights]

    def loss_of(rows: Tensor) -> Tensor:
        hidden = F.relu(F.linear(images[rows], w1, b1))
        return F.cross_entropy(F.linear(hidden, w2, b2), labels[rows])

    optimizer = make(parameters)
    # Schedule-Free is evaluated at its averaged weights.
    to_mean, back = (getattr(optimizer, name, lambda: None) for name in ("eval", "train"))
    everything = torch.arange(len(images), device=images.device)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, limit + 1):
        rows = torch.randint(len(images), (batch,), generator=generator).to(images.device)
        optimizer.zero_grad()
        loss_of(rows).backward()
        optimizer.step()
        if step % 10 == 0:
            to_mean()
            with torch.no_grad():
                loss = loss_of(everything).item()
            back()
            if loss <= target:
                return {"reached": True, "steps": step}
    return {"reached": False, "steps": limit}


def one_tensor_at_a_time(weights: list[Tensor], gradients: list[Tensor]) -> None:
    for w, g in zip(weights, gradients, strict=True):
        w -= 0.01 * g


def torch_fused(weights: list[Tensor], gradients: list[Tensor], _: list[Tensor]) -> None:
    plain = {"weight_decay": 0, "momentum": 0, "dampening": 0, "nesterov": False, "maximize": False}
    torch_sgd(weights, gradients, [None] * len(weights), lr=0.01, fused=True, **plain)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    ours = partial(SGD.update, t=10, lr=0.01)
    yield from step_cases(
        bench,
        "SGD step",
        naive=one_tensor_at_a_time,
        strong=torch_fused,
        ours=ours,
        memories=0,
        flops=2,
        traffic=3,
    )
    yield until_case(
        bench,
        {
            ("whole-batch descent", "naive"): (partial(torch.optim.SGD, lr=1.0), 1797),
            ("torch SGD", "strong"): (partial(torch.optim.SGD, lr=1.0, fused=True), 64),
            ("SGD", "paper"): (partial(SGD, lr=1.0), 64),
        },
        target=bench.pick(smoke=2.2, quick=0.3, full=0.1),
        limit=2000,
    )
