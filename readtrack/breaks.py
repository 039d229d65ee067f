"""The breaks of a paper, without importing its plugin, because the import takes seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from readtrack.claims import SHUFFLED, UNTRAINED, Break, no_such_break
from readtrack.errors import ReadtrackError
from readtrack.runs.store import load
from readtrack.text import one_line

if TYPE_CHECKING:
    from readtrack.library import Library


def known(library: Library, paper: str) -> tuple[Break, ...]:
    """The breaks in the newest run's claims or, if it has none, in the shipped verdicts."""
    for run in library.results(paper)[:1]:
        record = load(library.home.runs / run.run_id)
        named = _named([*record.stated, *(event["claim"] for event in record.claims)])
        if named:
            return named
    return _shipped(library, paper)


def refuse_unknown(library: Library, paper: str, name: str) -> None:
    """Raise ReadtrackError if the shipped plugin of `paper` has no break `name`.

    Only shipped plugins with published verdicts are checked. The name is unknown if neither the verdicts nor
    the code mention it. For other plugins the run reports it after importing the plugin. The core's own
    breaks are always accepted, because they may be newer than the verdicts.
    """
    from readtrack.plugins.source import files

    plugin = library.runnable()[paper]
    there = sorted(one.name for one in _shipped(library, paper))
    if plugin.origin != "shipped" or not there or name in (*there, UNTRAINED.name, SHUFFLED.name):
        return
    if not any(name in path.read_text(encoding="utf-8") for path in files(plugin)):
        raise ReadtrackError(no_such_break(paper, name, there))


def distinct(breaks: Iterable[Break]) -> tuple[Break, ...]:
    """Breaks without duplicate names, because several claims may have the same break."""
    return tuple({one.name: one for one in breaks}.values())


def _shipped(library: Library, paper: str) -> tuple[Break, ...]:
    shipped = library.shipped_verdicts.get(paper, [])
    return distinct(Break(*pair) for one in shipped for pair in one.takes_away)


def _named(claims: Iterable[Mapping[str, Any]]) -> tuple[Break, ...]:
    """The breaks of claims in a run's record. Unknown content from other versions is ignored."""
    ones = (one for claim in claims for one in claim.get("breaks") or () if isinstance(one, dict))
    return distinct(
        Break(one_line(str(one["name"])), one_line(str(one.get("takes_away") or "")))
        for one in ones
        if one.get("name")
    )
