"""The choice of the list, and the parsed copy that avoids parsing it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import readtrack
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list import load as loading
from readtrack.reading_list.catalog import Catalog, CatalogError, Row
from readtrack.reading_list.insert import without_ticks
from readtrack.reading_list.load import load, load_cached, locate
from readtrack.sync.add import add
from readtrack.transfer import importing
from tests.test_catalog import GOOD, replaced


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "papers.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_the_readers_own_list_comes_first(home: Home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = locate(home)
    assert shipped.parent in (Path(readtrack.__file__).parent, Path(readtrack.__file__).parent.parent)
    (tmp_path / "papers.yaml").touch()
    assert locate(home) == tmp_path / "papers.yaml"
    home.ensure()
    home.papers_yaml.touch()
    assert locate(home) == home.papers_yaml


# The copy


@pytest.fixture
def no_yaml(monkeypatch):
    """From now on, only the copy can be read."""

    def forbid() -> None:
        monkeypatch.setattr(loading, "load", lambda path: pytest.fail("the file was parsed again"))

    return forbid


def test_the_copy_matches_the_file(write, tmp_path, no_yaml):
    path, cache = write(GOOD), tmp_path / "cache"
    first = load_cached(path, cache)
    assert first == load(path)
    no_yaml()
    again = load_cached(path, cache)
    assert again == first
    assert again.rows_of("adam") == first.rows_of("adam")


def test_the_copy_needs_no_parser(write, tmp_path):
    path, cache = write(GOOD), tmp_path / "cache"
    load_cached(path, cache)
    code = (
        "import sys; from pathlib import Path; from readtrack.reading_list.load import load_cached\n"
        f"print(len(load_cached(Path({str(path)!r}), Path({str(cache)!r})).papers))\n"
        "print({'yaml', 'filelock', 'platformdirs', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(load(path).papers)}\nset()\n"


def test_a_changed_file_is_read_again(write, tmp_path):
    cache = tmp_path / "cache"
    load_cached(write(GOOD), cache)
    path = write(replaced("year: 2014", "year: 2015"))  # same size
    assert load_cached(path, cache).papers["adam"].year == 2015
    status = path.stat()
    write(replaced("year: 2014", "year: 2016"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same time, as in a restored backup
    assert load_cached(path, cache).papers["adam"].year == 2016


def test_two_lists_do_not_share_a_copy(write, tmp_path, no_yaml):
    path, cache = write(GOOD), tmp_path / "cache"
    other = tmp_path / "other.yaml"
    other.write_text("title: other\nchecklist: []\n")
    load_cached(path, cache)
    load_cached(other, cache)
    no_yaml()
    assert [load_cached(p, cache).title[:5] for p in (path, other)] == ["Self ", "other"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_copy_is_made_again(write, tmp_path, data):
    path, cache = write(GOOD), tmp_path / "cache"
    good = load_cached(path, cache)
    copy = data.draw(st.sampled_from(sorted(cache.iterdir())))  # of this list or the shipped one
    body = copy.read_bytes()
    start = data.draw(st.integers(0, len(body) - 1))
    damage = data.draw(st.binary(max_size=6))
    copy.write_bytes(body[:start] + damage + (b"" if data.draw(st.booleans()) else body[start + 1 :]))
    assert load_cached(path, cache) == good


def test_without_a_place_for_the_copy_the_list_is_still_read(write, tmp_path):
    (tmp_path / "file").touch()
    assert isinstance(load_cached(write(GOOD), tmp_path / "file" / "cache"), Catalog)


def test_a_wrong_file_is_refused_on_every_reading(write, tmp_path):
    path = write(replaced("year: 1951", "yaer: 1951"))
    for _ in range(2):
        with pytest.raises(CatalogError, match="did you mean 'year'"):
            load_cached(path, tmp_path / "cache")
    with pytest.raises(CatalogError, match="there is no such file"):
        load_cached(tmp_path / "nowhere.yaml", tmp_path / "cache")


def test_a_list_in_this_folder_is_not_the_readers_before_they_change_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "papers.yaml"
    text = "title: Theirs\nchecklist:\n  - section: Now\n    rows:\n      - text: one\n        done: true\n"
    theirs.write_text(text)
    library = Library.open(home)
    assert library.catalog.title == "Theirs"
    assert not library.is_readers
    assert library.state("row:one") == "todo"
    add(library, "gqa")
    library.reload()
    assert theirs.read_text() == text
    assert library.catalog.path == home.papers_yaml
    assert library.is_readers
    assert "gqa" in library.listed
    assert library.state("row:one") == "todo"


def test_an_import_next_to_a_list_in_this_folder_ignores_that_list(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers.yaml").write_text(
        "# theirs\n{title: Theirs, checklist: [{section: Now, rows: [{text: Mish, papers: [mish]}]}],"
        " papers: {mish: {title: Mish}}}\n"
    )
    (tmp_path / "mine.md").write_text("- [ ] Mish\n- [x] Adam\n")
    library = Library.open(home)
    assert "mish" in library.listed
    importing.apply(library, importing.plan(library, tmp_path / "mine.md"))
    assert list(library.listed) == ["adam"]
    assert "theirs" not in home.papers_yaml.read_text()
    assert library.state("adam") == "read"


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_copy_without_ticks_is_the_same_list_otherwise(write, bom: str) -> None:
    text = bom + (
        "title: T\r\nchecklist:\r\n- section: A\r\n  rows:\r\n"
        "  - text: 'done: true'\r\n    done: true\r\n    rows:\r\n"
        "      - done: true   # since May\r\n        text: inside\r\n      - {text: flow, done: True}\r\n"
        "      - text: |\r\n          done: true\r\n        done: false\r\n"
        "      - {done: 'true', text: quoted}\r\n"
    )
    bare = without_ticks(text)
    assert bare.count("\r\n") == text.count("\r\n") - 1
    before, after = (
        [(depth, item) for depth, item in load(write(one)).walk() if isinstance(item, Row)]
        for one in (text, bare)
    )
    assert [row.done for _, row in before] == [True, True, True, False, True]
    assert not any(row.done for _, row in after)
    assert [(depth, row.text) for depth, row in before] == [(depth, row.text) for depth, row in after]
