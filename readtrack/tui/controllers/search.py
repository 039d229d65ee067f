"""Search for the filter and the palette, with one full-text index that is filled in the background."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError

if TYPE_CHECKING:
    from readtrack.fulltext.index import FullText
    from readtrack.fulltext.searching import RankedMatch
    from readtrack.tui.shell import Shell


class SearchController:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    @cached_property
    def _index(self) -> FullText:
        from readtrack.fulltext.index import FullText

        return FullText(self._shell.library.home)

    def changed(self) -> None:
        """Index changed lists, abstracts and notes. A search at the same time waits for it."""
        library, self._index.ready = self._shell.library, False
        self._shell.in_background("read notes for the search", lambda: self._index.settle(library))

    def refresh(self) -> None:
        """Call `changed`, then index PDFs, which may take a while."""
        library, self._index.ready = self._shell.library, False
        self._shell.in_background("read notes and PDFs for the search", lambda: self._index.refresh(library))

    def find(self, text: str) -> tuple[Mapping[str, RankedMatch], str]:
        """The matches, best first, and a remark: the reason why there are none, or a possibly misspelt
        word.
        """
        from readtrack.fulltext.searching import Matches, Search, doubt

        library = self._shell.library
        try:
            search = Search(library, self._index, text)
            found = Matches(search)
        except ReadtrackError as error:
            return {}, str(error)
        return found, search.suggestion if found else doubt(library, text)
