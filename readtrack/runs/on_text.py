"""Character-level language models on a text (`--data NAME`), for papers whose claims are about other data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack import data
from readtrack.claims import Claim
from readtrack.runs.run import Run

BATCH = 16
_WRITTEN = 300  # characters


def bits_per_character(
    run: Run,
    arms: Mapping[str, Callable[[int], nn.Module]],
    *,
    unjudged: Sequence[Claim],
    window: int,
    steps: int,
    rates: Sequence[float],
    paper: str = "",
) -> None:
    """Train every arm to predict the next character, and report its bits per character on held-out text.

    arms      take the size of the alphabet; the module maps ids (batch, time) to logits (batch, time, size),
              alone or as the first element of a tuple
    unjudged  the paper's claims that this run does not judge
    window    number of characters that a network reads, in training and when it is judged
    rates     learning rates of AdamW; each arm uses the best one on the validation text
    paper     the paper's own numbers, for the caption of the table
    """
    for claim in unjudged:
        if run.wants(claim):
            run.leave_unjudged(claim, "it is about other data; with --data the networks read a text")
    run.phase("setup")
    source = run.source("text", at_most=run.pick(smoke=20_000, quick=None, full=None))
    size, count = len(source.names), run.pick(smoke=8, quick=128, full=2048)
    choose = data.windows(source.parts.choose, window + 1, count, run.data("windows to choose by", "choose"))
    judge = data.windows(source.parts.judge, window + 1, count, run.data("windows to judge by", "judge"))
    known = torch.bincount(torch.cat(source.parts.train), minlength=size).double() + 1
    frequencies = -(known / known.sum()).log2()[judge[:, 1:]].mean().item()
    run.metric("bits per character, character frequencies alone", frequencies)
    rows: list[list[object]] = [["character frequencies", size, "", frequencies, ""]]
    for arm, make in arms.items():

        def attempt(
            rate: float, arm: str = arm, make: Callable[[int], nn.Module] = make
        ) -> tuple[float, tuple[nn.Module, float]]:
            torch.manual_seed(run.seed)
            network = make(size).to(run.device, run.dtype)
            speed = _learn(run, f"{arm}, rate {rate:g}", network, source.parts.train, window, steps, rate)
            return bits(run, network, choose), (network, speed)

        best = run.sweep(arm, rates, attempt, score="validation bits per character")
        if best.edge:
            run.log(f"{arm}: its best learning rate, {best.value:g}, is at the edge of {best.grid}")
        network, speed = best.result
        found = bits(run, network, judge)
        run.metric("bits per character", found, arm=arm)
        run.metric("training characters per second", speed, arm=arm)
        weights = sum(weight.numel() for weight in network.parameters())
        rows.append([arm, weights, best.value, found, speed])
        run.text(f"written by {arm}", _written(run, network, judge[0, :window], source.names))
    columns = ["network", "parameters", "learning rate", "bits per character", "characters per second"]
    caption = f"{source.name}, {steps:,} steps of {BATCH} windows of {window} characters. {paper}"
    run.table("bits per character", columns, rows, caption=caption.rstrip())
    run.headline("training loss")


def bits(run: Run, network: nn.Module, windows: Tensor) -> float:
    """The mean bits per character over all predicted characters in windows (count, time). The first
    characters of a window have little context.
    """
    run.phase("evaluate")
    with run.evaluating(network):
        losses = [
            _loss(network, some.to(run.device)).item() * len(some) for some in torch.split(windows, BATCH)
        ]
    return sum(losses) / len(windows) / math.log(2)


def _loss(network: nn.Module, windows: Tensor) -> Tensor:
    return F.cross_entropy(_logits(network, windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def _logits(network: nn.Module, ids: Tensor) -> Tensor:
    found = network(ids)
    logits: Tensor = found[0] if isinstance(found, tuple) else found
    return logits


def _learn(
    run: Run, name: str, network: nn.Module, pieces: Sequence[Tensor], window: int, steps: int, rate: float
) -> float:
    """Train with AdamW, and return the characters per second of the median step.

    Gradients are clipped to norm 1. The learning rate warms up for 5 % of the steps, then follows a cosine to
    0.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    warm_up = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (1 + math.cos(math.pi * step / steps)) / 2)
    )
    windows, times = run.generator("windows to train on"), []
    run.phase("train")
    for step in run.steps(steps, name, (network, optimizer, schedule)):
        start = time.perf_counter()
        batch = data.windows(pieces, window + 1, BATCH, windows).to(run.device)
        run.descend(_loss(network, batch), optimizer, step=step, arm=name, clip=1.0)
        schedule.step()
        times.append(time.perf_counter() - start)
    return BATCH * window / median(times)


def _written(run: Run, network: nn.Module, ids: Tensor, alphabet: Sequence[str]) -> str:
    """The network's continuation of `ids`, with each character sampled from its distribution."""
    draws, window = run.generator("characters to write"), len(ids)
    begun = "".join(alphabet[i] for i in ids.tolist())
    with run.evaluating(network):
        for _ in range(run.pick(smoke=3, quick=_WRITTEN, full=_WRITTEN)):
            logits = _logits(network, ids[None, -window:].to(run.device))[0, -1]
            ids = torch.cat((ids, torch.multinomial(logits.float().softmax(0).cpu(), 1, generator=draws)))
    return (
        f"{begun}\n\n[from here on by the network]\n\n{''.join(alphabet[i] for i in ids[window:].tolist())}"
    )
