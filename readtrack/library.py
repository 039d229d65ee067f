"""The reading list with its journal, notes, PDFs and runs: one interface for the app and the commands.

A subject is a paper's id, or `row:<key>` for a row of the checklist that has no papers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.reading_list.catalog import Catalog, Paper, Row
from readtrack.reading_list.journal import DONE_WITH, STATES, Entry, Journal, JournalView, Reading, State
from readtrack.reading_list.load import load_cached, locate, shipped
from readtrack.reading_list.rows import PREFIX, names
from readtrack.text import clean, nearest, quoted

if TYPE_CHECKING:
    from readtrack.plugins.find import PluginRef
    from readtrack.published import PublishedVerdict
    from readtrack.runs.record import RunSummary


class Library:
    """The reader's library. Open it with `Library.open`.

    listed    the ids of the papers on the list; `catalog.papers` has every paper that readtrack knows
    problems  lines of the journal that had to be skipped
    """

    catalog: Catalog
    listed: dict[str, None]
    problems: list[str]

    def __init__(self, home: Home, papers_yaml: Path | None = None) -> None:
        self.home = home
        self._named = papers_yaml
        self._journal = Journal(home.journal, lambda: home.lock("journal"))
        self.revision = 0  # incremented whenever the list or the journal is read again
        self.reload()

    @classmethod
    def open(cls, home: Home | None = None, papers_yaml: Path | None = None) -> Library:
        """Open the reader's library. `papers_yaml` replaces the list that `load.locate` finds.

        Raises CatalogError if the list cannot be used, ReadtrackError if the journal cannot be read.
        """
        return cls(home or Home(), papers_yaml)

    @property
    def named_list(self) -> Path | None:
        """The list that was passed when this library was opened, if any."""
        return self._named

    @property
    def is_readers(self) -> bool:
        """Whether the list is the reader's own. If not, its ticks are ignored, and states come only from the
        journal.
        """
        return self._is_own(self.catalog.path)

    def _is_own(self, path: Path) -> bool:
        """Whether the list at `path` is the reader's. A list in the current folder is not, unless the reader
        names it or copies it into the home.
        """
        return path != shipped() and path in (self._named, self.home.papers_yaml)

    @property
    def untouched(self) -> bool:
        """Whether the reader has not given any paper a state, tag or rating yet."""
        return not self._view.readings

    @property
    def last_change(self) -> str:
        """The id of the journal's last effective change, which `undo` would revert; "" if there is none."""
        return str(self._view.last[0]["id"]) if self._view.last else ""

    @property
    def shows_shipped_list(self) -> bool:
        """Whether the list is the shipped one, or one in this folder that is not the reader's."""
        return not self._is_own(self.list_path)

    @property
    def list_path(self) -> Path:
        """The list that a reload would read. `add` may have created the reader's own list in the meantime."""
        return self._named or locate(self.home)

    def reload(self) -> None:
        """Read the list, the journal, the plugins and the metadata from disk again."""
        self.catalog = load_cached(self.list_path, self.home.cache)
        self.listed = self.catalog.listed()
        self._rows = {item.subject: item for _, item in self.catalog.walk() if isinstance(item, Row)}
        self._ticked = {
            subject
            for row in self._rows.values()
            if row.done and self.is_readers  # ignore ticks in a list that is not the reader's
            for subject in row.papers or (row.subject,)
        }
        for derived in ("_plugins", "_successors", "shipped_verdicts"):
            self.__dict__.pop(derived, None)
        self._read_journal()

    def read_journal_again(self) -> bool:
        """Read journal entries of other processes, and return whether there were any."""
        changed = _size(self.home.journal) != self._journal_size
        if changed:
            self._read_journal()
        return changed

    def _read_journal(self) -> None:
        self.revision += 1
        self._tagged: dict[str, set[str]] | None = None
        self._journal_size = _size(self.home.journal)
        self._view: JournalView = self._journal.load()
        self.problems = self._view.problems
        said = {
            name: reading.about for name, reading in self._view.readings.items() if name.startswith(PREFIX)
        }
        self._names = names(self.catalog, {**dict.fromkeys(self._noted_rows()), **said})

    def _noted_rows(self) -> Iterator[str]:
        """The names of rows with a note, from the file names."""
        for path in self.home.notes.glob("row-*.md"):
            yield path.stem.replace("-", ":", 1)

    def _name(self, subject: str) -> str:
        """The subject's name in the journal and in the folder of notes."""
        return self._names.of.get(subject, subject)

    def _reading(self, subject: str) -> Reading:
        return self._view.of(self._name(subject))

    @property
    def orphans(self) -> dict[str, Reading]:
        """State, tags and ratings of rows that cannot be matched to a row of the list any more."""
        noted = set(self._noted_rows())
        said = {name: self._view.of(name) for name in self._names.orphans}
        return {name: reading for name, reading in said.items() if name in noted or not reading.is_empty}

    def journal_name(self, subject: str) -> str:
        """The subject's name in the journal. A row keeps its name when its wording is corrected."""
        return self._name(subject)

    def hand_over(self, names: Mapping[str, Sequence[str]]) -> None:
        """Move the states, tags and ratings of rows to papers that have none yet, as one undoable change."""
        changes: list[tuple[str, dict[str, Any]]] = []
        about = {}
        for name, papers in names.items():
            said = self._view.of(name)
            if said.is_empty:
                continue
            if said.about:
                about[name] = said.about
            changes += [(name, {"state": "todo"}), (name, {"rating": None})]
            changes += [(name, {"tag": f"-{tag}"}) for tag in said.tags]
            for paper in papers:
                has = self._view.of(paper)
                if has.state is None and said.state is not None:
                    changes.append((paper, {"state": said.state}))
                if has.rating is None and said.rating is not None:
                    changes.append((paper, {"rating": said.rating}))
                changes += [(paper, {"tag": f"+{tag}"}) for tag in sorted(said.tags - has.tags)]
        if changes:
            self._journal.append_all(changes, about=about)
            self._read_journal()

    def disown(self, orphan: str) -> None:
        """Clear the state, rating and tags of an orphan. Its note stays."""
        reading = self._view.of(orphan)
        about = {orphan: reading.about} if reading.about else {}
        if reading.state is not None:
            self._journal.append([orphan], about=about, state="todo")
        for tag in sorted(reading.tags):
            self._journal.append([orphan], about=about, tag=f"-{tag}")
        if reading.rating is not None:
            self._journal.append([orphan], about=about, rating=None)
        self._read_journal()

    # States, tags and ratings

    def state(self, subject: str) -> State:
        """The state in the journal. Without one, "read" if the reader's own list has a tick, else "todo"."""
        return self._reading(subject).state or ("read" if subject in self._ticked else "todo")

    def shown_state(self, subject: str) -> State | None:
        """`state`, or None for a paper that is not on the list and has no state in the journal."""
        known = subject not in self.catalog.papers or subject in self.listed
        return self.state(subject) if known or self.since(subject) is not None else None

    def since(self, subject: str) -> str | None:
        """The day of the state's last change, such as `2026-11-21`; None if the state comes from the list."""
        return self._reading(subject).since

    def tags(self, subject: str) -> set[str]:
        return set(self._reading(subject).tags)

    def tagged(self) -> dict[str, set[str]]:
        """The tags of each subject that has any."""
        if self._tagged is None:
            tags = {name: one.tags for name, one in self._view.readings.items() if one.tags}
            named = {name: subject for subject, name in self._names.of.items()} if tags else {}
            subjects = {named.get(name, name): of for name, of in tags.items()}
            there = self.catalog.papers.keys() | self._rows.keys()
            self._tagged = {subject: of for subject, of in subjects.items() if subject in there}
        return self._tagged

    def bare_rows(self) -> list[str]:
        """The subjects of rows without papers."""
        return [subject for subject, row in self._rows.items() if not row.papers]

    def wording(self, subject: str) -> str:
        """The row's text as the reader wrote it, for the subject of a row."""
        return self._rows[subject].text

    def rating(self, subject: str) -> int | None:
        return self._reading(subject).rating

    def history(self) -> list[tuple[str, State]]:
        """Every effective change of a state as (time, state), unordered."""
        return [change for reading in self._view.readings.values() for change in reading.history]

    def row_state(self, row: Row) -> State:
        """The combined state of a row's papers: their common state, else "read" if all are finished, else
        "reading".
        """
        states = {self.state(subject) for subject in row.papers or (row.subject,)}
        if len(states) == 1:
            return states.pop()
        return "read" if states.issubset(DONE_WITH) else "reading"

    def mark(self, subject: str, state: State) -> None:
        """Set a state. Raises ReadtrackError for an unknown subject or state. Writes nothing if there is no
        change.
        """
        self.mark_all((subject,), state)

    def mark_all(self, subjects: Sequence[str], state: State) -> None:
        """`mark` several subjects as one undoable change."""
        self._change([s for s in subjects if self._known(s).state != state], state=state)

    def change_together(self, changes: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Make several changes, such as `("adam", {"tag": "+gpu"})`, as one undoable change."""
        for subject, _ in changes:
            self._check(subject)
        if changes:
            about = {self._name(s): self._names.rows[s] for s, _ in changes if s in self._names.rows}
            self._journal.append_all([(self._name(s), change) for s, change in changes], about=about)
            self._read_journal()

    def tag(self, subject: str, tag: str) -> None:
        self.change_tags(subject, add=[tag])

    def change_tags(self, subject: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Add and remove tags as one undoable change. Tags are stored in lower case without a leading '#'."""
        before = self._known(subject).tags
        after = (before | set(map(_tag, add))) - set(map(_tag, remove))
        changes = [f"{'+' if tag in after else '-'}{tag}" for tag in sorted(before ^ after)]
        self.change_together([(subject, {"tag": change}) for change in changes])

    def rate(self, subject: str, rating: int | None) -> None:
        """Set the rating: 1 to 5, or None to remove it."""
        self._change([subject] if rating != self._known(subject).rating else [], rating=rating)

    def undo(self) -> str | None:
        """Undo the last change and return its description, or None if there was nothing to undo."""
        entries = self._journal.undo()
        self._read_journal()
        return self._undone(entries) if entries else None

    def redo(self) -> str | None:
        """Redo the last undone change and return its description, or None if there was none."""
        entries = self._journal.redo()
        self._read_journal()
        return self._redone(entries) if entries else None

    def _redone(self, entries: list[Entry]) -> str:
        entry, whose = entries[0], self._subjects_of(entries)
        who = _together(whose)
        if _are_tags(entries, whose):
            return f"{who}: {_tags(entries, removed='-', restored='+')}."
        if _are_mixed(entries):
            return f"{len(entries)} states and tags restored."
        if "state" in entry:
            return f"{who}: {entry['state']} again."
        return (
            f"{who}: rated {entry['rating']} again." if entry["rating"] else f"{who}: rating removed again."
        )

    def _subjects_of(self, entries: list[Entry]) -> list[str]:
        subjects = {name: subject for subject, name in self._names.of.items()}
        return list(
            dict.fromkeys(subjects.get(name, name) for name in (str(one["paper"]) for one in entries))
        )

    def _undone(self, entries: list[Entry]) -> str:
        entry, whose = entries[0], self._subjects_of(entries)
        who = _together(whose)
        if _are_tags(entries, whose):
            return f"{who}: {_tags(entries, removed='+', restored='-')}."
        if _are_mixed(entries):
            return f"{len(entries)} states and tags undone."
        if "state" in entry:
            now = sorted({self.state(subject) for subject in whose}, key=STATES.index)
            return f"{who}: no longer {entry['state']}, back to {' or '.join(now)}."
        rating = self.rating(whose[0])
        return f"{who}: back to {'no rating' if rating is None else f'a rating of {rating}'}."

    def _known(self, subject: str) -> Reading:
        self._check(subject)
        return self._reading(subject)

    def _check(self, subject: str) -> None:
        if subject not in self.catalog.papers and subject not in self._rows:
            raise _unknown(subject, [*self.catalog.papers, *self._rows])

    def _change(self, subjects: Sequence[str], **change: Any) -> None:
        self.change_together([(subject, change) for subject in subjects])

    # Finding

    def find(self, query: str) -> Paper:
        """The paper for `query`: an id, an alias, a source (an arXiv id with or without version, a DOI, a
        link), or a part of exactly one title. Papers on the list take precedence.

        Raises ReadtrackError, which names the nearest id or the candidates.
        """
        from readtrack.reading_list.sources import name_key, parsed, source_key

        papers = self.catalog.papers
        wanted, name = query.strip().casefold(), name_key(query)
        if paper := papers.get(name):
            return paper
        source = parsed(query.rstrip("/ ")) or parsed(
            f"https://{query.strip()}"
        )  # a link may lack its scheme
        key = source_key(source) if source else ""
        for found in (
            [p for p in papers.values() if name in map(name_key, p.aliases)],
            [p for p in papers.values() if key in map(source_key, p.sources[:1])],
            [p for p in papers.values() if key in map(source_key, p.sources)],
            [p for p in papers.values() if wanted == p.title.casefold()],
            [p for p in papers.values() if wanted and wanted in p.title.casefold()],
        ):
            found = [paper for paper in found if paper.id in self.listed] or found
            if len(found) == 1:
                return found[0]
            if found:
                shown = ", ".join(paper.id for paper in found[:6]) + (", ..." if len(found) > 6 else "")
                raise ReadtrackError(f"{query!r} is ambiguous: {shown}. Name one of them.")
        raise _unknown(query, [*papers, *(alias for paper in papers.values() for alias in paper.aliases)])

    # Files of the home

    def runnable(self) -> dict[str, PluginRef]:
        """The plugins by name, found without import when the library was opened or reloaded."""
        return self._plugins

    @cached_property
    def _plugins(self) -> dict[str, PluginRef]:
        from readtrack.plugins.find import find

        return find(self.home)

    def note_path(self, subject: str) -> Path:
        """The path of the note, which may not exist: `notes/<id>.md`, or `notes/row-<key>.md` for a row."""
        self._check(subject)
        return self.home.notes / f"{self._name(subject).replace(':', '-')}.md"

    def note(self, subject: str) -> str:
        """The note, "" if there is none. Invalid UTF-8 becomes the replacement character."""
        path = self.note_path(subject)
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ReadtrackError(f"Could not read the note {path}: {error.strerror}.") from error

    def noted(self) -> dict[str, Path]:
        """The file of each subject's note."""
        rows = {name.replace(":", "-"): subject for subject, name in self._names.of.items()}
        notes = {path.stem: path for path in sorted(self.home.notes.glob("*.md"))}
        papers = {stem: path for stem, path in notes.items() if stem in self.catalog.papers}
        return {**papers, **{rows[stem]: path for stem, path in notes.items() if stem in rows}}

    def save_note(self, subject: str, text: str) -> None:
        """Replace the note, or delete it if the text is blank. Raises ReadtrackError if it cannot be written,
        or if the existing file is not UTF-8 and would be damaged.
        """
        with self.home.holding("notes"):
            self._write_note(subject, text)

    def change_note(self, subject: str, change: Callable[[str], str]) -> None:
        """Atomically replace the note with `change(note)`. Raises the same errors as `save_note`."""
        with self.home.holding("notes"):
            before = self.note(subject)
            after = change(before)
            if after != before:
                self._write_note(subject, after)

    def add_to_note(self, subject: str, paragraph: str) -> None:
        """Append a paragraph to the note. Raises the same errors as `save_note`."""
        self.change_note(subject, lambda note: below(note, paragraph))

    def _write_note(self, subject: str, text: str) -> None:
        path = self.note_path(subject)
        self.home.ensure(self.home.notes)
        try:
            if path.exists():
                path.read_text(encoding="utf-8")
            if text.strip() or path.is_symlink():
                write_text(path, text if text.strip() else "")
            else:
                path.unlink(missing_ok=True)
        except UnicodeDecodeError as error:
            raise ReadtrackError(f"{path} is not UTF-8. Convert it in an editor first.") from error
        except OSError as error:
            raise ReadtrackError(f"Could not write the note {path}: {error.strerror}.") from error

    def metadata(self, paper_id: str) -> dict[str, Any] | None:
        """The metadata from arXiv, safe to print; None if it has not been fetched or the file is damaged."""
        self._check(paper_id)
        try:
            fields = clean(json.loads((self.home.metadata / f"{paper_id}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return None
        return fields if isinstance(fields, dict) else None

    def pdf(self, paper_id: str) -> Path | None:
        self._check(paper_id)
        path = self.home.pdfs / f"{paper_id}.pdf"
        return path if path.is_file() else None

    def successors(self, paper_id: str) -> list[str]:
        """The papers that build on this one, in the list's order."""
        return self._successors.get(paper_id, [])

    @cached_property
    def _successors(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for paper in self.catalog.papers.values():
            for earlier in paper.builds_on:
                found.setdefault(earlier, []).append(paper.id)
        return found

    def link(self, paper: Paper) -> str:
        """The web address of the paper's PDF, or else of its first source; "" if it has neither."""
        source = next(iter((*paper.pdf_sources, *paper.sources)), None)
        if source is None:
            return ""
        return f"https://arxiv.org/pdf/{source.value}" if source.kind == "arxiv" else source.url

    def results(
        self, paper_id: str | None = None, *, report: Callable[[str], None] = lambda problem: None
    ) -> list[RunSummary]:
        """All runs, or those of one paper, newest first, without exercise checks. `report` is called for
        unreadable runs.
        """
        from readtrack.runs.store import summaries

        return [one for one in summaries(self.home, paper_id, report=report) if one.only != "exercises"]

    @cached_property
    def shipped_verdicts(self) -> dict[str, list[PublishedVerdict]]:
        """The shipped verdicts by paper, read on first use."""
        from readtrack.published import published

        return published()


def below(note: str, paragraph: str) -> str:
    """The note with a paragraph appended."""
    return f"{note.rstrip()}\n\n{paragraph.strip()}\n" if note.strip() else f"{paragraph.strip()}\n"


def _are_tags(entries: list[Entry], subjects: list[str]) -> bool:
    """Whether the entries are tags of one subject, or one tag of several subjects."""
    return all("tag" in one for one in entries) and (len(subjects) == 1 or not _are_mixed(entries))


def _tags(entries: list[Entry], *, removed: str, restored: str) -> str:
    """Text such as `tags gpu, fast removed, tag old restored`."""
    signs = {"removed": removed, "restored": restored}
    tags = {
        fate: list(dict.fromkeys(one["tag"][1:] for one in entries if one["tag"][0] == sign))
        for fate, sign in signs.items()
    }
    return ", ".join(
        f"tag{'s' * (len(ones) > 1)} {', '.join(ones)} {fate}" for fate, ones in tags.items() if ones
    )


def _size(path: Path) -> int:
    """The size of a file in bytes, by which new journal entries are detected."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _are_mixed(entries: list[Entry]) -> bool:
    """Whether the entries are changes of several kinds, such as those of an import."""
    return len({(one.get("state"), one.get("tag"), one.get("rating")) for one in entries}) > 1


def _together(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _unknown(name: str, subjects: Iterable[str]) -> ReadtrackError:
    return ReadtrackError(
        f"There is no paper {quoted(name)}; {nearest(name, subjects, '`readtrack list` shows all papers')}"
    )


def _tag(tag: str) -> str:
    return tag.strip().removeprefix("#").casefold()
