"""The home folder: its location, and atomic replacement of its files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing, write_text


def test_the_home_is_set_by_the_environment(home, tmp_path, monkeypatch):
    assert home.root == tmp_path / "home"
    assert not home.root.exists(), "naming the files makes none"
    monkeypatch.setenv("READTRACK_HOME", "~/reading")
    assert Home().root == Path("~/reading").expanduser()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("READTRACK_HOME", "here")
    relative = Home()
    monkeypatch.chdir("/")
    assert relative.root == tmp_path / "here", "a later change of folder moves nothing"
    assert Home(tmp_path / "other").journal == tmp_path / "other" / "journal.jsonl"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_setting_the_home_is_the_platforms_data_folder(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if value is None:
        monkeypatch.delenv("READTRACK_HOME")
    else:
        monkeypatch.setenv("READTRACK_HOME", value)
    assert Home().root.is_relative_to(tmp_path)
    assert Home().root.name == "readtrack"


def test_folders_are_made_when_wanted(home):
    assert home.ensure() == home.root
    assert home.ensure(home.notes) == home.notes
    assert home.ensure(home.notes) == home.notes
    assert home.notes.is_dir()


def test_a_folder_that_cannot_be_made_is_one_line_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ReadtrackError, match=r"Could not make the folder .* Set READTRACK_HOME to a writable folder"
    ):
        Home(tmp_path / "file" / "home").ensure()


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "note.md"
    write_text(path, "first Ré\n")
    write_text(path, "second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o400])
def test_a_file_keeps_its_mode_from_the_first_byte_on(tmp_path, mode):
    path = tmp_path / "note.md"
    path.write_text("old")
    path.chmod(mode)
    with replacing(path) as part:
        part.write_text("new")
        extra = part.stat().st_mode & 0o777 & ~(mode | 0o200)
        assert extra == 0, "nobody may read the new one who could not read the old"
    assert path.stat().st_mode & 0o777 == mode
    write_text(path, "newer")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("newer", mode)


def test_a_new_file_has_the_mode_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "note.md", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "note.md").stat().st_mode & 0o777 == 0o640


def test_text_goes_through_a_link(tmp_path):
    (tmp_path / "vault").mkdir()
    target, path, dangling = tmp_path / "vault/x.md", tmp_path / "x.md", tmp_path / "y.md"
    target.write_text("old")
    path.symlink_to("vault/x.md")
    dangling.symlink_to("vault/y.md")
    write_text(path, "new")
    write_text(dangling, "first")
    assert (path.is_symlink(), target.read_text()) == (True, "new")
    assert (dangling.is_symlink(), (tmp_path / "vault/y.md").read_text()) == (True, "first")
    assert sorted(entry.name for entry in (tmp_path / "vault").iterdir()) == ["x.md", "y.md"]


def test_a_failure_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "note.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \udc80")

    def stop_halfway() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "note.md"
    texts = ["a" * 200_000, "b" * 300_000]
    write_text(path, texts[0])
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(1, 61):
        write_text(path, texts[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)


HOLDER = """
import time
from readtrack.home import Home
with Home().lock("sync"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_until_its_holder_is_gone_however_it_went(home):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with pytest.raises(Timeout), home.lock("sync", timeout=0.1):
            pytest.fail("two hold one lock")
        assert time.monotonic() - start < 5
        with home.lock("journal", timeout=0):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with home.lock("sync", timeout=5):
            assert (home.locks / "sync.lock").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert (home.locks / "sync.lock").exists(), "to delete it would let two in"
