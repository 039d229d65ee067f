"""The replication card of a run: its job, seed, software versions, code and results.

A card is one HTML or Markdown file. People read the page; `readtrack replay` reads the JSON inside it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from readtrack import regular
from readtrack.bench.case import Budget
from readtrack.bench.judge import BoundEstimate, judge
from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.plugins import prints
from readtrack.plugins.prints import Prints
from readtrack.report.privacy import Discretion
from readtrack.runs.job import Job, Only
from readtrack.runs.record import Record
from readtrack.text import clean, one_line

if TYPE_CHECKING:
    from readtrack.library import Library

SCHEMA = 1
_LARGEST = 8 << 20  # size limit of a card in bytes
_JOB = ("device", "dtype", "budget", "only", "seed", "null", "broken", "times", "compile", "settings")
_VERSIONS = ("readtrack", "python", "torch")
_MACHINE = ("device", "device_name", "cpu", "cores", "threads", "dtype", "os")
_INSIDE = (re.compile(r'<script type="application/json" id="card">(.*?)</script>', re.DOTALL),
           re.compile(r"^```json\n(.*?)^```$", re.DOTALL | re.MULTILINE))  # fmt: skip


@dataclass(frozen=True, slots=True)
class CardClaim:
    """A claim of the run. timed: metrics from the benchmark, with their intervals."""

    claim: Claim
    verdict: str
    why: str
    values: Mapping[str, float]
    at_least: tuple[str, ...]
    timed: Mapping[str, BoundEstimate] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.claim.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A run that can be repeated.

    job       the run's job, without place and time
    versions  of readtrack, Python and torch
    machine   the machine that it ran on, without its name
    code      hashes of the executed statements; {} if the run did not store them
    edited    difference from the shipped plugin, or ""
    outcome   the run's outcome, which explains missing claims
    """

    paper: str
    title: str
    started: str
    seconds: float
    job: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    claims: tuple[CardClaim, ...]
    code: Prints
    edited: str = ""
    outcome: str = "completed"
    private: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        parts = [
            "readtrack run",
            _quoted(self.paper),
            f"--seed {self.job['seed']}",
            f"--budget {self.job['budget']}",
        ]
        named = {"device": "auto", "dtype": "auto", "only": None}
        parts += [
            f"--{name} {self.job[name]}" for name, usual in named.items() if self.job.get(name) != usual
        ]
        parts += ["--null"] if self.job.get("null") else []
        parts += [f"--times {self.job['times']}"] if self.job["times"] != 1 else []
        parts += ["--compile"] if self.job.get("compile") else []
        parts += [f"--break {_quoted(self.job['broken'])}"] if self.job.get("broken") else []
        settings = self.job.get("settings") or {}
        return " ".join([*parts, *(f"--set {_quoted(f'{k}={v}')}" for k, v in settings.items())])

    def to_json(self) -> dict[str, Any]:
        claims = [
            {
                "claim": one.claim.to_json(),
                "verdict": one.verdict,
                "why": one.why,
                "values": {name: _finite(value) for name, value in one.values.items()},
                "at_least": list(one.at_least),
                "timed": {
                    name: {key: _finite(value) for key, value in asdict(found).items()}
                    for name, found in one.timed.items()
                },
            }
            for one in self.claims
        ]
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"readtrack_card": SCHEMA, **kept, "claims": claims, "code": prints.as_json(self.code)}

    @classmethod
    def from_json(cls, body: Any) -> Card:
        """Parse an untrusted card and make its texts safe to print. Raises ValueError if it is not a card."""
        if not isinstance(body, dict) or body.get("readtrack_card") != SCHEMA:
            raise ValueError("it is not a card of this version of readtrack")
        body = clean(body)
        try:
            job = {name: {"times": 1, **body["job"]}[name] for name in _JOB}
            Job.from_json({**job, "run_id": "card", "paper": body["paper"]})
            _choices(job)
            return cls(
                paper=one_line(body["paper"]),
                title=one_line(str(body["title"])),
                started=one_line(str(body["started"])),
                seconds=_finite_number(body["seconds"]),
                job=job,
                versions={name: one_line(str(body["versions"].get(name) or "")) for name in _VERSIONS},
                machine={name: _fact(body["machine"].get(name)) for name in _MACHINE},
                claims=tuple(_claim(fields) for fields in body["claims"]),
                code=prints.parse(body["code"]),
                edited=one_line(str(body.get("edited") or "")),
                outcome=one_line(str(body.get("outcome") or "")),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"it lacks {error}") from error


def _choices(job: Mapping[str, Any]) -> None:
    """Raise ValueError for values that `readtrack run` would reject: people paste the card's command."""
    if job["budget"] not in get_args(Budget) or job["only"] not in (None, *get_args(Only)):
        raise ValueError("its budget, or its part of the run, is unknown")
    for name in ("device", "dtype"):
        if not re.fullmatch(r"[a-z]+\d*(:\d+)?", job[name]):
            raise ValueError(f"its {name} is invalid")


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("it contains a number that is not finite")
    return number


def _fact(value: Any) -> Any:
    if isinstance(value, int | float):
        _finite_number(value)
        return value
    return one_line(str(value)) if value else ""


def _claim(fields: Mapping[str, Any]) -> CardClaim:
    claim = Claim.from_json(fields["claim"])
    for bound in (*claim.rule, *claim.guards, *claim.control_reaches):
        bound.holds(0.0 if bound.direction is None else float(bound.direction))  # may raise
    timed = {one_line(name): _timed(one) for name, one in fields["timed"].items()}
    return CardClaim(
        claim=claim,
        verdict=one_line(fields["verdict"]),
        why=one_line(fields["why"]),
        values={str(name): _number(value) for name, value in fields["values"].items()},
        at_least=tuple(map(str, fields["at_least"])),
        timed=timed,
    )


def _timed(found: Mapping[str, Any]) -> BoundEstimate:
    value, low, high = (_number(found[name]) for name in ("value", "low", "high"))
    return BoundEstimate(value, low, high, one_line(found["obstacle"]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def of_run(record: Record, folder: Path, title: str, tell: Discretion, note: str = "") -> Card:
    """The card of a finished run. Raises ReadtrackError if it has not ended or its job cannot be read."""
    if record.job is None or record.outcome is None:
        raise ReadtrackError(f"the run {record.run_id} has not ended, or its job.json cannot be read.")
    asked = ((name, getattr(record.job, name)) for name in _JOB)
    job = {name: tell.line(value) if isinstance(value, str) else value for name, value in asked}
    job["settings"] = {tell.line(name): tell.line(text) for name, text in record.job.settings.items()}
    facts = record.environment
    own = {"host": str(facts.get("host") or ""), "place": record.job.place, "note": note}
    return Card(
        paper=record.paper,
        title=title,
        started=tell.line(record.started),
        seconds=round(record.duration, 1),
        job=job,
        versions={name: tell.line(facts.get(name) or "") for name in _VERSIONS},
        machine={name: _told(facts.get(name), tell) for name in _MACHINE},
        claims=tuple(of_events(record, tell)),
        code=prints.load(folder),
        edited=tell.line(record.job.edited),
        outcome=record.outcome,
        private={name: text for name, text in own.items() if text} if tell.private else {},
    )


def _told(value: Any, tell: Discretion) -> Any:
    kept = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return value if kept else tell.line(value or "")


def of_events(record: Record, tell: Discretion) -> list[CardClaim]:
    """The judged claims that this version of readtrack can read."""
    found = []
    for event in record.claims:
        try:
            claim = Claim.from_json(clean(event["claim"]))
            timed = {bound.metric: judge(bound, record.measurements) for bound in claim.timed}
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        why, at_least = tell.line(event.get("why") or ""), tuple(map(str, event.get("at_least") or ()))
        found.append(CardClaim(claim, str(event["verdict"]), why, event["values"], at_least, timed))
    return found


def read(path: Path) -> Card:
    """Read the card in an HTML, Markdown or JSON file. Raises ReadtrackError if there is none."""
    try:
        text = regular.read_bytes(path, _LARGEST).decode("utf-8")
        found = next((match[1] for form in _INSIDE if (match := form.search(text))), text)
        return Card.from_json(json.loads(found))
    except OSError as error:
        raise ReadtrackError(f"{path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ReadtrackError(f"{path} has no replication card: {one_line(str(error))[:200]}.") from error


def of_library(library: Library, folder: Path, *, private: bool) -> Card:
    """The card of a run in the reader's home."""
    from readtrack.report.gather import machines
    from readtrack.runs.store import load, note

    record = load(folder)
    hosts = [*machines(library), str(record.environment.get("host") or "")]
    tell = Discretion(private=private, hosts=[*hosts, record.job.place if record.job else ""])
    paper = library.catalog.papers.get(record.paper)
    return of_run(record, folder, tell.line(paper.title) if paper else record.paper, tell, note(folder))


def as_json(card: Card) -> str:
    """The card as JSON for a script element, escaped so that it cannot close the element."""
    text = json.dumps(card.to_json(), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
