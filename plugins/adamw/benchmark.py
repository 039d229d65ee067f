"""Times one AdamW step, and training to a target loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from readtrack.plugin import Bench, Case, hookimpl

from ..adam.benchmark import one_tensor_at_a_time, torch_fused
from ..sgd.benchmark import step_cases, until_case
from .model import SGDW, AdamW


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    yield from step_cases(
        bench,
        "AdamW step",
        naive=partial(one_tensor_at_a_time, weight_decay=0.1),
        strong=partial(torch_fused, weight_decay=0.1),
        ours=partial(AdamW.update, t=10, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
        memories=2,
        flops=12,
        traffic=7,
    )
    yield until_case(
        bench,
        {
            ("SGD with decay", "naive"): (partial(SGDW, lr=1.0, weight_decay=2e-4), 64),
            ("torch AdamW", "strong"): (partial(torch.optim.AdamW, lr=0.03, fused=True), 64),
            ("AdamW", "paper"): (partial(AdamW, lr=0.03), 64),
        },
        target=bench.pick(smoke=2.0, quick=0.2, full=0.05),
        limit=5000,
    )
