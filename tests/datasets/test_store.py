"""Data sets in the home: complete or absent, verified, and only regular files of their own folder."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import pytest

from readtrack.datasets import store as stores
from readtrack.datasets.catalogue import SHIPPED, DataFile, DataSet, catalogue
from readtrack.datasets.store import DataSets
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home


@pytest.fixture
def store(tmp_path):
    return DataSets(Home(tmp_path / "home"))


def one_file(content, *, name="toy", packed=b""):
    file = DataFile(
        "a.gz",
        len(packed or content),
        hashlib.sha256(packed or content).hexdigest(),
        ("http://nowhere.invalid/a.gz",),
        hashlib.sha256(content).hexdigest() if packed else "",
    )
    return DataSet(name, "Toy", "text", "text", "MIT", "", (file,))


def test_the_catalogue_is_complete():
    for name, known in catalogue().items():
        assert stores.checked_name(name) == name
        assert known.title
        assert known.licence
        assert known.revision if known.kind == "weights" else known.split
        assert known.size > 0
        for file in known.files:
            assert len(file.sha256) == 64
            assert all(
                url.startswith(("https://", "http://")) and url.endswith(file.name) for url in file.urls
            )
    assert [known.kind for known in catalogue().values()].count("images") == 3


def test_shipped_names_match_the_sources():
    from readtrack.data import sources

    assert dict.fromkeys(sources.IMAGES, "images") | dict.fromkeys(sources.TEXTS, "text") == SHIPPED


def test_a_known_data_set_is_added_from_a_folder_and_removed(store, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"content")
    stored = store.add_known(one_file(b"content"), tmp_path)
    assert (store.names(), stored.size, list(store.problems("toy"))) == (["toy"], 7, [])
    assert store.find("toy") == stored
    with pytest.raises(ReadtrackError, match="here already"):
        store.add_known(one_file(b"content"), tmp_path)
    assert store.remove("toy") == 7
    assert (store.names(), (tmp_path / "a.gz").exists()) == ([], True)
    with pytest.raises(NotAvailableError, match="not here"):
        store.find("toy")


def test_a_changed_file_is_refused_and_not_published(store, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"anything")
    with pytest.raises(ReadtrackError, match="SHA-256"):
        store.add_known(one_file(b"content"), tmp_path)
    assert store.names() == []


def test_a_file_that_was_packed_again_is_the_same(store, tmp_path):
    known = one_file(b"content" * 99, packed=gzip.compress(b"content" * 99, mtime=1))
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"content" * 99, mtime=2))
    assert store.add_known(known, tmp_path).files["a.gz"][1] != known.files[0].sha256
    assert list(store.problems("toy")) == []


def test_changed_and_missing_files_are_named(store, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"content")
    store.add_known(one_file(b"content"), tmp_path)
    path = store.path("toy") / "a.gz"
    path.write_bytes(b"CONTENT")
    assert list(store.problems("toy")) == ["a.gz has changed"]
    path.write_bytes(b"more content")
    assert list(store.problems("toy")) == ["a.gz has 12 bytes instead of 7"]
    path.unlink()
    assert list(store.problems("toy")) == ["a.gz: No such file or directory"]


def test_the_readers_text_pictures_and_sounds(store, tmp_path):
    (tmp_path / "book.txt").write_text("once upon a time")
    assert store.add_own("book", tmp_path / "book.txt", None).kind == "text"
    for name in ("cats/1.png", "cats/2.PNG", "dogs/1.png", ".hidden/3.png", "notes.txt", "dogs/woof.wav"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(b"x")
    (tmp_path / "pets/cats/link.png").symlink_to(tmp_path / "book.txt")
    os.mkfifo(tmp_path / "pets/cats/pipe.png")
    pets = store.add_own("pets", tmp_path / "pets", None)
    assert (pets.kind, list(pets.files)) == ("images", ["cats/1.png", "cats/2.PNG", "dogs/1.png"])
    assert store.add_own("barks", tmp_path / "pets", "speech").files.keys() == {"dogs/woof.wav"}
    with pytest.raises(ReadtrackError, match="no pictures"):
        store.add_own("none", tmp_path / "pets" / ".hidden", "speech")
    with pytest.raises(ReadtrackError, match="is text, not images"):
        store.add_own("other", tmp_path / "book.txt", "images")


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a" * 60, ".x"])
def test_names_cannot_leave_the_folder(store, tmp_path, name):
    (tmp_path / "book.txt").write_text("x")
    with pytest.raises(ReadtrackError, match="cannot be the name"):
        store.add_own(name, tmp_path / "book.txt", None)


def test_a_known_name_is_kept_for_the_known_data(store, tmp_path):
    (tmp_path / "book.txt").write_text("x")
    with pytest.raises(ReadtrackError, match="known data set"):
        store.add_own("mnist", tmp_path / "book.txt", None)


@pytest.mark.parametrize(
    "about",
    [
        "[]",
        "{",
        '{"files": {"../../etc/passwd": [1, "x"]}}',
        '{"files": {"/etc/passwd": [1, "x"]}}',
        '{"name": "toy", "kind": "music", "format": "text", "origin": "", "at": "", "files": {}}',
        '{"name": "..", "kind": "text", "format": "text", "origin": "", "at": "", "files": {}}',
    ],
)
def test_a_record_from_elsewhere_is_checked(store, about):
    store.path("toy").mkdir(parents=True)
    if "files" in about and "name" not in about:
        about = json.dumps(
            {"name": "toy", "kind": "text", "format": "text", "origin": "", "at": ""} | json.loads(about)
        )
    (store.path("toy") / "data.json").write_text(about)
    with pytest.raises(ReadtrackError, match=r"cannot be read|cannot be the name"):
        store.find("toy")
