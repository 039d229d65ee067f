"""Locate papers.yaml and load it as a validated `Catalog`.

The shipped papers are always known: they follow the list's own papers and fill in facts that the list omits.
The file is written by hand, so every mistake in it becomes a `CatalogError` with file, line and solution.
`load_cached` stores the parsed list as JSON, so that showing it does not need a YAML parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import readtrack
from readtrack.home import Home, write_text
from readtrack.reading_list.catalog import Catalog, CatalogError, Note, Paper, Row, Section, Source
from readtrack.text import one_line

_PARSER_FILES = ("catalog.py", "papers_yaml.py", "yaml_tree.py")


def locate(home: Home) -> Path:
    """The list in `home`, or else in the current folder, or else the shipped list."""
    here = Path("papers.yaml")
    if home.papers_yaml.exists():
        return home.papers_yaml
    if here.exists():
        return here.absolute()
    return shipped()


def shipped() -> Path:
    """The shipped list: inside the package in a wheel, else in the checkout."""
    package = Path(readtrack.__file__).parent
    in_wheel = package / "papers.yaml"
    return in_wheel if in_wheel.exists() else package.parent / "papers.yaml"


def load(path: Path, known: Mapping[str, Paper] | None = None) -> Catalog:
    """Read and check the list. Raises CatalogError for the first mistake.

    known  the shipped papers; loaded if not given
    """
    from readtrack.reading_list.papers_yaml import check
    from readtrack.reading_list.yaml_tree import Problem, read

    if known is None:
        known = {} if path == shipped() else _shipped_papers(_status(shipped()))
    try:
        return check(path, read(path), known)
    except Problem as problem:
        where = f"{one_line(path.name)}:{problem.line}" if problem.line else one_line(str(path))
        raise CatalogError(f"{where}: {problem}") from None


def load_cached(path: Path, cache_dir: Path) -> Catalog:
    """`load`, through a copy in `cache_dir` that is valid while the file's path, times and size are
    unchanged.

    A copy that is damaged, or made by other code, is rebuilt; a copy that cannot be written is skipped. Does
    not create a home folder.
    """
    path = path.absolute()
    try:
        stamp = _stamp(path)
    except OSError:
        return load(path)  # which reports the error
    # The name only tells the copies of several lists apart. The stamp inside decides whether a copy is valid.
    cache = cache_dir / f"catalog-{_checksum(str(path))}.json"
    with suppress(OSError, ValueError):
        head, checksum, body = cache.read_text(encoding="utf-8").split("\n", 2)
        if head == stamp and checksum == _checksum(body):
            return _from_json(path, json.loads(body))
    catalog = load(path, {} if path == shipped() else load_cached(shipped(), cache_dir).papers)
    lists = [catalog.title, catalog.note, catalog.sections, list(catalog.papers.values())]
    body = json.dumps(lists, ensure_ascii=False, separators=(",", ":"))
    with suppress(OSError):
        cache_dir.mkdir(exist_ok=True)
        write_text(cache, f"{stamp}\n{_checksum(body)}\n{body}")
    return catalog


@lru_cache(maxsize=1)
def _shipped_papers(status: tuple[int, ...]) -> Mapping[str, Paper]:
    """The shipped papers, read again only if the file's `status` changes."""
    return load(shipped()).papers


def _stamp(path: Path) -> str:
    # During development the rules change while the version does not.
    code = [Path(__file__).with_name(name).stat().st_mtime_ns for name in _PARSER_FILES]
    files = dict.fromkeys((path, shipped()))
    return json.dumps([readtrack.__version__, *code, *((str(one), *_status(one)) for one in files)])


def _status(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _checksum(text: str) -> str:
    from zlib import crc32

    return f"{crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def _from_json(path: Path, body: list[Any]) -> Catalog:
    def row(fields: list[Any]) -> Row | Note:
        if len(fields) == 1:
            return Note(*fields)
        text, done, papers, rows, key, line = fields
        return Row(text, done, tuple(papers), tuple(map(row, rows)), key, line)

    def paper(fields: list[Any]) -> Paper:
        id_, title, authors, year, sources, aliases, builds_on, *rest, missing = fields
        of = tuple(Source(*source) for source in sources)
        one = Paper(id_, title, tuple(authors), year, of, tuple(aliases), tuple(builds_on), *rest)
        return one._replace(missing=tuple(missing)) if missing else one

    title, note, sections, papers = body
    return Catalog(
        path,
        title,
        note,
        tuple(Section(name, prose, tuple(map(row, rows))) for name, prose, rows in sections),
        {fields[0]: paper(fields) for fields in papers},
    )
