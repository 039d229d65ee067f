"""Draws two pages: a paper's lineage as a tree, and reading statistics."""

from __future__ import annotations

from readtrack.bets import BetBook
from readtrack.library import Library
from readtrack.lineage import LineageNode, ancestors, descendants, drawn, proposals
from readtrack.present import marks
from readtrack.present.bets import page as bets_page
from readtrack.reading_list.journal import STATES
from readtrack.statistics import WEEKS, Statistics, heat_map
from readtrack.tui.theme import state_mark, state_style, tone_style
from readtrack.tui.widgets.line_view import BLANK, Line, join, text, wrapped
from readtrack.tui.widgets.targets import Subject

_PROPOSED = 3


def lineage(library: Library, paper: str, width: int) -> list[Line]:
    """The tree of a paper's prerequisites and successors. Enter goes to a paper."""
    lines: list[Line] = []
    above, below = ancestors(library.catalog, paper), descendants(library.catalog, paper)
    for title, tree in (("Builds on", above), ("Led to", below)):
        lines += [*([BLANK] if lines else []), Line(text(title, "bold $link"))]
        lines += [_branch(library, branches, node) for branches, node in drawn(tree.below)]
        if not tree.below:
            lines.append(Line(text("no known paper", "$muted")))
    return lines


def _branch(library: Library, branches: str, node: LineageNode) -> Line:
    (sign, style), paper = state_mark(library.shown_state(node.paper)), library.catalog.papers[node.paper]
    mark = (f"{sign} ", style)
    again = ("  above", "$faint") if node.again else ""
    words = join(paper.id, f" {paper.year}" if paper.year else "", (f"  {paper.title}", "$muted"), again)
    return Line(join((branches, "$faint"), mark, words), Subject(node.paper))


def statistics(library: Library, found: Statistics, width: int) -> list[Line]:
    """Reading statistics: states by section, a year of days, streaks, pages, and suggestions for what to read
    next.
    """
    lines = [
        Line(text(line, "$good" if number else "$muted"))
        for number, line in enumerate(heat_map(found, min(WEEKS, max(8, width - 5))))
    ]
    lines += [BLANK, *wrapped(found.sentence, width), BLANK]
    signs = [(f"{marks.STATES[state]:>5}", state_style(state)) for state in STATES]
    room = max(12, width - 5 * len(STATES) - 1)
    lines.append(Line(join(" " * room, *signs)))
    for title, states in [*found.sections, ("all", found.states)]:
        name = text(title).truncate(room - 1, ellipsis=True).pad_right(0)
        cells = [(f"{states[state] or '·':>5}", state_style(state)) for state in STATES]
        lines.append(Line(join(name, " " * (room - name.cell_length), *cells)))
    lines.append(BLANK)
    for line in bets_page(BetBook(library.home).bets(), width):
        style = "bold $link" if line.tone == "heading" else tone_style(line.tone)
        lines += wrapped(line.text, width, style)
    lines += [BLANK, Line(text("Next", "bold $link"))]
    for one in proposals(library)[:_PROPOSED]:
        lines.append(Line(join(one.paper.id, (f"  {one.paper.title}", "$muted")), Subject(one.paper.id)))
        lines += wrapped(one.reason, width, "$muted", indent=2)
    return lines
