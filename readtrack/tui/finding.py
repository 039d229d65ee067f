"""The filter's search: the list's own index at each key, and the full-text index of notes and PDFs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError

if TYPE_CHECKING:
    from readtrack.fulltext.index import FullText
    from readtrack.reading_list.search import Match
    from readtrack.tui.app import ReadtrackApp

_MANY = 1500  # papers; above, only the full-text index answers a key quickly
_LETTERS = 3  # of a word that is looked for in notes and PDFs


class Finding:
    def __init__(self, app: ReadtrackApp) -> None:
        self._app = app

    @cached_property
    def _index(self) -> FullText:
        from readtrack.fulltext.index import FullText

        return FullText(self._app.library.home.cache / "search.sqlite")

    def refresh(self) -> None:
        """Look what changed on disk and read that, in the background; PDFs may take a while."""
        from readtrack.fulltext.searching import subjects

        app, library = self._app, self._app.library

        def read() -> None:
            if library.home.root.is_dir():
                library.home.ensure(library.home.cache)
            self._index.refresh(library, pdfs=False)
            # Made once for a list: the first key of the filter need not wait for it.
            self._index.order(library.catalog, lambda: subjects(library))
            self._index.refresh(library)

        app.in_background("read notes and PDFs for the search", read)

    def find(self, text: str) -> tuple[dict[str, Match], str]:
        """What fits, the best first, and what is wrong with a search that can find nothing."""
        library = self._app.library
        try:
            return self._find(text)
        except ReadtrackError as error:
            return library.ranked(text), str(error)

    def _find(self, text: str) -> tuple[dict[str, Match], str]:
        from readtrack.fulltext.query import is_simple
        from readtrack.fulltext.searching import Search, doubt, matches

        library = self._app.library
        simple = is_simple(text)
        if not self._index.ready:
            if simple:
                return library.ranked(text), library.doubt(text)
            self._index.refresh(library, pdfs=False)
        if simple and len(library.catalog.papers) <= _MANY:
            found = library.ranked(text)
            if max(map(len, text.split()), default=0) >= _LETTERS:
                deep = matches(Search(library, self._index, text, forgiving=not found))
                found = {**found, **{subject: deep[subject] for subject in deep if subject not in found}}
            return found, library.doubt(text)
        return matches(Search(library, self._index, text)), doubt(library, text)
