"""Draws the details of a paper, a row or a section: pure functions from the library to lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from textual.content import Content

from readtrack import signs
from readtrack.errors import ReadtrackError
from readtrack.latex import readable
from readtrack.library import Library
from readtrack.lineage import ancestors, drawn
from readtrack.present import marks, wording
from readtrack.present.actions import key
from readtrack.reading_list.catalog import Paper, Row, Section
from readtrack.reading_list.journal import STATES, finished
from readtrack.runs.evidence import is_control, overall, shown_claims, shown_verdict
from readtrack.text import counted, format_duration, one_line
from readtrack.tui.theme import state_mark, state_style, verdict_mark
from readtrack.tui.widgets.line_view import BLANK, LazyLine, Line, heading, join, text, wrapped
from readtrack.tui.widgets.outline import Entry
from readtrack.tui.widgets.targets import File, NoteTarget, PastRun, Subject, Web

if TYPE_CHECKING:
    from readtrack.runs.record import RunSummary

_SOURCE_NAMES = {"arxiv": "arXiv", "doi": "DOI", "pdf": "PDF", "page": "page"}
AnyLine: TypeAlias = Line | LazyLine
_READING_WIDTH = 92  # longer lines are hard to read
_RECENT = 6  # maximum number of results listed


def paper_page(library: Library, entry: Entry, results: Sequence[RunSummary], width: int) -> list[AnyLine]:
    """The page of a paper, with its row if the row has only this paper."""
    assert entry.paper is not None
    paper, room = entry.paper, min(width - 1, _READING_WIDTH)
    blocks: list[Sequence[AnyLine]] = [
        _title(library, paper, room),
        *_contribution(paper, room),
        _results(library, paper.id, results, room),
        _shipped(library, paper.id, room),
        _notes(library, paper.id, room),
        _lineage(library, paper),
        _sources(library, paper, room),
        _in_your_list(entry, room),
        _abstract(library, paper, room),
    ]
    return _stacked(blocks)


def about_page(library: Library, paper: Paper, width: int) -> list[AnyLine]:
    """The short page next to the paper's code: problem, idea, result and abstract."""
    room = min(width - 1, _READING_WIDTH)
    blocks: list[Sequence[AnyLine]] = [
        wrapped(text(paper.title, "bold $heading"), room, indent=1),
        *_contribution(paper, room),
        _abstract(library, paper, room),
    ]
    return _stacked(blocks)


def row_page(library: Library, entry: Entry, width: int) -> list[AnyLine]:
    """The page of a row with no paper or several papers."""
    assert entry.row is not None
    room = min(width - 1, _READING_WIDTH)
    head = wrapped(text(wording.words(entry.text), "bold $heading"), room, indent=1)
    if not entry.row.papers:
        head += _standing(library, entry.row.subject, width)
    blocks: list[Sequence[AnyLine]] = [
        head,
        _papers(library, entry.row),
        _notes(library, entry.row.subject, room) if not entry.row.papers else [],
        _web(wording.links(entry.text), room),
    ]
    return _stacked(blocks)


def plugin_page(library: Library, name: str, results: Sequence[RunSummary], width: int) -> list[AnyLine]:
    """The page of a plugin without a paper on the list."""
    room = min(width - 1, _READING_WIDTH)
    found = library.runnable()[name]
    words = "This plugin can run, but no paper on your list is linked to it."
    head = [
        *wrapped(text(name, "bold $heading"), room, indent=1),
        *wrapped(words, room, "$muted", indent=1),
        *wrapped(found.location, room, "$muted", indent=1),
    ]
    return _stacked([head, _results(library, name, results, room), _shipped(library, name, room)])


def section_page(library: Library, section: Section, inside: Sequence[str], width: int) -> list[AnyLine]:
    """The page of a section with the reader's progress. `inside` are its subjects."""
    room = min(width - 1, _READING_WIDTH)
    states = Counter(filter(None, map(library.shown_state, inside)))
    counts = [
        Line(join(" ", (marks.STATES[state], state_style(state)), f" {states[state]:>3} ", (state, "$muted")))
        for state in STATES
        if states[state]
    ]
    bar_width = min(48, room - 2)
    done, total = finished(states)
    filled = round(bar_width * done / total) if total else 0
    bar = Line(join(" ", ("━" * filled, "$read"), ("─" * (bar_width - filled), "$faint")))
    head = wrapped(text(section.title, "bold $heading"), room, indent=1)
    if not states:
        what = (
            f"{counted(len(inside), 'paper')} that can run but are not on your list. "
            f"{key('put_on_list')} puts the selected one on your list."
            if inside
            else "No papers here yet."
        )
        return _stacked([head, _prose("", section.note, room), _prose("", what, room)])
    return _stacked([head, _prose("", section.note, room), [bar, *counts]])


def _stacked(blocks: Sequence[Sequence[AnyLine]]) -> list[AnyLine]:
    lines: list[AnyLine] = [BLANK]
    for block in blocks:
        lines += [*([BLANK] if len(lines) > 1 and block else []), *block]
    return [*lines, BLANK]


def _title(library: Library, paper: Paper, width: int) -> list[Line]:
    lines = wrapped(text(paper.title, "bold $heading"), width, indent=1)
    by = " · ".join(filter(None, [", ".join(paper.authors), str(paper.year or "")]))
    if by:
        lines += wrapped(text(by, "$muted"), width, indent=1)
    if paper.missing:
        fetched = f"; {key('sync')} fetches the missing facts" if paper.facts_can_be_fetched else ""
        lines += wrapped(text(f"not known: {', '.join(paper.missing)}{fetched}", "$muted"), width, indent=1)
    return lines + _standing(library, paper.id, width, paper.id)


def _standing(library: Library, subject: str, width: int, name: str = "") -> list[Line]:
    """State, rating and tags, such as `● read since 2026-11-21   ★★★★☆   #gpu`."""
    state, since = library.shown_state(subject), library.since(subject)
    parts = [
        text("not on your list", "$muted")
        if state is None
        else text(f"{marks.STATES[state]} {state}", f"bold {state_style(state)}")
    ]
    if since:
        parts.append(text(f"since {since}", "$muted"))
    rating = library.rating(subject)
    if rating is not None:
        parts.append(text(signs.stars(rating), "$reading"))
    parts += [text(f"#{tag}", "$link") for tag in sorted(library.tags(subject))]
    if name:
        parts.append(text(name, "$muted"))
    return [BLANK, *wrapped(Content("   ").join(parts), width, indent=1)]


def _prose(title: str, words: str, width: int) -> list[Line]:
    if not words.strip():
        return []
    return ([heading(title)] if title else []) + wrapped(words.strip(), width, indent=1)


def _contribution(paper: Paper, width: int) -> list[list[Line]]:
    """The problem, the idea and the result, each as a block."""
    texts = {"Problem": paper.problem, "Idea": paper.idea, "Result": paper.result}
    return [_prose(title, words, width) for title, words in texts.items()]


# Results


def _results(library: Library, plugin: str, results: Sequence[RunSummary], width: int) -> list[Line]:
    if plugin not in library.runnable() and not results:
        return []
    own = _own_code(library, plugin, width)
    if not results:
        return [
            heading("Runs"),
            *own,
            *wrapped(f"Not run yet. Press {key('run')} to run it.", width, "$muted", indent=1),
        ]
    lines = [
        heading("Runs", f"{counted(len(results), 'run')}, enter opens one"),
        *own,
    ]
    # Informative results come first.
    telling_first = sorted(results, key=lambda one: one.outcome not in (None, "completed"))
    for result in telling_first[:_RECENT]:
        lines += _result(result)
    if len(results) > _RECENT:
        more = f"… {len(results) - _RECENT} more: readtrack results {plugin}"
        lines += wrapped(more, width, "$muted", indent=1)
    return lines


def _own_code(library: Library, plugin: str, width: int) -> list[Line]:
    """A warning if the reader's own plugin shadows the shipped one."""
    found = library.runnable().get(plugin)
    if found is None or not found.shadows:
        return []
    from readtrack.plugins.edits import of_plugin, summary

    edited = summary(plugin, of_plugin(found))
    which = {
        "user": f"your edited copy ({edited})" if edited else "your copy",
        "path": "the plugin on READTRACK_PLUGIN_PATH",
        "installed": "the installed plugin",
    }
    words = f"Running {which.get(found.origin, found.origin)}, not the shipped code (i to view)."
    return wrapped(words, width, "$reading", indent=1)


def _result(result: RunSummary) -> list[Line]:
    target = PastRun(result.run_id)
    facts = " · ".join(
        str(part)
        for part in (result.device, result.budget, f"seed {result.seed}", format_duration(result.duration))
        if part
    )
    when = result.started[:16].replace("T", " ")
    condition = f"  {result.condition}" if result.condition else ""
    if result.outcome is None:
        head: list[Content | tuple[object, str] | str] = [(f"{signs.RUNNING} running", "bold $reading")]
    elif result.outcome != "completed":
        head = [(f"{marks.OUTCOMES[result.outcome]} {result.outcome.replace('_', ' ')}", "bold $bad")]
    elif is_control(result):
        head = [(f"{marks.OUTCOMES['completed']} completed", "$muted")]
    else:
        verdict = overall(result)
        sign, style = verdict_mark(verdict) if result.claims else (marks.OUTCOMES["completed"], "$muted")
        head = [(f"{sign} {verdict}", f"bold {style}")]
    lines = [
        Line(
            join(" ", *head, (condition, "bold $reading"), "  ", (when, "$muted"), "  ", (facts, "$muted")),
            target,
        )
    ]
    for name, verdict, ours in shown_claims(result):
        mark = verdict_mark(verdict, control=is_control(result))
        said = (f"{verdict} ", "$muted") if is_control(result) else ""
        lines.append(Line(join("   ", mark, " ", said, (name, ""), "  ", (ours, "$muted"))))
    if result.outcome not in (None, "completed") and result.detail:
        lines.append(Line(join("   ", (result.detail, "$muted"))))
    return lines


def _shipped(library: Library, plugin: str, width: int) -> list[Line]:
    """The shipped verdicts: each claim in full, its effect with the range over seeds, and the results of null
    runs and breaks.
    """
    found = library.shipped_verdicts.get(plugin, [])
    if not found:
        return []
    lines = [heading("Shipped verdicts"), *wrapped(f"Measured on {found[0].made}", width, "$muted", indent=1)]
    for one in found:
        verdict = shown_verdict(one.verdict, one.kind)
        sign, style = verdict_mark(verdict)
        kind = "" if one.kind == "measured" else f"  {one.kind}"
        said = (f"{sign} {verdict}", f"bold {style}")
        lines += hanging(join(said, "  ", (one.claim, "bold"), (kind, "$muted")), width)
        lines += wrapped(one.sentence, width, indent=3)
        lines += wrapped(join((f"{one.counted}: ", "$muted"), one.ours), width, indent=3)
        for control in one.controls:
            lines += wrapped(
                join(verdict_mark(control.mark), (f" {control.words}", "$muted")), width, indent=3
            )
    return lines


# Notes, lineage, sources


def _notes(library: Library, subject: str, width: int) -> list[Line]:
    try:
        note = library.note(subject)
    except ReadtrackError as error:
        return [heading("Notes"), *wrapped(str(error), width, "$bad", indent=1)]
    if not note.strip():
        return []
    lines = [Line(heading("Notes", "enter edits").content, NoteTarget(subject))]
    for line in note.strip().split("\n"):
        style = "bold" if line.startswith("#") else ""
        lines += wrapped(line, width, style, indent=1)
    return lines


def _papers(library: Library, row: Row) -> list[AnyLine]:
    return [_reference(library, paper_id) for paper_id in row.papers]


def _reference(library: Library, paper_id: str, branch: str = "", *, again: bool = False) -> LazyLine:
    """A line of the lineage tree. again: the paper and its ancestors are already listed above."""
    return LazyLine(partial(_referred, library, paper_id, branch, again), Subject(paper_id))


def _referred(library: Library, paper_id: str, branch: str, again: bool) -> Content:
    paper = library.catalog.papers[paper_id]
    return join(
        " ",
        (branch, "$faint"),
        state_mark(library.shown_state(paper_id)),
        " ",
        (paper_id, "$link"),
        "  ",
        (f"{paper.title} · {paper.year}" if paper.year else paper.title, "$muted"),
        ("  above", "$faint") if again else "",
    )


def _lineage(library: Library, paper: Paper) -> list[AnyLine]:
    """The tree of the paper's prerequisites, and the papers that build on it."""
    tree = ancestors(library.catalog, paper.id).below
    children = library.successors(paper.id)
    lines: list[AnyLine] = []
    if tree:
        lines.append(heading("Builds on"))
        lines += [_reference(library, node.paper, branch, again=node.again) for branch, node in drawn(tree)]
    if children:
        lines += [BLANK] if lines else []
        lines += [heading("Built on by"), *(_reference(library, name) for name in children)]
    return lines


def _sources(library: Library, paper: Paper, width: int) -> list[Line]:
    """The paper's sources, with the local PDF first."""
    lines = [heading("Sources")] if paper.sources else []
    pdf = library.pdf(paper.id)
    if pdf is not None:
        content = join(" ", ("file  ", "$muted"), (str(pdf), "$link underline"))
        lines.append(Line(content.truncate(width, ellipsis=True), File(pdf)))
    for source in paper.sources:
        name = f"{_SOURCE_NAMES[source.kind]}".ljust(6)
        note = f"  {source.note}" if source.note else ""
        shown = source.value if source.kind in ("arxiv", "doi") else source.url
        content = join(" ", (name, "$muted"), (shown, "$link underline"), (note, "$muted"))
        lines.append(Line(content.truncate(width, ellipsis=True), Web(source.url)))
    return lines


def _web(addresses: Sequence[str], width: int) -> list[Line]:
    lines = [heading("Links")] if addresses else []
    for address in addresses:
        content = join(" ", (address, "$link underline"))
        lines.append(Line(content.truncate(width, ellipsis=True), Web(address)))
    return lines


def _in_your_list(entry: Entry, width: int) -> list[Line]:
    """The row's full text and links, because the list cuts long rows."""
    if entry.kind != "row":
        return []
    words = wrapped(wording.words(entry.text), width, indent=1)
    addresses = [line for line in _web(wording.links(entry.text), width) if line.target is not None]
    return [heading("In your list"), *words, *addresses]


def _abstract(library: Library, paper: Paper, width: int) -> list[Line]:
    abstract = (library.metadata(paper.id) or {}).get("abstract")
    if isinstance(abstract, str):
        return _prose("Abstract", readable(one_line(abstract)), width)
    if paper.arxiv_id is None:
        return []
    return [
        heading("Abstract"),
        *wrapped(
            f"Not downloaded. Press {key('sync')} to fetch the abstract and PDF.", width, "$muted", indent=1
        ),
    ]


def hanging(value: Content, width: int) -> list[Line]:
    """A wrapped title: its first line is indented by 1, the others by 5."""
    first, *others = wrapped(value, width, indent=5)
    return [Line(first.content.divide([4])[1]), *others]
