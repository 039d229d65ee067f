"""Which papers.yaml is read, and how: as a checked `Catalog`.

The file is the reader's own text, so whatever is wrong with it becomes one `CatalogError` that names file,
line and the fix. `load_cached` keeps the parsed list as JSON: showing it needs no YAML parser.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import readtrack
from readtrack.home import Home, write_text
from readtrack.reading_list.catalog import Catalog, CatalogError, Note, Paper, Row, Section, Source
from readtrack.text import one_line

_PARSER_FILES = ("catalog.py", "papers_yaml.py", "yaml_tree.py")


def locate(home: Home) -> Path:
    """The list to use: the reader's own in `home`, else the one in this folder, else the one that ships."""
    here = Path("papers.yaml")
    if home.papers_yaml.exists():
        return home.papers_yaml
    if here.exists():
        return here.absolute()
    return shipped()


def shipped() -> Path:
    """The list that comes with readtrack: inside the package in a wheel, else the checkout's."""
    package = Path(readtrack.__file__).parent
    in_wheel = package / "papers.yaml"
    return in_wheel if in_wheel.exists() else package.parent / "papers.yaml"


def load(path: Path) -> Catalog:
    """Read and check the list. Raises CatalogError for the first thing that is wrong with it."""
    from readtrack.reading_list.papers_yaml import check
    from readtrack.reading_list.yaml_tree import Problem, read

    try:
        return check(path, read(path))
    except Problem as problem:
        where = f"{one_line(path.name)}:{problem.line}" if problem.line else one_line(str(path))
        raise CatalogError(f"{where}: {problem}") from None


def load_cached(path: Path, cache_dir: Path) -> Catalog:
    """`load`, through a copy in `cache_dir` that holds while the file's path, times and size are the same.

    A copy that is damaged, or made by other code, is made again; one that cannot be written is done without.
    Where there is no home folder yet, looking at a list makes none.
    """
    path = path.absolute()
    try:
        stamp = _stamp(path)
    except OSError:
        return load(path)  # which says what is the matter with it
    # The name only keeps several lists apart; the stamp inside decides.
    cache = cache_dir / f"catalog-{_checksum(str(path))}.json"
    with suppress(OSError, ValueError):
        head, checksum, body = cache.read_text(encoding="utf-8").split("\n", 2)
        if head == stamp and checksum == _checksum(body):
            return _from_json(path, json.loads(body))
    catalog = load(path)
    lists = [catalog.title, catalog.note, catalog.sections, list(catalog.papers.values())]
    body = json.dumps(lists, ensure_ascii=False, separators=(",", ":"))
    with suppress(OSError):
        cache_dir.mkdir(exist_ok=True)
        write_text(cache, f"{stamp}\n{_checksum(body)}\n{body}")
    return catalog


def _stamp(path: Path) -> str:
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    # While readtrack is worked on, its rules change and its version does not.
    code = [Path(__file__).with_name(name).stat().st_mtime_ns for name in _PARSER_FILES]
    return json.dumps([readtrack.__version__, *code, str(path), *times])


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
        id_, title, authors, year, sources, aliases, builds_on, *rest = fields
        of = tuple(Source(*source) for source in sources)
        return Paper(id_, title, tuple(authors), year, of, tuple(aliases), tuple(builds_on), *rest)

    title, note, sections, papers = body
    return Catalog(
        path,
        title,
        note,
        tuple(Section(name, prose, tuple(map(row, rows))) for name, prose, rows in sections),
        {fields[0]: paper(fields) for fields in papers},
    )
