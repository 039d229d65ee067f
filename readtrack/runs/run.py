"""`Run`, the argument of an experiment. It writes everything to the run's event file."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from readtrack.bench.case import Budget
from readtrack.claims import AtLeast, Claim
from readtrack.data import sources
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.runs import meaning
from readtrack.runs.artifacts import ArtifactFiles
from readtrack.runs.checkpoints import EVERY, Checkpoints
from readtrack.runs.events import EventWriter
from readtrack.runs.trial import Best
from readtrack.text import format_number

if TYPE_CHECKING:
    import torch

    from readtrack.datasets.catalogue import Kind
    from readtrack.runs.comparing import Break, NoNull
    from readtrack.runs.table import Metrics, Sweep, Table
    from readtrack.runs.trained import Trained
    from readtrack.runs.trial import Arm, Keep, Level, Point, Trial

A = TypeVar("A")
T = TypeVar("T")
Part = Literal["world", "train", "choose", "judge"]
Value = TypeVar("Value", bool, int, float, str)

_PROGRESS_GAP = 0.1  # seconds between two progress events
_CURVE_POINTS = 100  # points of one loop that `descend` logs


class RunCancelled(BaseException):
    """The reader stopped the run. Like KeyboardInterrupt, it is not caught by `except Exception`."""


class Run:
    """One run of a paper's experiment.

    device, dtype  where and in what precision to compute
    seed           seeds everything, through `run.generator()`; torch's global generators are seeded too. It
                   determines data, splits, order and initial weights
    budget         "smoke" (about a second; claims are not judged), "quick" (at most 60 s on two CPU cores,
                   experiment and benchmark together), "full" (minutes)
    null           a null run: `arms` returns the control's builder under every name
    broken         the break of this run, or "" (see `readtrack.claims.Break`)
    times          multiplies the number of training steps that a claim states (`Claim.after_steps`)
    artifacts      folder for the experiment's own files; `image`, `audio`, `text` and `table` write there
    checkpoints    saved to the folder `kept`, if there is one, every `every` seconds
    """

    keeps_trained = True  # whether `trained` reads and writes the cache; checks turn it off

    def __init__(
        self,
        *,
        folder: Path,
        events: EventWriter,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
        budget: Budget,
        settings: Mapping[str, str],
        null: bool = False,
        broken: str = "",
        times: int = 1,
        kept: Path | None = None,
        every: float = EVERY,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.seed = seed
        self.budget = budget
        self.null = null
        self.broken = broken
        self.times = times
        self.artifacts = folder / "artifacts"
        self.cancelled = False
        self._files = ArtifactFiles(folder, events)
        self.checkpoints = Checkpoints(kept, events, folder, every=every, artifact=self._files.taken.add)
        self._events = events
        self._meaning = meaning.Meanings(events)
        self._settings = dict(settings)
        self._options: dict[str, Any] = {}
        self._total = 0  # number of steps in the current loop
        self._untimed: dict[str, dict[str, Any]] = {}  # events for claims that wait for the benchmark

    # What to do

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """The value for this run's budget."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.budget]

    def option(self, name: str, default: Value) -> Value:
        """The reader's `--set name=value`, converted to `default`'s type, or `default`.

        Raises ReadtrackError if the text does not fit the type.
        """
        self._options[name] = default
        text = self._settings.get(name)
        if text is None:
            return default
        try:
            if isinstance(default, bool):
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                    text.lower()
                ]
            return type(default)(text)
        except (KeyError, ValueError) as error:
            kind = type(default).__name__
            raise ReadtrackError(f"--set {name}={text}: expected {kind}, such as {default}.") from error

    def unused_settings(self) -> dict[str, list[str]]:
        """Settings that no `option` used, each with the existing options."""
        return {name: sorted(self._options) for name in self._settings if name not in self._options}

    def generator(self, stream: str) -> torch.Generator:
        """A CPU generator seeded from the run's seed and the name of the stream ("batches").

        Draw on the CPU and move the result to `device`, so that a seed gives the same
        numbers on every device.
        """
        from readtrack.runs.stream import Stream

        digest = hashlib.sha256(f"{self.seed} {stream}".encode()).digest()
        found = Stream()
        found.manual_seed(int.from_bytes(digest[:7], "big"))
        self.checkpoints.drew(stream, found)
        return found

    def data(self, stream: str, part: Part) -> torch.Generator:
        """A generator for data that all arms share, in every kind of run.

        part  purpose of the data: "world" (a language, a lexicon, rules), "train" (a pool to train on),
              "choose" or "judge". It does not change the numbers; checks redraw the data of one part
        Raises ValueError for any other part.
        """
        if part not in get_args(Part):
            raise ValueError(f"stream {stream!r}: {part!r} is not a part (world, train, choose or judge)")
        return self.generator(stream)

    def data_seed(self, part: Part) -> int:
        """The seed for a data set that draws its own parts, such as `readtrack.data.scenes`; see `data`."""
        return self.seed

    def rows(self, count: int, part: Part) -> torch.Tensor:
        """Indices of the rows of a finite data set for `part`, (rows,): all `count` rows in order.

        The check for leaks evaluates on other rows.
        """
        import torch

        return torch.arange(count)

    def source(
        self,
        kind: Kind,
        *,
        at_most: int | None = None,
        name: str = "",
        needs: sources.Needs = "",
        **split: float,
    ) -> sources.DataSource:
        """Images, text or speech in three parts, as in `readtrack.data.sources`; `--data NAME` replaces them.

        at_most  number of rows or characters to take before splitting
        name     the data set without `--data`; "" is the first of its kind
        needs    "classes" or "masks", which the paper learns and `--data` must have
        split    shares of shipped data that differ from the default: `choose=0.1, judge=0.3`
        Raises ReadtrackError for data that do not fit, NotAvailableError if it must be fetched first.
        """
        name = self.option(kind, name or sources.DEFAULTS[kind])
        found = sources.load(kind, name, self.seed, at_most=at_most, needs=needs, **split)
        self.log(found.sizes(kind))
        return found.of_rows(kind, self.rows)

    def wants(self, *claims: Claim) -> bool:
        """Whether this run judges any of `claims`. An experiment skips the parts that are not needed.

        A null run judges the measured claims, a run with a break the claims that name it, a run with more
        steps the claims that state a number of steps, and any other run all claims.
        """
        if self.times > 1:
            return any(claim.after_steps for claim in claims)
        if self.broken:
            return any(one.name == self.broken for claim in claims for one in claim.breaks)
        return not self.null or any(claim.kind == "measured" for claim in claims)

    def without(self, name: str) -> bool:
        """Whether this run leaves out the ingredient of the break `name`."""
        return self.broken == name

    def arms(self, builders: Mapping[str, T], *, control: str) -> dict[str, T]:
        """The builders of the arms in this run, by name.

        In a null run every name gets the control's builder. Raises KeyError if `control` is not among them.
        """
        chosen = builders[control]
        self._meaning.say(roles=meaning.of_arms(builders, control))
        return dict.fromkeys(builders, chosen) if self.null else dict(builders)

    def sweep(
        self,
        arm: str,
        values: Sequence[float],
        train: Callable[[float], tuple[float, T]],
        *,
        what: str = "rate",
        score: str = "validation score",
        keep: Literal["lowest", "highest"] = "lowest",
    ) -> Best[T]:
        """Call `train` with each of `values`, and return the one with the best validation score.

        `train` returns a score and a result. The score is measured on a split that no reported number uses.
        Scores are logged as a curve over the value; NaN is the worst. Pass the results to `claim`, which
        marks a best value at the edge of the grid and rejects arms that had different grids.
        """
        found: list[tuple[float, float, T]] = []
        self._meaning.say(better={f"{score} over {what}": meaning.of_choice(keep)})
        for value in values:
            name = f"{arm}, {what} {value!r}"
            chosen_by, result = self.checkpoints.cell(name, partial(train, value))
            self.metric(f"{score} over {what}", chosen_by, step=value, arm=arm)
            found.append((value, chosen_by, result))
        best = Best.of(arm, what, found, keep)
        self.metric(f"best {what}", best.value, arm=arm)
        return best

    def compare(
        self,
        *claims: Claim,
        arms: Mapping[str, Arm[A]],
        attempt: Callable[[Trial, A, Any], tuple[float, T]],
        read: Callable[[Trial, Sweep[T]], Metrics],
        grid: Sequence[Point] = (),
        what: str = "rate",
        score: str = "validation score",
        keep: Keep = "lowest",
        widen: bool = True,
        again: bool = False,
        levels: Mapping[str, Sequence[Level]] = MappingProxyType({}),
        yardsticks: Mapping[str, Arm[A]] = MappingProxyType({}),
        references: Mapping[str, Metrics] = MappingProxyType({}),
        derive: Callable[[Table], Mapping[str, Metrics]] | None = None,
        breaks: Mapping[str, Break] = MappingProxyType({}),
        world: Any = None,
        null: Literal["pipeline", "items"] | NoNull = "pipeline",
        unequal: Mapping[str, str] = MappingProxyType({}),
        judged_on: Literal["judge", "training"] = "judge",
    ) -> Table:
        """Train all arms in the same way, and judge the claims that this run needs on their numbers.

        Bounds that name arms (`at_least`, `at_most`) are computed from the table. Other bounds, and
        shortcuts, are metrics of row "", from `derive` or `references`.

        arms        name to arm
        attempt     trains one arm at one point of the grid; returns the score to choose by, and an outcome
        read        measures the chosen outcome of an arm: metric to number, `AtLeast`, or a tensor with a
                    value for each judged item
        grid        points to choose from, the same for all arms, called `what` in the curves of `score`;
                    `keep` says which scores are better. Without a grid there is one attempt and no score
        widen       if an arm's best value is the first or last of a grid of floats, extend the grid by one
                    value for all arms, up to twice. False if no value is left, or the claim is about the grid
        again       train again at the chosen point (`Trial.again`), and read that outcome
        levels      arm to its levels, each with a row "arm@level"
        yardsticks  arms that no null run and no break replaces
        references  rows that need no training
        derive      takes the table; returns metrics that relate its rows, by row
        breaks      name of a break to the arms that it replaces, or to a function from world to world
        world       passed to every attempt as `Trial.world`
        null        "pipeline": in a null run every arm is a copy of the control's stages and attempts with
                    its own weights and streams. "items", for explanations of one network: arms are unchanged,
                    and a coin flip for each judged item swaps their values. `NoNull(why)`: no null run
        unequal     maps an arm to its differences from the others, in the check's terms, and the arm that
                    benefits
        judged_on   "training" if the training itself is measured, such as its length or its loss
        Raises ValueError if a claim names an arm, a metric or a break that does not exist.
        """
        from readtrack.runs.comparing import Comparison

        roles, better = meaning.of_claims(claims, arms, yardsticks, references)
        better |= {f"{score} over {what}": meaning.of_choice(keep)} if grid else {}
        self._meaning.say(roles=roles, better=better)
        return Comparison(
            claims=claims,
            arms=arms,
            attempt=attempt,
            read=read,
            grid=grid,
            what=what,
            score=score,
            keep=keep,
            widen=widen,
            again=again,
            levels=levels,
            yardsticks=yardsticks,
            references=references,
            derive=derive,
            breaks=breaks,
            world=world,
            null=null,
            unequal=unequal,
            judged_on=judged_on,
        ).carry_out(self)

    def share_of_steps(self, arm: str) -> float:
        """The fraction of its steps that an arm in a comparison takes. It is 1 unless checks override it."""
        return 1.0

    def trained(
        self,
        key: str,
        make: Callable[[], torch.nn.Module],
        train: Callable[[torch.nn.Module], None],
    ) -> Trained:
        """A network that several papers share, trained once and cached, with its untrained twin.

        key    names it ("scenes.classifier"), with anything else that changes the training (a break); the
               file is cached under a hash of key, source of `train`'s paper, seed, budget, settings
               (`--set`, `--data`) and precision
        make   builds the network, seeded by this method
        train  trains it in place
        """
        from readtrack.runs.trained import trained

        return trained(
            key,
            make,
            train,
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            budget=self.budget,
            settings=self._settings,
            log=self.log,
            keep=self.keeps_trained,
        )

    @contextmanager
    def evaluating(self, *networks: torch.nn.Module) -> Iterator[None]:
        """A context with the networks in evaluation mode and without gradients. It restores their modes."""
        import torch

        modes = [(module, module.training) for network in networks for module in network.modules()]
        for network in networks:
            network.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def peak_memory(self, call: Callable[[], object]) -> int:
        """Peak bytes held by tensors during `call`, above those held before.

        Raises NotAvailableError if the device's memory cannot be observed.
        """
        from readtrack.bench import memory

        found = memory.peak(call, self.device)
        if found is None:
            raise NotAvailableError(f"The memory of {self.device} cannot be observed here.")
        return int(found["peak_bytes"])

    # Progress

    def phase(self, name: Literal["setup", "train", "evaluate"]) -> None:
        self.check_cancelled()
        self._events.emit("phase", name=name)

    def steps(self, total: int, label: str = "training", state: Sequence[Any] = ()) -> Iterator[int]:
        """Count 0 .. total-1 with progress and an ETA, and stop between two steps if the run is cancelled.

        state  everything that changes in the loop: modules, optimisers, schedules, tensors, lists, dicts. A
               resumed run then starts at the last checkpoint's step. torch's generators are saved anyway
        """
        loop = self.checkpoints.loop(label, state)
        start = last = time.monotonic()
        self._total = total
        self._events.emit("progress", label=label, done=loop.start, total=total, eta=None)
        for step in range(loop.start, total):
            if self.cancelled:
                loop.reached(step, total, stopping=True)
            self.check_cancelled()
            yield step
            loop.reached(step + 1, total)
            now = time.monotonic()
            if now - last >= _PROGRESS_GAP or step == total - 1:
                last = now
                eta = (now - start) / (step + 1 - loop.start) * (total - step - 1)
                self._events.emit("progress", label=label, done=step + 1, total=total, eta=round(eta, 2))

    def check_cancelled(self) -> None:
        """Raise RunCancelled if the reader has stopped the run. `steps` and `phase` call it."""
        if self.cancelled:
            raise RunCancelled

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
        """One optimisation step: compute the gradients, clip their norm to `clip`, update the weights.

        Returns the loss, and logs it as the curve `metric`, at about a hundred points of the loop that
        `steps` counts. An empty name logs nothing.
        """
        import torch

        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([w for g in optimizer.param_groups for w in g["params"]], clip)
        optimizer.step()
        value = loss.item()
        shown = step % max(self._total // _CURVE_POINTS, 1) == 0 or step == self._total - 1
        if metric and shown:
            self.metric(metric, value, step=step, arm=arm)
        return value

    # Results

    def metric(self, name: str, value: float, *, step: float | None = None, arm: str = "") -> None:
        """Log a number. With `step` it is a point of a curve; all arms of a metric share a chart.

        NaN and infinity are recorded as such, because a diverged loss is a result.
        """
        self._events.emit("metric", name=name, value=float(value), step=step, arm=arm)

    def claim(
        self,
        claim: Claim,
        values: Mapping[str, float | AtLeast],
        *,
        tuned: Sequence[Best[Any]] = (),
        vague: Sequence[str] = (),
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Judge `claim` on `values` (metric name to number) by its rule.

        tuned  the sweeps of the compared arms; all must have the same grid
        vague  why too few items were judged; such a claim is not judged
        about  facts about the comparison from `run.compare` (`readtrack.runs.events.ClaimJudged`)
        Raises ValueError if a metric of the rule is missing, or the grids differ (a mistake in the plugin).
        """
        missing = [metric for metric in claim.metrics if metric not in values]
        if missing:
            raise ValueError(f"claim {claim.name!r}: no value for {', '.join(missing)}")
        if len({(best.what, best.grid) for best in tuned}) > len({best.what for best in tuned}):
            raise ValueError(f"claim {claim.name!r}: its arms were tuned on different grids")
        at_least = [name for name, value in values.items() if isinstance(value, AtLeast)]
        numbers = {n: float(v.value if isinstance(v, AtLeast) else v) for n, v in values.items()}
        verdict, why = claim.judge(numbers, at_least)
        # A missed theorem means only that convergence takes longer than this run.
        unreached = claim.kind == "measured" or (claim.kind == "theorem" and verdict == "missed")
        if self.budget == "smoke" and unreached:
            verdict, why = "not judged", "a smoke run is too short"
        elif vague and verdict != "not judged":
            verdict, why = "not judged", f"too few judged items: {'; '.join(vague)}"
        edges = [f"{best.arm}: {best.what} {format_number(best.value)}" for best in tuned if best.edge]
        event = {
            "claim": claim.to_json(),
            "values": numbers,
            "at_least": at_least,
            "verdict": verdict,
            "why": why,
            "edges": edges,
            "vague": list(vague),
            **about,
            "ours": ", ".join(f"{n} {'≥ ' if n in at_least else ''}{_shown(v)}" for n, v in numbers.items()),
            "seed": self.seed,
        }
        if claim.timed:
            self._untimed[claim.name] = event
        else:
            self._events.emit("claim", **event)

    def leave_unjudged(self, claim: Claim, why: str) -> None:
        """Record that this run does not judge `claim`, and why."""
        empty: dict[str, Any] = {"values": {}, "at_least": [], "edges": [], "vague": [], "ours": ""}
        verdict = {"verdict": "not judged", "why": why, "seed": self.seed}
        self._events.emit("claim", claim=claim.to_json(), **empty, **verdict)

    def judge_timed(self, claims: Sequence[Claim], measurements: Sequence[Mapping[str, Any]] | None) -> None:
        """Judge the claims that depend on the benchmark. The worker calls it at the end.

        measurements  the benchmark's measurements; None if it did not run
        """
        for claim in claims:
            if not claim.timed or not self.wants(claim):
                continue
            if claim.bounds and claim.name not in self._untimed:
                if measurements is None:
                    continue
                event: dict[str, Any] = {"verdict": "not judged", "why": "the experiment did not run"}
            else:
                event = dict(self._untimed.get(claim.name, {"verdict": "held", "why": ""}))
            verdict, why, found = claim.judge_timed(measurements or ())
            if measurements is None:
                verdict, why = "not judged", "the benchmark did not run"
            elif self.budget == "smoke":
                verdict, why = "not judged", "a smoke run is too short"
            if event["verdict"] == "held":
                event |= {"verdict": verdict, "why": why}
            timed = {metric: one.value for metric, one in found.items() if not math.isnan(one.value)}
            values: dict[str, float] = {**event.get("values", {}), **timed}
            ours = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
            self._events.emit(
                "claim",
                **{**event, "claim": claim.to_json(), "values": values, "ours": ours, "seed": self.seed},
            )

    def stated(self, claims: Sequence[Claim]) -> None:
        """Announce the claims that this run will judge, before it starts."""
        self._events.emit("claims", claims=[claim.to_json() for claim in claims if self.wants(claim)])

    def axes(self, curve: str, *, x: str = "", y: str = "") -> None:
        """Label the axes of a metric's curve, such as `x="epoch"` and `y="nats per symbol"`."""
        self._events.emit("axes", metric=curve, x=x, y=y)

    def headline(self, curve: str) -> None:
        """Choose the metric whose curve shows the paper's point. The app shows it first after the run."""
        self._events.emit("headline", metric=curve)

    def log(self, text: str) -> None:
        self._events.emit("log", text=text)

    def image(
        self,
        name: str,
        pixels: torch.Tensor,
        *,
        columns: int | Sequence[str] | None = None,
        rows: Sequence[str] = (),
        caption: str = "",
        alt: str = "",
    ) -> None:
        """Save `pixels` as a PNG: (height, width) grey, (1 or 3, height, width), or (n, c, height, width).

        A batch becomes a grid of `columns`, by default nearly square. Values are clamped to [0, 1]. Pages
        show the names of columns and rows beside it, even if one picture is composed of several.

        alt  description for readers who cannot see the picture; without it pages give name and caption
        """
        from readtrack.runs.pictures import save_png

        path = self._files.path(name, "png")
        grid = save_png(path, pixels, columns=columns, rows=rows)
        self._files.record(name, path, "image", caption, alt=alt, **grid)

    def audio(
        self, name: str, samples: torch.Tensor, rate: int, *, caption: str = "", beside: str = ""
    ) -> None:
        """Save `samples`, (samples,) or (channels, samples) in [-1, 1], as a 16-bit WAV at `rate` Hz.

        beside  name of the sound to compare this sound with
        """
        from readtrack.runs.sounds import save_wav

        path = self._files.path(name, "wav")
        save_wav(path, samples, rate)
        self._files.record(name, path, "audio", caption, beside=beside)

    def text(self, name: str, text: str, *, caption: str = "") -> None:
        path = self._files.path(name, "txt")
        path.write_text(text, encoding="utf-8")
        self._files.record(name, path, "text", caption)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
    ) -> None:
        """Save a table; each row has one cell per column (numbers stay numbers in the file)."""
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"table {name!r}: a row does not have {len(columns)} cells, one per column")
        path = self._files.path(name, "json")
        body = {"columns": list(columns), "rows": [list(row) for row in rows]}
        path.write_text(json.dumps(body, default=str), encoding="utf-8")
        self._files.record(name, path, "table", caption)


def _shown(value: float) -> str:
    return format_number(value) if math.isfinite(value) else str(value)
