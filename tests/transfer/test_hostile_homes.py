"""Merging other people's homes: nothing outside is read, written or run, and nothing hangs."""

from __future__ import annotations

import base64
import json
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.cli import app
from readtrack.home import Home
from readtrack.runs.job import ELSEWHERE, new_job
from readtrack.runs.store import write_end_event
from readtrack.transfer import exporting, foreign

SECRET = "canary-7f3a"


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path / "other")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the reader outside of every home."""
    file = tmp_path / "outside" / "key"
    file.parent.mkdir()
    file.write_text(SECRET)
    return file


def put(home: Home, name: str, content: bytes | str = b"x") -> Path:
    path = home.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def run_of(home: Home, run: str, *, ended: bool = True, events: bytes = b"") -> Path:
    folder = home.runs / run
    folder.mkdir(parents=True)
    new_job("bert").write(folder)
    (folder / "events.jsonl").write_bytes(events)
    if ended:
        write_end_event(folder, "completed", "")
    return folder


def merge(other: Home, *options: str) -> int:
    return app.run(["merge", str(other.root), *options])


def everything(root: Path) -> bytes:
    return b"\n".join(p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink())


def test_the_place_of_a_run_elsewhere_is_not_merged(home: Home, other: Home) -> None:
    folder = run_of(other, "r1")
    for name in (ELSEWHERE, "detached", "follow.lock", "code.tar", "scratch/x", "note.md"):
        put(other, f"runs/r1/{name}", "{}")
    assert merge(other) == 0
    assert folder.exists()
    assert {path.name for path in (home.runs / "r1").iterdir()} == {
        "job.json",
        "events.jsonl",
        "result.json",
        "note.md",
    }


@pytest.mark.parametrize("name", ["runs/r1/events.jsonl", "runs/r1/artifacts/x.png", "notes/bert.md"])
def test_a_link_is_named_and_not_followed(
    home: Home, other: Home, secret: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run_of(other, "r1")
    put(other, "notes/gpt.md", "mine")
    (other.root / name).unlink(missing_ok=True)
    (other.root / name).parent.mkdir(parents=True, exist_ok=True)
    (other.root / name).symlink_to(secret)
    (other.root / "pdfs").symlink_to(secret.parent)
    assert merge(other) == 0
    said = capsys.readouterr().out
    assert f"{name}: a link" in said
    assert "pdfs: a link" in said
    assert not [path for path in home.root.rglob("*") if path.is_symlink()]
    assert SECRET.encode() not in everything(home.root)


def test_pipes_and_devices_do_not_block(home: Home, other: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("journal.jsonl", "notes/bert.md", "metadata/bert.json", "papers.yaml"):
        (other.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(other.root / name)
    began = time.monotonic()
    assert merge(other) == 0
    assert time.monotonic() - began < 5
    assert capsys.readouterr().out.count("not a regular file") == 4


def test_large_files_are_named_and_left(
    home: Home, other: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(other, "notes/bert.md", b"long" * 100)
    put(other, "notes/gpt.md", b"short")
    monkeypatch.setitem(foreign._LARGEST, "notes", 100)
    assert merge(other) == 0
    assert "notes/bert.md: larger than" in capsys.readouterr().out
    assert not (home.notes / "bert.md").exists()
    monkeypatch.setattr(foreign, "_MOST", 1)
    assert merge(other) == 2


def test_programs_are_imported_only_on_request_and_are_listed_first(
    home: Home, other: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(45):
        put(other, f"notes/n{number}.md", f"note {number}")
    put(other, "plugins/layernorm.py", "raise SystemExit")
    put(other, "plugins/deep/__init__.py", "raise SystemExit")
    put(other, "places.yaml", "big: {kind: ssh, host: evil}")
    assert merge(other) == 0
    said = capsys.readouterr().out
    for name in ("plugins/layernorm.py", "plugins/deep/__init__.py", "places.yaml"):
        assert f"left out: file {name}: it names programs to run" in said
    assert not home.plugins.exists()
    assert merge(other, "--plugins") == 2  # nobody can confirm it
    said = capsys.readouterr().out
    assert said.startswith("program places.yaml: new\nprogram plugins/deep/__init__.py: new\nprogram")
    assert not home.plugins.exists()
    assert merge(other, "--plugins", "--yes") == 0
    assert (home.plugins / "deep" / "__init__.py").exists()


def test_the_same_holds_for_an_export(home: Home, tmp_path: Path) -> None:
    files = {
        "plugins/layernorm.py": "raise SystemExit",
        "runs/r1/place.json": "{}",
        "notes/bert.md": "a note",
        "cache/x": "y",
        ".hidden": "z",
    }
    export = tmp_path / "x.json"
    export.write_text(json.dumps({"format": exporting.FORMAT, "version": 1, "files": files}))
    assert app.run(["import", str(export), "-y"]) == 0
    assert (home.notes / "bert.md").read_text() == "a note"
    assert not home.plugins.exists()
    assert not home.runs.exists()
    assert app.run(["import", str(export), "-y", "--plugins"]) == 0
    assert (home.plugins / "layernorm.py").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"notes/\ud800.md": "x"},
        {"notes/bert.md": "\ud800"},
        {"notes/bert.md": {"base64": "\u00e4"}},
        {"notes/bert.md": {"base64": 5}},
        {"notes/bert.md": [1]},
        {"notes/" + "x" * 300 + ".md": "x"},
    ],
)
def test_a_damaged_export_is_refused_in_words(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, object]
) -> None:
    export = tmp_path / "x.json"
    export.write_text(json.dumps({"format": exporting.FORMAT, "version": 1, "files": files}))
    assert app.run(["import", str(export), "-y"]) in (0, 2)
    assert "bug" not in capsys.readouterr().err


@pytest.mark.parametrize("there", ["metadata/bert.json", "runs/r0/job.json", "pdfs/.bert.pdf.part"])
def test_an_export_is_restored_into_a_home_that_has_little(home: Home, tmp_path: Path, there: str) -> None:
    put(home, there, "{}")
    export = tmp_path / "x.json"
    export.write_text(
        json.dumps({"format": exporting.FORMAT, "version": 1, "files": {"notes/bert.md": "a note"}})
    )
    assert app.run(["import", str(export), "-y"]) == 0
    assert (home.notes / "bert.md").read_text() == "a note"


def test_an_export_follows_no_links_and_names_files_that_are_too_large(
    home: Home,
    tmp_path: Path,
    secret: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(home, "notes/bert.md", "mine")
    folder = run_of(home, "r1")
    put(home, "runs/r1/artifacts/large.bin", b"\xff" * 5000)
    (folder / "artifacts" / "x").symlink_to(secret)
    monkeypatch.setattr(exporting, "_LARGEST_FILE", 4000)
    target = tmp_path / "all.json"
    assert app.run(["export", "--format", "json", "-o", str(target)]) == 0
    assert "runs/r1/artifacts/large.bin" in capsys.readouterr().err
    files = json.loads(target.read_text())["files"]
    assert files["notes/bert.md"] == "mine"
    assert "runs/r1/artifacts/x" not in files
    for encoded in (SECRET, base64.b64encode(SECRET.encode()).decode()):
        assert encoded not in target.read_text()


def test_bytes_and_line_ends_of_notes_and_lists_survive(home: Home, other: Home) -> None:
    put(home, "notes/bert.md", b"caf\xe9 here\r\n")
    put(other, "notes/bert.md", b"th\xe8re\r\nmore\r\n")
    put(other, "notes/gpt.md", b"\xff\xfe\r\n")
    put(other, "papers.yaml", b"sections:\r\n  - title: Mine\r\n    rows: []\r\n")
    assert merge(other) == 1
    united = (home.notes / "bert.md").read_bytes()
    assert b"caf\xe9 here" in united
    assert b"th\xe8re\r\nmore" in united
    assert (home.notes / "gpt.md").read_bytes() == b"\xff\xfe\r\n"
    assert home.papers_yaml.read_bytes() == (other.root / "papers.yaml").read_bytes()
    merge(other)
    assert (home.notes / "bert.md").read_bytes() == united


def test_a_run_comes_over_when_it_has_ended_and_replaces_its_own_beginning(
    home: Home, other: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    event = b'{"v":1,"seq":0,"t":0.0,"event":"log","text":"a"}\n'
    run_of(other, "r1", ended=False, events=event)
    assert merge(other) == 0
    assert "r1: it is unfinished there" in capsys.readouterr().out
    assert not (home.runs / "r1").exists()
    run_of(home, "r1", ended=False, events=event)  # as merged by an older readtrack
    (home.runs / "r1" / "note.md").write_text("mine")
    write_end_event(other.runs / "r1", "completed", "")
    assert merge(other) == 0
    assert (home.runs / "r1" / "events.jsonl").read_bytes() == (
        other.runs / "r1" / "events.jsonl"
    ).read_bytes()
    assert (home.runs / "r1" / "note.md").read_text() == "mine"
    capsys.readouterr()
    assert merge(other) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert not [path for path in home.runs.iterdir() if path.name.startswith(".")]


def test_a_broken_list_does_not_keep_the_rest_away(
    home: Home, other: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    put(home, "papers.yaml", "sections: []\n")
    put(other, "papers.yaml", "[" * 3000)
    put(other, "notes/bert.md", "a note")
    assert merge(other) == 1
    assert "was left out because it cannot be read" in capsys.readouterr().out
    assert (home.notes / "bert.md").exists()


# Random homes

_NAMES = (
    "papers.yaml", "journal.jsonl", "note-template.md", "places.yaml", "notes/bert.md", "notes/adam.md",
    "notes/\x1b[31mred.md", "notes/ä.md", "notes/" + "n" * 200 + ".md", "metadata/bert.json", "pdfs/bert.pdf",
    "pdfs/bert.json", "imported/list.md", "imported/list.bib", "plugins/bert.py", "plugins/x/__init__.py",
    "runs/r1/job.json", "runs/r1/events.jsonl", "runs/r1/result.json", "runs/r1/log.txt", "runs/r1/note.md",
    "runs/r1/place.json", "runs/r1/artifacts/a.png", "runs/r1/edits.json", "runs/e/job.json",
    "runs/e/events.jsonl", "runs/\u202er/job.json", "set-aside/journal.jsonl", "cache/search.sqlite",
    "locks/x",
)  # fmt: skip


def _contents(rng: random.Random) -> bytes:
    job = json.dumps(
        {"run_id": "r1", "paper": rng.choice(["bert", "../x", "\x1b]0;t\x07", 5]), "seed": 10**30}
    )
    hello = {"v": 1, "seq": 0, "t": 0.0, "event": "hello", "paper": "bert", "pid": rng.choice([1, -1, 2**70])}
    end = {"v": 1, "seq": 1, "t": rng.choice([1.0, "x", None]), "event": "end", "outcome": "completed"}
    entry = {"at": rng.choice(["2199-12-31T23:59:59", "x", 5]), "paper": "bert", "state": "read"}
    result = {"outcome": "completed", "claims": [["a", "held", "b"]], "seed": 1, "duration": 1e400}
    return rng.choice(
        [
            b"",
            b"\x00" * 50,
            b"\xff\xfe" + "text".encode("utf-16-le"),
            b"caf\xe9\r\n",
            b"[" * 20_000,
            b'{"a":' * 5_000,
            b"9" * 5_000,
            b"- {a: &a [*a]}\n" * 50,
            b"sections: [{title: A, rows: [x, {text: y, papers: [bert]}]}]\n",
            b"@article{x, title={" + b"{" * 3000 + b"}}",
            job.encode(),
            "\n".join(map(json.dumps, (hello, end))).encode() + b"\n",
            "\n".join([json.dumps(entry)] * 3).encode(),
            json.dumps(result).encode(),
            json.dumps(
                {"place": {"name": "x", "kind": "slurm", "python": "touch"}, "submitted": True}
            ).encode(),
        ]
    )


def _odd_home(rng: random.Random, root: Path, outside: Path) -> None:
    for name in rng.sample(_NAMES, rng.randint(1, 9)):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue  # a file with this name was created before
        kind = rng.random()
        if path.is_symlink() or path.exists():
            continue
        if kind < 0.12:
            path.symlink_to(rng.choice([outside / "key", outside, root, Path("/dev/zero"), Path("nowhere")]))
        elif kind < 0.18:
            os.mkfifo(path)
        elif kind < 0.22 and os.getuid() == 0:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
        elif kind < 0.26:
            path.mkdir()
        else:
            path.write_bytes(_contents(rng))


def _as_export(root: Path, target: Path) -> None:
    files: dict[str, object] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            files[path.relative_to(root).as_posix()] = {
                "base64": base64.b64encode(path.read_bytes()).decode()
            }
    target.write_text(json.dumps({"format": exporting.FORMAT, "version": 1, "files": files}))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_homes_of_odd_files(
    seed: int,
    tmp_path: Path,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    snapshot: Callable[[Path], dict[str, bytes]],
) -> None:
    """Fifty homes each are merged or imported, then displayed by the commands that read a home."""
    before = snapshot(secret.parent)
    for number in range(50):
        rng = random.Random(seed * 1000 + number)
        root, mine = tmp_path / f"other{number}", Home(tmp_path / f"home{number}")
        root.mkdir()
        _odd_home(rng, root, secret.parent)
        monkeypatch.setenv("READTRACK_HOME", str(mine.root))
        command = ["merge", str(root)]
        if rng.random() < 0.3:
            export = tmp_path / f"{number}.json"
            _as_export(root, export)
            command = ["import", str(export), "--yes"]
        after = rng.sample([["results"], ["show", "bert"], ["list"], ["results", "bert"]], 2)
        for words in (command, command, *after):
            began = time.monotonic()
            assert app.run(words) in (0, 1, 2, 3), (seed, number, words)
            took = time.monotonic() - began
            said = capsys.readouterr()
            assert took < 10, (seed, number, words)
            assert "bug" not in said.err, (seed, number, words, said.err)
            assert "\x1b" not in said.out + said.err
        kept = everything(mine.root) if mine.root.exists() else b""
        assert SECRET.encode() not in kept
        assert not (mine.root / "plugins").exists()
        assert not [path for path in mine.root.rglob("*") if path.is_symlink() or path.name == ELSEWHERE]
    assert snapshot(secret.parent) == before


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
