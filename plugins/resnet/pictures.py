"""Trains section 4.2's networks, residual and plain, on labelled images (`--data NAME`).

The full budget uses the paper's schedule of 64,000 SGD steps, with the learning rate divided by 10 after half
and after three quarters of the steps. On CUDA, training uses mixed precision: convolutions in bfloat16, but
weights, normalisation and loss in float32. At the full budget, torch also compiles the network into CUDA
graphs, because starting its many small kernels one by one takes most of a step.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Run

from .model import Images, Shortcut, cifar

BATCH, PADDING = 128, 4
SHORTCUTS: dict[str, Shortcut] = {"residual": "A", "plain": "none"}
PRINTED = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97}  # test errors of residual networks on CIFAR-10, table 6

Labelled = tuple[Float[Tensor, "count channels height width"], Int[Tensor, " count"]]
HeldOut = tuple[Float[Tensor, "held channels height width"], Int[Tensor, " held"]]


def classify(run: Run) -> None:
    """Train both networks, and report their errors in % and the training images per second."""
    run.phase("setup")
    at_most = run.pick(smoke=500, quick=10_000, full=None)
    source = run.source("images", needs="classes", at_most=at_most).small(32)
    mean = source.parts.train[0].mean(0)
    train, choose, judge = (((x - mean).to(run.device, run.dtype), y.to(run.device)) for x, y in source.parts)
    layers = run.option("layers", run.pick(smoke=8, quick=8, full=20))
    steps = run.option("steps", run.pick(smoke=2, quick=120, full=64_000))
    mixed = run.option("mixed", int(run.device.type == "cuda"))
    precision = torch.autocast(run.device.type, torch.bfloat16, enabled=bool(mixed))
    # Compiling takes a minute, as long as a few thousand steps.
    compiled = run.option("compiled", int(run.pick(smoke=0, quick=0, full=1) and run.device.type == "cuda"))
    rows = []
    for arm, shortcut in SHORTCUTS.items():
        torch.manual_seed(run.seed)  # so that both networks have the same initial weights
        network = cifar(layers, shortcut=shortcut, channels=len(mean), classes=len(source.names))
        network = network.to(run.device, run.dtype)
        called = torch.compile(network, dynamic=False, mode="reduce-overhead") if compiled else network
        speed = learn(run, arm, network, called, train, choose, steps, precision)
        run.phase("evaluate")
        found = {
            name: error(run, network, part, precision)
            for name, part in (("training", train), ("test", judge))
        }
        for name, value in found.items():
            run.metric(f"{name} error, %", value, arm=arm)
        run.metric("training images per second", speed, arm=arm)
        paper = PRINTED.get(layers, "") if arm == "residual" else ""
        rows.append([arm, layers, *found.values(), paper, speed])
    columns = ["network", "layers", "training error, %", "test error, %", "the paper's on CIFAR-10, %"]
    run.table(
        "errors",
        [*columns, "training images per second"],
        rows,
        caption=(
            f"{source.name}, {steps:,} steps of {BATCH} images (the paper: 64,000), "
            f"{'bfloat16 and float32' if mixed else str(run.dtype).removeprefix('torch.')} on {run.device}"
        ),
    )
    run.headline("validation error, %")


def learn(
    run: Run,
    arm: str,
    network: nn.Module,
    called: Callable[[Images], Tensor],
    train: Labelled,
    choose: HeldOut,
    steps: int,
    precision: torch.autocast,
) -> float:
    """Train as in section 4.2, and return the images per second of the median step. `called` is the network,
    compiled or not."""
    (x, y), times = train, []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4])
    batches = run.generator(f"batches, {arm}")
    run.phase("train")
    for step in run.steps(steps, f"{arm} network", (network, optimizer, schedule)):
        start = time.perf_counter()
        rows = torch.randint(len(x), (BATCH,), generator=batches).to(x.device)
        with precision:
            loss = F.cross_entropy(called(augmented(x[rows], batches)), y[rows])
        run.descend(loss, optimizer, step=step, arm=arm)
        schedule.step()
        times.append(time.perf_counter() - start)  # reading the loss has synchronised the device
        if (step + 1) % max(steps // 20, 1) == 0:
            run.metric("validation error, %", error(run, network, choose, precision), step=step + 1, arm=arm)
    return BATCH / median(times)


def augmented(images: Images, draws: torch.Generator) -> Images:
    """Mirror images at random, and shift them by up to 4 pixels in each direction with zero padding."""
    count, _, height, width = images.shape
    down, across = torch.randint(2 * PADDING + 1, (2, count, 1), generator=draws)
    mirrored = torch.randint(2, (count, 1), generator=draws).bool()
    rows, columns = down + torch.arange(height), across + torch.arange(width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, [PADDING] * 4)
    batch = torch.arange(count)[:, None, None]
    batch, rows, columns = (at.to(images.device) for at in (batch, rows[:, :, None], columns[:, None]))
    return padded[batch, :, rows, columns].permute(0, 3, 1, 2)


def error(run: Run, network: nn.Module, part: Labelled, precision: torch.autocast) -> float:
    """The percentage of wrong predictions."""
    with run.evaluating(network), precision:
        wrong = [network(x).argmax(1) != y for x, y in zip(*(each.split(1000) for each in part), strict=True)]
    return 100 * torch.cat(wrong).float().mean().item()
