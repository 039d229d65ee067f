"""Metadata of papers from arXiv: requested in batches, stored as metadata/<id>.json.

The `arxiv` package builds the query and parses the feed. Errors that it hides or mishandles when a server
misbehaves are caught first (see `_Session` and `_Feed`).
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from readtrack.errors import ReadtrackError
from readtrack.home import write_text
from readtrack.reading_list.sources import split_version
from readtrack.sync.client import Bytes, Client, Endpoints
from readtrack.sync.faults import Fault, looks_like_page, page_title
from readtrack.text import one_line, plain

if TYPE_CHECKING:
    import arxiv

TESTED = "4.0.2"  # the package version that readtrack is tested with
BATCH = 100  # ids per request: a link of about 1,300 characters
MAX_REFUSALS = 16
_FEED, _ENTRY = 1024 * 1024, 128 * 1024  # size limits of a feed and of each entry, in bytes
MAX_AGE = 30  # days after which an id without a version is requested again


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One entry of a feed, safe to print. `arxiv_id` has no version; times are ISO 8601."""

    arxiv_id: str
    version: int
    title: str
    abstract: str
    authors: tuple[str, ...]
    categories: tuple[str, ...]
    published: str
    updated: str
    comment: str
    doi: str
    journal_ref: str
    pdf_url: str


@dataclass(slots=True)
class Answer:
    """The entries for the requested ids; `refused`: the reasons for ids that arXiv rejected."""

    found: dict[str, FeedEntry] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unnamed: int = 0  # refusals that named no id


def fetch(client: Client, endpoints: Endpoints, ids: Sequence[str]) -> Answer:
    """Fetch one batch, normally in one request. Raises Fault, SyncCancelled.

    Missing ids are requested once more. An id that makes arXiv reject the batch is found by its name in the
    response, else by halving the batch.
    """
    answer = Answer()
    _ask(client, endpoints, list(ids), answer)
    missing = [one for one in ids if one not in answer.found and one not in answer.refused]
    if missing:
        _ask(client, endpoints, missing, answer)
    return answer


def _ask(client: Client, endpoints: Endpoints, ids: list[str], answer: Answer) -> None:
    try:
        entries = _query(client, endpoints, ids)
    except Fault as fault:
        if fault.kind != "ids":
            raise
        said = unquote(fault.body.decode("utf-8", "replace"))
        named = [one for one in ids if f"incorrect_id_format_for_{one}<" in said]
        answer.unnamed += not named
        if answer.unnamed > MAX_REFUSALS:  # so many refusals cannot all be caused by ids
            raise Fault("refused", str(fault), body=fault.body) from None
        if len(ids) == 1:
            named = ids
        for one in named:
            answer.refused[one] = "arXiv does not accept this id"
        rest = [one for one in ids if one not in named]
        middle = 0 if named else len(rest) // 2
        for part in (rest[:middle], rest[middle:]):
            if part:
                _ask(client, endpoints, part, answer)
        return
    exact = {(facts.arxiv_id, facts.version): facts for facts in entries}
    pinned = set(map(split_version, ids))
    newest = {
        base: facts
        for (base, version), facts in sorted(exact.items(), key=itemgetter(0))
        if (base, version) not in pinned
    }
    for one in ids:
        base, version = split_version(one)
        found = newest.get(base) if version is None else exact.get((base, version))
        if found is not None:
            answer.found[one] = found


def _query(client: Client, endpoints: Endpoints, ids: list[str]) -> list[FeedEntry]:
    import arxiv

    package = arxiv.Client(page_size=len(ids), delay_seconds=0, num_retries=0)
    package.query_url_format = f"{endpoints.api}?{{}}"
    _take_over(package, client, ids)
    search = arxiv.Search(id_list=ids, max_results=len(ids))
    results: list[arxiv.Result] = []
    try:
        # One at a time, because the package requests a second page if the first one was short.
        for result in package.results(search):
            results.append(result)  # noqa: PERF402 (results before an exception count)
    except _SecondPageError:
        pass
    except (ValueError, TypeError) as error:
        raise Fault("feed", f"arXiv's answer could not be read ({one_line(str(error))[:100]})") from error
    if any("/api/errors" in result.entry_id for result in results):
        raise Fault("ids", "arXiv refused an id", body=" ".join(f"{r.entry_id}<" for r in results).encode())
    return [facts for facts in map(_facts, results) if facts is not None]


def _take_over(package: arxiv.Client, client: Client, ids: Sequence[str]) -> None:
    """Make the package send requests through `client`, after checking that its private session exists."""
    import requests

    if not isinstance(getattr(package, "_session", None), requests.Session):
        raise ReadtrackError(
            "this version of the package arxiv is not supported. "
            f"To install a supported one: {sys.executable} -m pip install 'arxiv=={TESTED}'"
        )

    class _Session(requests.Session):
        asked = False

        def get(self, url: str | bytes, **_: Any) -> requests.Response:
            if self.asked:
                raise _SecondPageError
            self.asked = True
            feed = _Feed(len(ids))
            client.get(str(url), feed)
            response = requests.Response()
            response.status_code = 200
            response.raw = io.BytesIO(bytes(feed.data))
            return response

    package._session = _Session()
    # Its warnings would be printed over the app.
    logging.getLogger("arxiv").addHandler(logging.NullHandler())


class _SecondPageError(Exception):
    """The package requests a second page for ids that fit on one."""


class _Feed(Bytes):
    """A complete feed, within the size limit for its ids.

    The package would accept half a feed, or a web page.
    """

    def __init__(self, ids: int) -> None:
        super().__init__("application/atom+xml,application/xml;q=0.9,*/*;q=0.5", limit=_FEED + ids * _ENTRY)
        self._ids = ids

    def end(self) -> None:
        # Some duplicates are normal.
        if (count := self.data.count(b"<entry")) > 2 * self._ids + 10:
            raise Fault("large", f"arXiv's answer has {count} entries; {self._ids} papers were requested")
        if looks_like_page(bytes(self.data[:1024])):
            text = f"arXiv sent a web page ({page_title(bytes(self.data))}) instead of an answer"
            raise Fault("blocked", text, body=bytes(self.data))
        if b"<feed" not in self.data[:4096] or not self.data.rstrip().endswith(b"</feed>"):
            raise Fault("feed", "arXiv's answer was cut short")


def _facts(result: arxiv.Result) -> FeedEntry | None:
    found = re.search(r"/abs/(\S+?)v(\d+)$", result.entry_id)
    if not found:
        return None
    return FeedEntry(
        arxiv_id=one_line(found[1]),
        version=int(found[2]),
        title=one_line(result.title),
        abstract=_paragraphs(result.summary),
        authors=tuple(name for author in result.authors if (name := one_line(author.name))),
        categories=tuple(one_line(category) for category in result.categories),
        published=result.published.isoformat(),
        updated=result.updated.isoformat(),
        comment=one_line(result.comment or ""),
        doi=one_line(result.doi or ""),
        journal_ref=one_line(result.journal_ref or ""),
        pdf_url=one_line(result.pdf_url or ""),
    )


def _paragraphs(text: str) -> str:
    """The abstract without hard line breaks; an indented line starts a paragraph."""
    parts = re.split(r"\n\s*\n|\n(?=[ \t]{2,}\S)", plain(text).strip())
    return "\n\n".join(line for part in parts if (line := one_line(part)))


# Files


def path_of(folder: Path, paper_id: str) -> Path:
    return folder / f"{paper_id}.json"


def save(folder: Path, paper_id: str, asked: str, facts: FeedEntry, wall: float) -> None:
    """Replace metadata/<paper_id>.json. `asked`: the id as in the list. Raises OSError."""
    document = {
        "title": facts.title,
        "abstract": facts.abstract,
        "authors": facts.authors,
        "categories": facts.categories,
        "version": facts.version,
        "published": facts.published,
        "updated": facts.updated,
        "comment": facts.comment,
        "doi": facts.doi,
        "journal_ref": facts.journal_ref,
        "pdf_url": facts.pdf_url,
        "source": f"https://arxiv.org/abs/{facts.arxiv_id}v{facts.version}",
        "asked": asked,
        "fetched": datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds"),
    }
    write_text(path_of(folder, paper_id), json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def load(folder: Path, paper_id: str, asked: str) -> dict[str, Any] | None:
    """The saved metadata of this paper and this id; None if there is none or it is damaged."""
    try:
        document = json.loads(path_of(folder, paper_id).read_text(encoding="utf-8"))
        datetime.fromisoformat(document["fetched"])
        if document["asked"] == asked and isinstance(document["version"], int) and document["title"]:
            return dict(document)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return None


def is_old(document: dict[str, Any], asked: str, wall: float) -> bool:
    """Whether to request it again. Pinned versions are never old; a future date means a wrong clock."""
    if split_version(asked)[1] is not None:
        return False
    age = wall - datetime.fromisoformat(document["fetched"]).timestamp()
    return not -86400 < age < MAX_AGE * 86400


def batches(ids: Iterable[str]) -> list[list[str]]:
    unique = list(dict.fromkeys(ids))
    return [unique[start : start + BATCH] for start in range(0, len(unique), BATCH)]
