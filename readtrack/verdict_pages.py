"""The table of verdicts as documents: an overview with a forest plot, a page per paper, JSON and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from readtrack.effects import Effect
from readtrack.forest import forest
from readtrack.procedure import MORE_STEPS
from readtrack.text import format_number
from readtrack.text import in_markdown as _cell
from readtrack.verdict_table import VerdictRow, VerdictTable, caveats, error_rates, forecast, headline, rules
from readtrack.verdicts import OUTCOMES, Verdict

_INTRODUCTION = (
    "The table shows one claim of each paper: the claim of its abstract, or else its first measured claim. "
    "The paper's page shows the others, every seed, controls, deviations and history. The rules were "
    "written into the papers' modules before the runs, and the seeds are derived from a hash of the rules. "
    "[method.md](method.md) explains the procedure, its error rates and every term. `weak`, `inconclusive` "
    "and `not reproduced` are results, too."
)
_EARLIER = (
    "Rows marked *earlier* were judged by the previous procedure. A measured claim was reproduced if every "
    "bound was cleared with 95 % one-sided confidence over five seeds, or by all five. If one of the five "
    "disagreed, nine of ten had to agree. These rows give means and ranges, and are counted separately."
)
# The mode of a benchmark that stops at a goal is part of its bound's name, but tells a reader nothing.
_MODE = re.compile(r", until(?= (?:[≥≤<>\d]|&lt;|&gt;))")
_PLOT = (
    "Each claim is drawn on the scale of its rule: 0 means that the compared arms are equal, and 1 is the "
    "threshold. A filled dot is a reproduced claim. Claims without such a scale are left out, and so are "
    "earlier ones."
)


def documents(table: VerdictTable) -> dict[str, str]:
    """The text of each document, by path below the folder."""
    papers = list(table.facts)
    return {
        "verdicts.md": overview(table),
        "verdicts.svg": forest(list(_first_claims(table).values())),
        "verdicts.json": table.to_json(),
        "verdicts.csv": values(table.rows),
        **{f"verdicts/{paper}.md": page(table, paper) for paper in papers},
    }


def overview(table: VerdictTable) -> str:
    """An overview with one line per paper."""
    rows = table.rows
    lines = ["# Verdicts", "", f"**{_cell(headline(rows))}.**", ""]
    lines += [f"- {label}: {text}" for label, text in error_rates(rows)]
    lines += [f"- {line}" for line in forecast(rows)]
    lines += ["", _INTRODUCTION]
    lines += ["", _EARLIER] if any(row.earlier for row in rows) else []
    lines += ["", "![The effects with their intervals](verdicts.svg)", "", _PLOT, ""]
    lines += _table(
        (
            "paper",
            "claim",
            "effect (95 % interval)",
            "required",
            "verdict",
            "seeds that held",
            "other claims",
        ),
        [_line(row, table.rows) for row in _first_claims(table).values()],
    )
    left = [f"- {_cell(paper)}: {_cell(text)}" for paper, text in table.remarks]
    return "\n".join([*lines, *(["", "## Without a verdict", "", *left] if left else [])]) + "\n"


def _first_claims(table: VerdictTable) -> dict[str, VerdictRow]:
    """Each paper's headline claim, or else its first measured claim, or else its first claim."""

    def rank(row: VerdictRow) -> int:
        return 0 if row.claim.headline else 1 if row.claim.kind == "measured" else 2

    of_paper: dict[str, list[VerdictRow]] = {}
    for row in table.rows:
        of_paper.setdefault(row.paper, []).append(row)
    return {paper: min(rows, key=rank) for paper, rows in of_paper.items()}


def _line(row: VerdictRow, rows: Sequence[VerdictRow]) -> list[str]:
    others = Counter(one.verdict for one in rows if one.paper == row.paper and one is not row)
    effect = row.effect
    found, asked = (effect.found, effect.wanted) if effect else _of_earlier(row)
    return [
        f"[{_cell(row.paper)}](verdicts/{row.paper}.md)",
        _cell(row.claim.name),
        _cell(found),
        _cell(asked),
        _cell(_said(row)),
        f"{row.held} of {len(row.seeds)}" if row.held_seeds else "",
        ", ".join(f"{count} {verdict}" for verdict, count in others.items()),
    ]


def _said(row: VerdictRow) -> str:
    """The verdict and whether it is unsteady or earlier; the paper's page explains why."""
    return ": ".join([row.verdict, *(note for note in caveats(row) if note in ("unsteady", "earlier"))])


def _of_earlier(row: VerdictRow) -> tuple[str, str]:
    """The numbers of the rule's first metric and its bound, for a row without effects."""
    metric, asked = row.claim.rule[0].metric, str(row.claim.rule[0])
    numbers = next((said for said in row.ours.split("; ") if said.startswith(metric)), "")
    return numbers, asked.removeprefix(metric).strip()


def page(table: VerdictTable, paper: str) -> str:
    """A page with all details of a paper's claims."""
    rows = [row for row in table.rows if row.paper == paper]
    lines = [f"# {_cell(paper)}", "", f"**{_cell(headline(rows))}.**", ""]
    lines += [f"- {_cell(label)}: {_cell(text)}" for label, text in table.facts.get(paper, {}).items()]
    lines += [f"- {_cell(text)}" for name, text in table.remarks if name == paper]
    lines += ["", f"To repeat: `readtrack verify {paper} --null --breaks`. [All papers](../verdicts.md)"]
    for row in rows:
        lines += ["", *_claim(row)]
    return _MODE.sub(":", "\n".join(lines)) + "\n"


def _claim(row: VerdictRow) -> list[str]:
    claim = row.claim
    said = ": ".join([row.verdict, *caveats(row)])
    facts = {
        "verdict": f"{said}; {row.held_seeds} held" if row.held_seeds else said,
        "kind": claim.kind + (", the paper's headline" if claim.headline else ""),
        "the paper's result": str(claim.paper),
        "rule": rules(claim),
        "control": claim.control,
        "no rival": claim.no_rival,
        "rivals in the benchmark": row.rival_variants,
        MORE_STEPS: row.numbers.get(MORE_STEPS, ""),
        "breaks": row.fell_first,
        "another verification gives another verdict": ""
        if row.otherwise is None
        else f"with probability {100 * row.otherwise:.0f} %",
        "deviations": claim.deviations,
    }
    lines = [f"## {_cell(claim.name)}", "", _cell(claim.sentence), ""]
    lines += [f"- **{label}**: {_cell(text)}" for label, text in facts.items() if text]
    lines += [f"- **history**: {_cell(text)}" for text in claim.history]
    if row.effects:
        cells = [[_cell(one.found), _cell(one.wanted) + _guard(row, one)] for one in row.effects]
        lines += ["", *_table(("found: mean (95 % interval)", "required"), cells)]
    else:
        lines += ["", f"Found, mean (range): {_cell(row.ours)}"]
    if tried := _tried(row):
        head = ("run", "role", "what is changed", "outcome", "numbers: mean (range)")
        lines += ["", *_table(head, tried)]
    if row.deviations:
        cells = [
            [_cell(metric), *map(format_number, pair), "less than half" if metric in row.narrow else ""]
            for metric, pair in row.deviations.items()
        ]
        lines += ["", *_table(("standard deviation over seeds", "plain runs", "null runs", ""), cells)]
    return lines + _seeds(row)


def _guard(row: VerdictRow, effect: Effect) -> str:
    who = row.guards.get(str(effect))
    return f": a guard, not counted, since {_cell(who)} clears it" if who else ""


def _tried(row: VerdictRow) -> list[list[str]]:
    """Table rows for the null run and each break of the claim."""
    null = "Every arm is the control."
    runs: list[tuple[str, str, str, Verdict | None]] = [("null run", "", null, row.null)]
    runs += [(one.name, one.role, one.takes_away, row.breaks.get(one.name)) for one in row.claim.breaks]
    return [
        [_cell(name), role, _cell(what), _came_to(row, name, verdict), _cell(row.numbers.get(name, ""))]
        for name, role, what, verdict in runs
        if verdict is not None
    ]


def _came_to(row: VerdictRow, name: str, verdict: Verdict) -> str:
    alike = row.alike.get(name)
    said = OUTCOMES[verdict]
    return f"{said}: a null run, since {_cell(alike)} are equal in every number" if alike else said


def _seeds(row: VerdictRow) -> list[str]:
    if not row.values or row.claim.kind != "measured":
        return ["", f"Seeds: {', '.join(map(str, row.seeds))}"]
    cells = [
        [str(seed), *(_number(column[index]) for column in row.values.values())]
        for index, seed in enumerate(row.seeds)
    ]
    return ["", *_table(("seed", *map(_cell, row.values)), cells)]


def _number(value: float | None) -> str:
    return "no number" if value is None or value != value else format_number(value)


def values(rows: Iterable[VerdictRow]) -> str:
    """CSV with one line per claim, metric and seed. `run` and `seconds` are empty if not recorded."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["paper", "claim", "verdict", "procedure", "seed", "metric", "value", "run", "seconds"])
    for row in rows:
        for index, seed in enumerate(row.seeds):
            run = [row.runs[index], row.seconds[index]] if row.runs else ["", ""]
            for metric, column in row.values.items():
                value = column[index]
                number = "" if value is None or value != value else repr(value)
                lines.writerow(
                    [row.paper, row.claim.name, row.verdict, row.procedure, seed, metric, number, *run]
                )
    return text.getvalue()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
