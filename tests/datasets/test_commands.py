"""`readtrack data`, and `--data` on runs, through the installed command."""

from __future__ import annotations

import json
import zipfile

import pytest

from readtrack.cli.app import run
from readtrack.datasets.catalogue import catalogue
from readtrack.datasets.store import DataSets
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.runs import settings


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    return Home()


def test_from_a_text_to_its_removal(capsys, tmp_path):
    (tmp_path / "book.txt").write_text("It was a dark and stormy night.")
    assert run(["data", "add", "book", "--from", str(tmp_path / "book.txt")]) == 0
    assert "book is here: text, 1 file, 31 B." in capsys.readouterr().out
    assert run(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["book"]["here"], rows["mnist"]["here"]) == (True, False)
    assert run(["data", "verify"]) == 0
    (tmp_path / "home/data/book/text.txt").write_text("It was a bright and sunny night")
    assert run(["data", "verify", "book"]) == 1
    assert "✗ book: text.txt has changed" in capsys.readouterr().out
    assert run(["data", "remove", "book"]) == 0
    assert run(["data", "verify"]) == 3
    assert (tmp_path / "book.txt").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "nothing"], 2, "no known data set"),
        (["add", "mnist", "--from", "/nowhere"], 2, "there is no /nowhere"),
        (["remove", "mnist"], 3, "readtrack data get mnist"),
        (["verify", "../runs"], 2, "cannot be the name"),
    ],
)
def test_mistakes_are_named(capsys, words, code, said):
    assert run(["data", *words]) == code
    assert said in capsys.readouterr().err


def test_an_archive_is_not_taken_for_a_text(capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../out.txt", "x" * 100)
    assert run(["data", "add", "mine", "--from", str(tmp_path / "a.zip")]) == 2
    assert "is not a text. If it is an archive, unpack it first" in capsys.readouterr().err
    assert not (tmp_path / "home/data/mine").exists()


def test_data_is_a_setting_of_its_kind(home, tmp_path):
    (tmp_path / "book.txt").write_text("x")
    DataSets(home).add_own("book", tmp_path / "book.txt", None)
    assert settings.of_data(home, "book") == {"text": "book"}
    assert settings.of_data(home, "digits") == {"images": "digits"}
    assert settings.of_data(home, "") == {}


def test_a_paper_that_takes_no_data_refuses_data(capsys):
    assert run(["run", "newton", "--data", "digits", "--budget", "smoke"]) == 2
    assert "newton takes no images" in capsys.readouterr().err
    assert run(["run", "whisper", "--data", "digits", "--budget", "smoke"]) == 2
    assert "whisper takes no images from a data set. It takes speech" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt2@0000", "no checksum of revision '0000'"),
        ("mnist", "readtrack data get mnist"),
        ("gpt9", "no known data set 'gpt9'"),
    ],
)
def test_only_weights_with_a_checksum_are_fetched(home, capsys, name, why):
    assert run(["weights", "get", name]) == 2
    assert why in capsys.readouterr().err


def test_added_weights_are_checked(home, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ReadtrackError, match="is not gpt2's file"):
        DataSets(home).add_known(catalogue()["gpt2"], tmp_path)
    assert DataSets(home).names() == []
