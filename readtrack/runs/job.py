"""The settings of one run: `job.json`, written before the worker starts."""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from readtrack import regular
from readtrack.bench.case import Budget
from readtrack.datasets.catalogue import Kind
from readtrack.home import write_text
from readtrack.runs.checkpoints import EVERY

Only = Literal["experiment", "benchmark", "exercises"]

ELSEWHERE = "place.json"  # a file of this name in the run's folder marks a run on another machine
ANSWERS = "practice.py"  # in the run's folder: the reader's exercises, in a run of exercises
DETACHED = "detached"  # a file of this name in the run's folder lets the run outlive its starter

_LARGEST = 1 << 20  # size limit of a job.json, in bytes

# Types of the fields that are not strings.
_KINDS = {
    "seed": int,
    "null": bool,
    "times": int,
    "compile": bool,
    "settings": dict,
    "practice": list,
    "checkpoint": float | int,
    "spent": float | int,
    "only": str | None,
    "timeout": float | int | None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The settings of one run.

    device    as resolved by `readtrack.devices` ("cpu", "cuda:1"), or "auto" for the worker to decide
    dtype     "float32", "bfloat16", "float16", "float64", or "auto"
    only      the part to run; None runs experiment and benchmark. "exercises" judges those in `practice`
    null      a null run: every arm is made by the control's builder
    broken    name of the break, or ""
    times     multiplies the training steps of arms whose claim states a number (`Claim.after_steps`)
    compile   also measure the paper's variants under torch.compile; the full budget always does
    settings  `--set key=value` pairs, as text; the plugin's `run.option` converts them
    timeout   seconds, or None
    place     the reader's name for the machine that runs it, or "" for this one
    code      digest of the paper's code, to detect later changes, or ""
    practice  names of exercises for which the reader's functions replace the paper's
    checkpoint  seconds between two checkpoints of a loop (`readtrack.runs.checkpoints`)
    resumes   the first of the runs that this one continues, or ""; spent: the seconds that they took
    edited    difference from the shipped code, such as `model.py +1 −1` (`plugins.edits`), or ""
    """

    run_id: str
    paper: str
    device: str = "auto"
    dtype: str = "auto"
    budget: Budget = "quick"
    only: Only | None = None
    seed: int = 0
    null: bool = False
    broken: str = ""
    times: int = 1
    compile: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    place: str = ""
    code: str = ""
    practice: list[str] = field(default_factory=list)
    edited: str = ""
    checkpoint: float = EVERY
    resumes: str = ""
    spent: float = 0.0
    created: str = ""

    @property
    def control(self) -> bool:
        """Whether the run must not show the paper's effect: a null run, or a run with a break."""
        return self.null or bool(self.broken)

    @property
    def data(self) -> str:
        """Names of the data sets that replace the paper's own (`--data`), or ""."""
        kinds = (kind for kind in get_args(Kind) if kind != "weights")
        return ", ".join(self.settings[kind] for kind in kinds if kind in self.settings)

    @property
    def condition(self) -> str:
        """How the run differs from a plain run of the shipped paper, for tables; "" for a plain run."""
        kind = "null run" if self.null else f"break: {self.broken}" if self.broken else ""
        longer = f"{self.times} times the steps" if self.times > 1 else ""
        practised = f"practice: {', '.join(self.practice)}" if self.practice else ""
        data = f"data: {self.data}" if self.data else ""
        edited = f"edited: {self.edited}" if self.edited else ""
        return ", ".join(filter(None, [kind, longer, practised, data, edited]))

    def write(self, folder: Path) -> None:
        write_text(folder / "job.json", json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read job.json. Raises OSError, ValueError or TypeError if it is missing or not a job."""
        try:
            return cls.from_json(json.loads(regular.read_bytes(folder / "job.json", _LARGEST)))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    @classmethod
    def from_json(cls, found: Any) -> Job:
        """Parse a job, ignoring fields of newer versions. Raises ValueError or TypeError if it is no job."""
        if not isinstance(found, dict) or not isinstance(found.get("paper"), str):
            raise ValueError("a job names its paper")
        fields = {name: value for name, value in found.items() if name in cls.__dataclass_fields__}
        for name, value in fields.items():
            if not isinstance(value, _KINDS.get(name, str)):
                raise TypeError(f"a job's {name} cannot be of type {type(value).__name__}")
        settings, timeout = fields.get("settings", {}), fields.get("timeout")
        if not all(isinstance(value, str) for value in settings.values()):
            raise TypeError("a job's settings are texts")
        if not all(isinstance(name, str) for name in fields.get("practice", ())):
            raise TypeError("a job's exercises are texts")
        seconds = (timeout or 0, fields.get("checkpoint", 0), fields.get("spent", 0))
        if not all(map(math.isfinite, seconds)):
            raise ValueError("a job's timeout, checkpoint and spent are numbers of seconds")
        return cls(**fields)


def new_job(paper: str, **fields: Any) -> Job:
    """A job with a new run id, `<UTC time>-<paper>-<4 hex digits>`; ids sort by time."""
    return renewed(Job(run_id="", paper=paper, **fields))


def renewed(job: Job, **fields: Any) -> Job:
    """The same job with a new run id and `fields` changed."""
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%d-%H%M%S}-{job.paper}-{secrets.token_hex(2)}"
    return replace(job, run_id=run_id, created=now.isoformat(timespec="seconds"), **fields)
