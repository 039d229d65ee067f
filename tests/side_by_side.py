"""Times training steps of several variants, which take turns: used by the scripts `bench_*.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import torch


def seconds(action: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compile_in_parallel(names: Iterable[str]) -> None:
    """Fill torch's cache by starting this script with `--warm NAME` for each name, so that the measuring
    process compiles nothing."""
    waiting = [subprocess.Popen([sys.executable, *sys.argv, "--warm", name]) for name in names]
    print([process.wait() for process in waiting], "exit codes of the compilers", flush=True)


def warmed(
    names: Iterable[str],
    trainer: Callable[[str], Callable[[], torch.Tensor]],
    device: torch.device,
) -> dict[str, Callable[[], torch.Tensor]]:
    """The training step of each variant, after three steps. Prints the loss of the fourth, which shows
    whether all variants compute the same. Leaves out variants that fail, and prints why."""
    steps = {}
    for name in names:
        try:
            step = trainer(name)
            taken = seconds(lambda step=step: [step() for _ in range(3)], device)
            print(f"{name}: loss {step().item():.4f} at step 4, {taken:.1f} s to warm up", flush=True)
            steps[name] = step
        except Exception as error:  # the other variants are still measured
            print(f"{name} failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
    return steps


def rates(
    steps: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    per_step: int,
    count: int = 5,
    rounds: int = 5,
) -> dict[str, list[float]]:
    """Per variant and round, how many examples or tokens (`per_step`) it trains on per second.

    A round is `count` steps of each variant in turn. One more round comes first and is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            taken = seconds(lambda step=step: [step() for _ in range(count)], device)
            if turn:
                found[name].append(count * per_step / taken)
    return found


def report(found: Mapping[str, list[float]], *, against: str) -> None:
    """One row per variant: the median rate, the slowest and fastest round, and the ratio to `against`."""
    best = median(found[against]) if against in found else float("nan")
    for name, values in sorted(found.items(), key=lambda item: -median(item[1])):
        middle = median(values)
        print(
            f"{name:60} {middle:10,.0f}  ({min(values):,.0f} to {max(values):,.0f})  {middle / best:.2f}",
            flush=True,
        )
