"""Papers whose loops pass their state to `steps`: a run that stops within such a loop and is resumed has the
same numbers as an uninterrupted run. Each test session draws three of the papers at random.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from readtrack.checks.experiment import Watched
from readtrack.checks.watching import Modes
from readtrack.runs.events import EventReader, EventWriter
from readtrack.runs.record import Record

# lstm uses the loop of rnn.tasks, adam that of sgd.trials, and vgg that of alexnet.task.
RESUMABLE = """
    adam adamw alexnet batchnorm bert bfgs byt5 coco conformer ddpm dyt fcn gan glow_tts gpt3 gqa
    graves hessian hifigan instancenorm layernorm lbfgs lenet lstm mamba mixtral overfeat pixelrnn qk_norm
    reinforce resnet rethinking_generalization rope rtrbm s4 schedule_free seq2seq sliding_window ssm
    super_convergence t5 unet vae vgg vit vits whisper
"""
WITH_DATA = {
    "resnet": {"images": "digits"},
    **{name: {"text": "prose"} for name in ("gpt", "lstm", "mamba", "rnn", "transformer_xl")},
}


class Stopped(BaseException):
    """Like a kill: no experiment catches it."""


class Breaking(Watched):
    """A run that stops in the middle of a loop that passes its state to `steps`.

    skip  number of these loops before the one in which it stops, or None: it does not stop
    part  position in the loop, in [0, 1)
    """

    skip: int | None = None
    part: float = 0.0
    first: list[int]  # the step at which each of these loops began

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]:
        last = total
        if state and total > 1:
            if self.skip == 0:
                last = 1 + int(self.part * (total - 1))
            elif self.skip:
                self.skip -= 1
        began = False
        for step in super().steps(total, label, state):
            if not began and state:
                self.first.append(step)
                began = True
            if step == last:
                raise Stopped
            yield step


def numbers(folder: Path) -> str:
    """All numbers of a run except times."""
    record = Record(run_id="", paper="")
    for event in EventReader(folder).read_rest():
        record.apply(event)
    values = {name: value for name, value in record.values.items() if "per second" not in name[0]}
    return repr((record.curves, values, [claim["values"] for claim in record.claims]))


@pytest.mark.slow
def test_a_run_stopped_within_a_loop_ends_like_an_undisturbed_one(
    tmp_path: Path, remembered: Callable[..., Any]
) -> None:
    moments = random.Random(time.time_ns())
    for name in moments.sample(RESUMABLE.split(), 3):
        stop_and_resume(name, {}, moments, tmp_path / name, remembered)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_DATA)
def test_so_does_a_run_on_other_data(name: str, tmp_path: Path, remembered: Callable[..., Any]) -> None:
    moments = random.Random(time.time_ns())
    stop_and_resume(name, WITH_DATA[name], moments, tmp_path / name, remembered)


def stop_and_resume(
    name: str,
    settings: dict[str, str],
    moments: random.Random,
    folder: Path,
    remembered: Callable[..., Any],
) -> None:
    module = importlib.import_module(f"readtrack.papers.{name}")
    folder.mkdir()
    remembered(module, folder / "whole", settings=settings)
    skip, part = moments.randrange(2), moments.random()
    where = f"{name} stopped after {skip} loops, at {part} of the next"
    with pytest.raises(Stopped):
        run(module, folder, "stopped", settings, skip, part)
    resumed = run(module, folder, "resumed", settings)
    assert any(step > 0 for step in resumed.first), where
    assert numbers(folder / "resumed") == numbers(folder / "whole"), where


def run(
    module: ModuleType,
    kept: Path,
    name: str,
    settings: dict[str, str],
    skip: int | None = None,
    part: float = 0.0,
) -> Breaking:
    folder = kept / name
    folder.mkdir()
    events = EventWriter(folder)
    made = Breaking(
        folder=folder,
        events=events,
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
        budget="smoke",
        settings=settings,
        kept=kept / "checkpoints",
        every=0.0,
    )
    made.modes, made.parts = Modes(), {}
    made.first, made.skip, made.part = [], skip, part
    torch.manual_seed(0)
    try:
        module.experiment(made)
    finally:
        events.close()
    return made
