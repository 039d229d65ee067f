"""Untrusted archives: paths outside the folder, special files and excessive sizes are refused."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from readtrack.datasets.unpack import unpack
from readtrack.errors import ReadtrackError


def archive(tmp_path, *members, mode="w:gz"):
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
def test_regular_files_are_unpacked(tmp_path, mode):
    path = archive(
        tmp_path,
        ("a", b"", tarfile.DIRTYPE),
        ("a/1.wav", b"one", tarfile.REGTYPE),
        ("./b.txt", b"two", tarfile.REGTYPE),
        mode=mode,
    )
    files = unpack(path, tmp_path / "out", limit=100, most=10)
    assert {name: size for name, (size, _) in files.items()} == {"a/1.wav": 3, "b.txt": 3}
    assert (tmp_path / "out/a/1.wav").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (("../out.txt", b"x", tarfile.REGTYPE), "leads out"),
        (("/tmp/readtrack-out.txt", b"x", tarfile.REGTYPE), "leads out"),
        (("a/../../out.txt", b"x", tarfile.REGTYPE), "leads out"),
        (("link", b"", tarfile.SYMTYPE), "not a regular file"),
        (("link", b"", tarfile.LNKTYPE), "not a regular file"),
        (("pipe", b"", tarfile.FIFOTYPE), "not a regular file"),
        (("device", b"", tarfile.CHRTYPE), "not a regular file"),
        (("large", b"x" * 101, tarfile.REGTYPE), "more than 100"),
        (("same", b"x", tarfile.REGTYPE), "could not be unpacked"),
    ],
)
def test_hostile_members_are_refused(tmp_path, member, problem):
    (tmp_path / "out").mkdir()
    path = archive(tmp_path, ("same", b"x", tarfile.REGTYPE), member)
    with pytest.raises(ReadtrackError, match=problem):
        unpack(path, tmp_path / "out", limit=100, most=10)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.tar", "out"]


def test_too_many_files_and_cut_archives_are_refused(tmp_path):
    many = archive(tmp_path, *((f"{i}", b"", tarfile.REGTYPE) for i in range(4)))
    with pytest.raises(ReadtrackError, match="more than 3 files"):
        unpack(many, tmp_path / "out", limit=100, most=3)
    many = archive(tmp_path, ("long", os.urandom(50_000), tarfile.REGTYPE))
    many.write_bytes(many.read_bytes()[:-20_000])
    with pytest.raises(ReadtrackError, match="could not be unpacked"):
        unpack(many, tmp_path / "cut", limit=60_000, most=10)
