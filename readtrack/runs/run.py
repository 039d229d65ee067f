"""`Run`: what an experiment is given. Everything it says goes to the run's event file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from readtrack.bench.case import Budget
from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.runs.events import EventWriter
from readtrack.text import number, one_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Value = TypeVar("Value", bool, int, float, str)

_PROGRESS_GAP = 0.1  # seconds between two progress events


class RunCancelled(BaseException):
    """The reader asked the run to stop. Like KeyboardInterrupt, `except Exception` does not catch it."""


class Run:
    """One run of a paper's experiment.

    device, dtype  where and in what precision to compute
    seed           seed everything from `run.generator()`; torch's global generators are seeded too
    budget         "smoke" (about a second; claims are not judged), "quick" (at most 60 s on two CPU cores,
                   experiment and benchmark together), "full" (minutes)
    artifacts      folder for files of the experiment's own; `image`, `text` and `table` write there
    """

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
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.seed = seed
        self.budget = budget
        self.artifacts = folder / "artifacts"
        self.cancelled = False
        self._folder = folder
        self._events = events
        self._settings = dict(settings)
        self._options: dict[str, Any] = {}
        self._artifact_names: set[str] = set()

    # What to do

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """The value for this run's budget."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.budget]

    def option(self, name: str, default: Value) -> Value:
        """The reader's `--set name=value`, in `default`'s type, or `default`.

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
            raise ReadtrackError(f"--set {name}={text}: wants {kind}, such as {default}.") from error

    def unused_settings(self) -> dict[str, list[str]]:
        """Settings that no `option` asked for, each with the options there are."""
        return {name: sorted(self._options) for name in self._settings if name not in self._options}

    def generator(self, stream: int = 0) -> torch.Generator:
        """A CPU generator seeded from the run's seed; other streams are independent of it.

        Draw on the CPU and move to `device`: then a seed means the same numbers on every device.
        """
        import torch

        return torch.Generator().manual_seed((self.seed * 1_000_003 + stream * 7_919) % 2**63)

    # How far it is

    def phase(self, name: Literal["setup", "train", "evaluate"]) -> None:
        self.check_cancelled()
        self._events.emit("phase", name=name)

    def steps(self, total: int, label: str = "training") -> Iterator[int]:
        """Count 0 .. total-1 with progress and an ETA; stops the run between two steps when cancelled."""
        start = last = time.monotonic()
        self._events.emit("progress", label=label, done=0, total=total, eta=None)
        for step in range(total):
            self.check_cancelled()
            yield step
            now = time.monotonic()
            if now - last >= _PROGRESS_GAP or step == total - 1:
                last = now
                eta = (now - start) / (step + 1) * (total - step - 1)
                self._events.emit("progress", label=label, done=step + 1, total=total, eta=round(eta, 2))

    def check_cancelled(self) -> None:
        """Raises RunCancelled once the reader asked to stop. `steps` and `phase` call it."""
        if self.cancelled:
            raise RunCancelled

    # What came out

    def metric(self, name: str, value: float, *, step: int | None = None, arm: str = "") -> None:
        """A number. With `step` it is a point of a curve; arms of one name share a chart.

        A NaN or an infinity is recorded as such: a diverged loss is a result.
        """
        self._events.emit("metric", name=name, value=float(value), step=step, arm=arm)

    def claim(self, claim: Claim, values: Mapping[str, float]) -> None:
        """Judge `claim` on `values` (metric name to number) by the rule that it brought along.

        Raises ValueError if a metric of the rule is missing: that is a mistake in the plugin.
        """
        missing = [bound.metric for bound in claim.rule if bound.metric not in values]
        if missing:
            raise ValueError(f"claim {claim.name!r}: no value for {', '.join(missing)}")
        numbers = {name: float(value) for name, value in values.items()}
        judged = claim.exact or self.budget != "smoke"
        ours = ", ".join(f"{n} {number(v) if math.isfinite(v) else v}" for n, v in numbers.items())
        self._events.emit(
            "claim",
            claim=claim.to_json(),
            values=numbers,
            verdict=claim.judge(numbers) if judged else "not judged",
            ours=ours,
            seed=self.seed,
        )

    def log(self, text: str) -> None:
        self._events.emit("log", text=text)

    def image(
        self, name: str, pixels: torch.Tensor, *, columns: int | None = None, caption: str = ""
    ) -> None:
        """Save `pixels` as a PNG: (height, width) grey, (1 or 3, height, width), or (n, c, height, width),
        which becomes a grid, of `columns` or nearly square. Values are clamped to [0, 1].
        """
        from readtrack.runs.pictures import save_png

        path = self._artifact_path(name, "png")
        save_png(path, pixels, columns=columns)
        self._artifact(name, path, "image", caption)

    def text(self, name: str, text: str, *, caption: str = "") -> None:
        path = self._artifact_path(name, "txt")
        path.write_text(text, encoding="utf-8")
        self._artifact(name, path, "text", caption)

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
    ) -> None:
        """A table; each row has one cell a column (numbers stay numbers in the file)."""
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"table {name!r}: a row does not have {len(columns)} cells")
        path = self._artifact_path(name, "json")
        body = {"columns": list(columns), "rows": [list(row) for row in rows]}
        path.write_text(json.dumps(body, default=str), encoding="utf-8")
        self._artifact(name, path, "table", caption)

    def _artifact_path(self, name: str, suffix: str) -> Path:
        stem = (
            "".join(c if c.isalnum() or c in "-_" else "-" for c in one_line(name).lower())[:80] or "artifact"
        )
        unique, count = stem, 2
        while f"{unique}.{suffix}" in self._artifact_names:
            unique, count = f"{stem}-{count}", count + 1
        self._artifact_names.add(f"{unique}.{suffix}")
        self.artifacts.mkdir(exist_ok=True)
        return self.artifacts / f"{unique}.{suffix}"

    def _artifact(self, name: str, path: Path, kind: str, caption: str) -> None:
        relative = path.relative_to(self._folder).as_posix()
        self._events.emit("artifact", name=name, path=relative, kind=kind, caption=caption)
