"""The command palette: finds papers by their words, and actions by name, each with its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from readtrack.present import marks
from readtrack.present.actions import ACTIONS, Action, shown_key
from readtrack.tui.screens.dialog import Answering
from readtrack.tui.screens.library import LibraryScreen
from readtrack.tui.theme import state_mark
from readtrack.tui.widgets.line_view import join, text

if TYPE_CHECKING:
    from readtrack.library import Library
    from readtrack.reading_list.catalog import Paper
    from readtrack.tui.shell import Shell

_PAPERS = 8  # maximum number of papers offered for a query
_KEY = 10  # columns


class Palette(CommandPalette, Answering[None]):
    """Textual's palette without two crashes: a second enter before the palette has closed, and a cursor key
    before its list has been drawn.
    """

    def _action_command_list(self, action: str) -> None:
        with suppress(KeyError):
            super()._action_command_list(action)


class _Commands(Provider):
    @property
    def library(self) -> Library:
        return cast("Shell", self.app).library

    @property
    def main(self) -> LibraryScreen | None:
        """The library screen; None over a dialog, where no action applies."""
        return self.screen if isinstance(self.screen, LibraryScreen) else None


class Papers(_Commands):
    """Papers for queries such as `flash`, `dao` or `attention need`, in the order of the filter."""

    async def search(self, query: str) -> Hits:
        if self.main is None or not query.strip():
            return
        library = self.library
        matches, _ = self.main.search.find(query)
        found = [subject for subject in matches if subject in library.catalog.papers]
        for place, name in enumerate(found[:_PAPERS]):
            paper = library.catalog.papers[name]
            yield Hit(0.99 - place / 100, self._line(paper), partial(self.main.show_paper, name), name)

    def _line(self, paper: Paper) -> Content:
        library = self.library
        sign, style = state_mark(library.shown_state(paper.id))
        runs = f"  {marks.RUNNABLE} runs it" if paper.id in library.runnable() else ""
        return join(
            (f"{sign} ", style),
            (paper.id, "bold"),
            f"  {paper.title}",
            (f" · {paper.year}{runs}" if paper.year else runs, "$muted"),
        )


class Actions(_Commands):
    """Offers every action that applies here."""

    async def discover(self) -> Hits:
        for action in self._offered():
            yield DiscoveryHit(_described(action), self._call(action), action.label)

    async def search(self, query: str) -> Hits:
        words, fuzzy = query.casefold().strip(), self.matcher(query)
        for action in self._offered():
            label = action.label.casefold()
            # A match in an action's name ranks above papers, a match in its description below.
            score = 1.0 if label.startswith(words) else 0.995 if words in label else 0.0
            score = score or (
                0.3 if words in action.help.casefold() else 0.2 if fuzzy.match(label) > 0 else 0.0
            )
            if words and score:
                yield Hit(score, _described(action), self._call(action), action.label)

    def _offered(self) -> Iterator[Action]:
        if self.main is not None:
            places = {"library", "checklist", "run" if self.main.on_run else "checklist"}
            yield from (one for one in ACTIONS if one.where in places and one.id != "palette")

    def _call(self, action: Action) -> Callable[[], object]:
        assert self.main is not None
        owner = {"checklist": self.main.checklist, "run": self.main.run_view}.get(action.where, self.main)
        return partial(self.app.run_action, action.call or action.id, owner)


def _described(action: Action) -> Content:
    """A line such as `r         Run                Run the paper (quick budget).`"""
    keys = " ".join(map(shown_key, action.keys[:2]))
    label = action.label[:1].upper() + action.label[1:]
    return join((keys.ljust(_KEY), "bold $link"), text(f"{label:<18} "), (action.help, "$muted"))
