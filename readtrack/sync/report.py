"""Reports of a sync: progress, and a summary that names each paper that did not arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from readtrack.text import counted

State = Literal[
    "waiting",
    "metadata",
    "downloading",
    "done",
    "up to date",
    "web only",
    "no source",
    "withdrawn",
    "not found",
    "failed",
    "cancelled",
]
FINAL: tuple[State, ...] = (
    "done", "up to date", "web only", "no source", "withdrawn", "not found", "failed", "cancelled",
)  # fmt: skip
_OFFLINE_EXIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProgress:
    """A progress event. `paper` is an id, or "" for a `message` about the whole sync.

    `bytes` of the file's `total` bytes (None: unknown) have arrived; `eta`: estimated seconds until the end
    of the sync. The last state of a paper is in FINAL.
    """

    paper: str
    state: State
    bytes: int = 0
    total: int | None = None
    eta: float | None = None
    message: str = ""


@dataclass(slots=True)
class SyncSummary:
    """The result of a sync.

    Every requested paper is in `states`; `reasons` has a sentence for those that did not arrive, the link for
    those only on the web, and remarks on others. `stopped`: why the sync ended early, or ""; `not_before`:
    when arXiv may be contacted again (ISO 8601).
    """

    states: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    offline: bool = False
    cancelled: bool = False
    not_before: str | None = None
    repaired: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)  # papers whose missing facts were added to the list
    notes: list[str] = field(default_factory=list)
    here: int = 0  # requested papers whose PDF is in the library
    requests: int = 0
    seconds: float = 0.0

    def of(self, *states: State) -> dict[str, str]:
        """The papers in one of these states, with their reasons."""
        return {paper: self.reasons.get(paper, "") for paper, state in self.states.items() if state in states}

    @property
    def failed(self) -> dict[str, str]:
        """The failures, with reasons."""
        return self.of("failed", "not found")

    @property
    def exit_code(self) -> int:
        """0: everything available is here; 130: cancelled; 3: offline, or arXiv is blocked; else 1."""
        if self.cancelled:
            return 130
        if not self.failed:
            return 0
        return _OFFLINE_EXIT if self.offline or self.not_before else 1

    @property
    def headline(self) -> str:
        count = len(self.states)
        if count == 1 and not self.stopped:
            ((paper, state),) = self.states.items()
            reason = self.reasons.get(paper, "")
            return f"{paper}: {state}{f': {reason}' if reason else ''}."
        if self.cancelled:
            done = count - len(self.of("cancelled")) - len(self.failed)
            return f"Cancelled; {done} of {count}."
        if self.offline:
            return f"Offline. {counted(self.here, 'paper')} fetched earlier."
        parts = [
            f"{len(found)} {words}"
            for words, found in (
                ("fetched", self.of("done")),
                ("up to date", self.of("up to date")),
                ("on the web only", self.of("web only")),
                ("without a source", self.of("no source")),
                ("withdrawn", self.of("withdrawn")),
                ("did not arrive", self.failed),
            )
            if found
        ]
        repaired = f" Repaired {counted(len(self.repaired), 'file')}." if self.repaired else ""
        return f"{counted(count, 'paper')}: {', '.join(parts) or 'nothing to do'}.{repaired}"

    @property
    def details(self) -> list[str]:
        """A line for each paper that did not arrive, and for other remarks."""
        lines = [f"Stopped: {self.stopped}."] if self.stopped else []
        by_reason: dict[str, list[str]] = {}
        if len(self.states) > 1 or self.stopped:  # else the headline has it
            for paper, reason in self.of("failed", "not found", "withdrawn").items():
                by_reason.setdefault(reason, []).append(paper)
        lines += [f"{', '.join(papers)}: {reason}" for reason, papers in by_reason.items()]
        if self.filled:
            lines.append(f"{', '.join(self.filled)}: missing facts were added to the list")
        return [*lines, *self.notes]

    def as_json(self) -> dict[str, Any]:
        return {
            "event": "summary",
            "headline": self.headline,
            "states": self.states,
            "reasons": self.reasons,
            "stopped": self.stopped,
            "offline": self.offline,
            "cancelled": self.cancelled,
            "not_before": self.not_before,
            "repaired": self.repaired,
            "filled": self.filled,
            "notes": self.notes,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "exit_code": self.exit_code,
        }
