"""The verdicts shipped with readtrack: the outcomes of the papers' claims before the reader runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from readtrack.effects import Effect
from readtrack.text import counted, one_line

if TYPE_CHECKING:
    from readtrack.claims import Claim

_STANDS = ("held", "reproduced", "not specific")
_FALLS = ("missed", "not reproduced", "inconclusive")


class Control(NamedTuple):
    """`mark` is a word of `present.marks.VERDICTS`: "held" if the control behaved as it should."""

    mark: str
    words: str

    @classmethod
    def of(cls, plain: str, verdict: str, where: str) -> Control:
        if verdict in _STANDS:
            return cls("missed", f"{verdict} {where}, too")
        if plain in _STANDS and verdict in _FALLS:
            return cls("held", f"fails {where}")
        return cls("not judged", f"{verdict} {where}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedVerdict:
    """A claim's verdict over seeds. All texts are safe to print.

    ours         mean, 95 % interval and threshold of each number in the rule; means and ranges if judged by
                 an earlier procedure
    held, seeds  number of seeds that held individually, and number of seeds
    timed        whether only the benchmark judges the claim, which does not run once per seed
    null         the verdict of the null run, or ""
    breaks       (name, verdict with this break)
    takes_away   (name, what it leaves out) of each break that the claim names
    deviations   how the claim's set-up differs from the paper's
    made         machine and date, and whether an earlier procedure judged
    """

    paper: str
    claim: str
    sentence: str
    kind: str
    verdict: str
    held: int
    seeds: int
    timed: bool
    ours: str
    null: str
    breaks: tuple[tuple[str, str], ...]
    takes_away: tuple[tuple[str, str], ...]
    deviations: str
    made: str

    @property
    def counted(self) -> str:
        """`5 of 5 seeds`, or that the benchmark judged."""
        return "benchmark" if self.timed else f"{self.held} of {counted(self.seeds, 'seed')}"

    @property
    def controls(self) -> list[Control]:
        """The outcome of the claim in null runs and with each break.

        A control behaves as it should if the claim fails in it. If the claim fails in plain runs, too, its
        controls show nothing.
        """
        found = [Control.of(self.verdict, self.null, "in null runs")] if self.null else []
        return found + [Control.of(self.verdict, said, f"with {name}") for name, said in self.breaks]


def published(file: Path | None = None) -> dict[str, list[PublishedVerdict]]:
    """The verdicts of each paper's claims; {} if there is no table or it cannot be read."""
    try:
        body = json.loads((file or shipped_file()).read_bytes())
        made = {
            paper: f"{runs['facts'].get('machine', '')}, {runs['facts'].get('date', '')}"
            for runs in body["runs"]
            for paper in runs["papers"]
        }
        found: dict[str, list[PublishedVerdict]] = {}
        for row in body["claims"]:
            earlier = row.get("procedure") != body.get("procedure")
            rule = row["claim"].get("rule")  # a `Speedup` or a `Growth` names its "bound"
            verdict = PublishedVerdict(
                paper=one_line(row["paper"]),
                claim=one_line(row["claim"]["name"]),
                sentence=one_line(row["claim"].get("sentence") or ""),
                kind=one_line(row["claim"]["kind"]),
                verdict=one_line(row["verdict"]),
                held=int(row["held"]),
                seeds=len(row["seeds"]),
                timed=bool(rule) and all("bound" in bound for bound in rule),
                ours=one_line(_effects(row) or row["ours"]),
                null=one_line(row.get("null") or ""),
                breaks=tuple(
                    (one_line(name), one_line(said))
                    for name, said in row["breaks"].items()
                    if name not in row.get("alike", {})
                ),
                takes_away=tuple(
                    (one_line(one["name"]), one_line(one["takes_away"])) for one in row["claim"]["breaks"]
                ),
                deviations=one_line(row["claim"].get("deviations") or ""),
                made=one_line(made[row["paper"]] + (", judged by the earlier procedure" if earlier else "")),
            )
            found.setdefault(verdict.paper, []).append(verdict)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return found


def claims(paper: str) -> dict[str, Claim]:
    """A paper's claims by name, as judged in their published verdicts; {} if there are none."""
    from readtrack.claims import Claim

    file = shipped_file()
    rows = json.loads(file.read_bytes())["claims"] if file.exists() else []
    return {row["claim"]["name"]: Claim.from_json(row["claim"]) for row in rows if row["paper"] == paper}


def _effects(row: Mapping[str, Any]) -> str:
    guards = row.get("guards", {})

    def told(one: Effect) -> str:
        return f"{one.found}, required {one.wanted}{' (a guard, not counted)' if str(one) in guards else ''}"

    return "; ".join(told(Effect(**one)) for one in row.get("effects", ()))


def shipped_file() -> Path:
    """The path of the shipped verdicts.json."""
    package = Path(__file__).parent
    inside = package / "verdicts.json"  # put there by the build hook
    return inside if inside.exists() else package.parent / "docs" / "verdicts.json"
