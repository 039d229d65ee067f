"""The arms of a comparison, and the objects used to train and measure them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

    from readtrack.claims import AtLeast, Claim
    from readtrack.runs.checkpoints import Checkpoints
    from readtrack.runs.shuffling import ShuffledTargets

A = TypeVar("A")
T = TypeVar("T")
Level = Hashable
Point = Hashable
Keep = Literal["lowest", "highest"]

_GROWING = ("loops", "taken", "updates", "shuffled", "losses", "how", "rates")  # of `Work`


@dataclass(frozen=True, slots=True)
class Best(Generic[T]):
    """The result of `Run.sweep` for one arm.

    value   the best of `grid`; NaN where no value gave a finite score
    score   its validation score
    result  the second value that `train` returned
    edge    whether the best value is the first or the last of the grid, so that a wider grid might be better
    """

    arm: str
    what: str
    grid: tuple[float, ...]
    value: float
    score: float
    result: T
    edge: bool

    @classmethod
    def of(
        cls, arm: str, what: str, found: Sequence[tuple[float, float, T]], keep: Literal["lowest", "highest"]
    ) -> Best[T]:
        """The best of `found`: value, score and result of each point, in the order of the grid."""
        sign = 1.0 if keep == "lowest" else -1.0
        ranks = [math.inf if math.isnan(score) else sign * score for _, score, _ in found]
        index = ranks.index(min(ranks))
        value, score, result = found[index]
        return cls(
            arm=arm,
            what=what,
            grid=tuple(point for point, _, _ in found),
            value=math.nan if math.isnan(score) else value,
            score=score,
            result=result,
            edge=len(found) > 1 and index in (0, len(found) - 1),
        )


class Runner(Protocol):
    """The members of `readtrack.runs.run.Run` that a comparison uses. A protocol, because `run` imports this
    module.
    """

    null: bool
    seed: int
    times: int
    checkpoints: Checkpoints

    def wants(self, *claims: Claim) -> bool: ...

    def phase(self, name: Literal["setup", "train", "evaluate"]) -> None: ...

    def without(self, name: str) -> bool: ...

    def share_of_steps(self, arm: str) -> float: ...

    def generator(self, stream: str) -> torch.Generator: ...

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]: ...

    def descend(
        self,
        loss: torch.Tensor,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        metric: str = "training loss",
        arm: str = "",
        clip: float | None = None,
    ) -> float: ...

    def metric(self, name: str, value: float, *, step: float | None = None, arm: str = "") -> None: ...

    def claim(
        self,
        claim: Claim,
        values: Mapping[str, float | AtLeast],
        *,
        tuned: Sequence[Best[Any]] = (),
        vague: Sequence[str] = (),
        about: Mapping[str, Any] = ...,
    ) -> None: ...

    def leave_unjudged(self, claim: Claim, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Arm(Generic[A]):
    """One side of a comparison.

    make    passed to the comparison's `attempt` to build the arm: a class, a function, a setting
    before  the stage that the arm starts from, such as its pre-training; `Trial.before` is its result. Arms
            with the same `before` share one result
    """

    make: A
    before: Callable[[Trial], Any] | None = None


@dataclass(slots=True, kw_only=True)
class Work:
    """The work of one attempt of an arm, or of one stage, recorded by its `Trial`.

    arm, level, point  of an attempt
    stage    name of the stage's function, "" for an attempt
    again    whether it was the second training, at the chosen point
    loops    length of each loop; `taken` counts the steps that were executed
    updates  optimiser steps through `Trial.descend`; `losses` are their losses
    shuffled the number of these whose loss had shuffled targets (`readtrack.runs.shuffling`)
    how      optimisers with their settings at the first step, and clipping
    rates    learning rates at an optimiser's first and last step
    before   the work of the stage that an attempt started from
    drawn    generator by stream name
    score    the score to choose by; NaN if nothing is chosen
    """

    arm: str
    level: Level | None = None
    point: Point | None = None
    stage: str = ""
    again: bool = False
    loops: list[int] = field(default_factory=list)
    taken: int = 0
    updates: int = 0
    shuffled: int = 0
    losses: list[float] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    before: Work | None = None
    drawn: dict[str, torch.Generator] = field(default_factory=dict)
    score: float = math.nan

    def state_dict(self) -> dict[str, Any]:
        """The fields that grow during training."""
        return {name: getattr(self, name) for name in _GROWING}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in _GROWING:
            setattr(self, name, state[name])


@dataclass(slots=True)
class Workshop:
    """State that the trials of one comparison share: the run, the world, stages' results, the work."""

    run: Runner
    world: Any = None
    stages: dict[Hashable, tuple[Work, Any]] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)


class Trial:
    """A run as seen by one arm at one level.

    name    name of the arm and its level, for curves and progress
    level   the arm's level, or None
    world   the comparison's `world`, after a break that replaces it
    before  the result of the arm's stage, or None
    again   whether this is the second training, at the chosen point
    run     the run itself: device, options, `data`. Its `generator` is not the arm's own
    work    the work of this attempt or stage so far

    Weights (torch's global generator) and the streams of `generator` are per arm: in a null run each arm has
    its own. Data come from `Run.data` and are the same for all arms.
    """

    def __init__(
        self,
        shop: Workshop,
        work: Work,
        *,
        arm: str,
        salted: bool = False,
        share: float = 1.0,
        shuffled: bool = False,
    ) -> None:
        self.run = shop.run
        self.world = shop.world
        self.name = work.arm
        self.level = work.level
        self.before: Any = None
        self.again = False
        self.work = work
        self._shop = shop
        self._arm = arm  # without its level
        self._salted = salted
        self._share = share
        self._shuffling: ShuffledTargets | None = None
        if shuffled:
            from readtrack.runs.shuffling import ShuffledTargets

            self._shuffling = ShuffledTargets(self.run.generator(f"{self.name} | shuffled targets"))

    def kept(self, name: str, train: Callable[[], T]) -> T:
        """The result of `train`, which trains the arm, or the result saved in its checkpoint."""

        def carry_out() -> tuple[dict[str, Any], T]:
            with self._shuffling or nullcontext():
                result = train()
            return self.work.state_dict(), result

        work, result = self.run.checkpoints.cell(name, carry_out)
        self.work.load_state_dict(work)
        return result

    def start(self) -> None:
        """Seed torch for the weights. The core calls it before each attempt and each stage."""
        import torch

        seed = self.run.seed
        if self._salted:
            digest = hashlib.sha256(f"{seed} weights {self.name}".encode()).digest()
            seed = int.from_bytes(digest[:7], "big")
        torch.manual_seed(seed)

    def generator(self, stream: str) -> torch.Generator:
        """The arm's own generator for batches, dropout or noise, seeded from the run's seed and `stream`."""
        found = self.run.generator(f"{self.name} | {stream}" if self._salted else stream)
        self.work.drawn[stream] = found
        return found

    def length(self, steps: int) -> int:
        """The number of training steps for a claim that states this number (`Claim.after_steps`).

        Returns `steps`, or a multiple in a run that tests longer training.
        """
        return steps * self.run.times

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]:
        """Count 0 .. total-1 as `Run.steps` does. The core may shorten the loop, even to no steps."""
        self.work.loops.append(total)
        if self._share <= 0:
            return
        for step in self.run.steps(total, label, (*state, self.work) if state else ()):
            if step >= self._share * total:
                return
            self.work.taken += 1
            yield step

    def descend(
        self,
        loss: torch.Tensor,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        metric: str = "training loss",
        arm: str = "",
        clip: float | None = None,
    ) -> float:
        """`Run.descend`, recorded in `work`. The curve is the arm's unless `arm` names another."""
        last = self.work.loops[-1] - 1 if self.work.loops else 0
        if step == 0:
            self.work.how.append(f"{type(optimizer).__name__} {_settings(optimizer)} clip {clip}")
        if step in (0, last):
            self.work.rates.append(float(optimizer.param_groups[0]["lr"]))
        if self._shuffling:
            self.work.shuffled += self._shuffling.done > 0
            self._shuffling.done = 0
        value = self.run.descend(loss, optimizer, step=step, metric=metric, arm=arm or self.name, clip=clip)
        self.work.updates += 1
        self.work.losses.append(value)
        return value

    def metric(self, name: str, value: float, *, step: float | None = None, arm: str = "") -> None:
        """`Run.metric`, for this arm unless `arm` names another."""
        self.run.metric(name, value, step=step, arm=arm or self.name)

    def part(self, name: str) -> str:
        """The label in curves of a network `name` that this arm needs; in a null run there is one per arm."""
        return f"{name}, for {self._arm}" if self._salted else name

    def stage(self, first: Callable[[Trial], T]) -> T:
        """The result of `first`, computed once for all arms that use it; in a null run once per arm.

        A stage may use another stage. The state of torch's global generator is restored.
        """
        import torch

        key = first, self._arm if self._salted else "", self._share, self._shuffling is not None
        if key not in self._shop.stages:
            state = torch.get_rng_state()
            work = Work(arm=self._arm, stage=getattr(first, "__name__", repr(first)))
            self._shop.works.append(work)
            shuffled = self._shuffling is not None
            trial = Trial(
                self._shop, work, arm=self._arm, salted=self._salted, share=self._share, shuffled=shuffled
            )
            trial.start()
            name = f"stage {work.stage}, {self._arm if self._salted else ''}, {self._share:g}, {shuffled}"
            self._shop.stages[key] = work, trial.kept(name, lambda: first(trial))
            torch.set_rng_state(state)
        found: T
        self.work.before, found = self._shop.stages[key]
        return found

    def early_stopping(
        self, evaluate: Callable[[], tuple[float, T]], keep: Keep = "highest"
    ) -> EarlyStopping[T]:
        """See `EarlyStopping`."""
        return EarlyStopping(evaluate, keep)


class EarlyStopping(Generic[T]):
    """Keeps the best of several evaluations of one network during training.

    evaluate  returns the score to choose by, and an outcome to keep
    keep      which scores are better
    """

    def __init__(self, evaluate: Callable[[], tuple[float, T]], keep: Keep) -> None:
        self._evaluate = evaluate
        self._sign = 1.0 if keep == "highest" else -1.0
        self._best: tuple[float, T] | None = None

    def check(self) -> None:
        """Evaluate now. If scores are equal, the first is kept."""
        score, outcome = self._evaluate()
        if self._best is None or self._sign * score > self._sign * self._best[0]:
            self._best = score, outcome

    def best(self) -> tuple[float, T]:
        """The best evaluation. Evaluates now if there was none, for example after no steps."""
        if self._best is None:
            self.check()
        assert self._best is not None
        return self._best

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best = state["best"]


def _settings(optimizer: torch.optim.Optimizer) -> str:
    """The optimiser's own settings, and those that schedules add, without the learning rate."""
    shown = {
        name: value
        for name, value in optimizer.defaults.items()
        if name not in ("lr", "initial_lr", "max_lr", "min_lr")
    }
    return repr(shown)
