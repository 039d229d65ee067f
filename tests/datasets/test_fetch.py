"""Fetching from a local server that truncates, sends wrong data and stalls."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import pytest

from readtrack.datasets.catalogue import DataFile, DataSet, Format
from readtrack.datasets.store import UNPACKED, DataSets
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.datasets import fetch

CONTENT = bytes(range(256)) * 1200


class Quick(Clock):
    def sleep(self, seconds, cancel):
        if cancel.is_set():
            raise SyncCancelled


class Server(ThreadingHTTPServer):
    """Serves `content`. `cuts`: number of bytes after which the first responses end; `ranges`: the
    requested ranges.
    """

    def __init__(self, content=CONTENT, *, cuts=(), resumes=True, announced=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.resumes, self.announced = content, list(cuts), resumes, announced
        self.ranges = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.resumes else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(server.announced or len(body)))
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *args):
        """Do not log."""


@pytest.fixture
def serve(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    servers = []

    def start(*args, **options):
        server = Server(*args, **options)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def known(*urls, content=CONTENT, form="text", name="file.bin"):
    file = DataFile(name, len(content), hashlib.sha256(content).hexdigest(), urls)
    kind = {"lj speech": "speech", "safetensors": "weights"}.get(form, "text")
    return DataSet("toy", "Toy", kind, form, "MIT", "", (file,))


def test_a_data_set_is_fetched_whole_and_its_size_is_announced(serve, tmp_path):
    told = []
    stored = fetch(
        Home(tmp_path / "home"), known(serve().url), progress=lambda *said: told.append(said), clock=Quick()
    )
    assert (stored.origin, stored.size) == ("fetched", len(CONTENT))
    assert (told[0], told[-1]) == (("file.bin", 0, len(CONTENT)), ("file.bin", len(CONTENT), len(CONTENT)))
    assert list(DataSets(Home(tmp_path / "home")).problems("toy")) == []


def test_an_interrupted_download_is_resumed_where_it_stopped(serve, tmp_path):
    server = serve(cuts=[100_000, 50_000])
    fetch(Home(tmp_path), known(server.url), clock=Quick())
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "data/toy/file.bin").read_bytes() == CONTENT


def test_a_later_command_continues(serve, tmp_path):
    stopped = serve(cuts=[90_000] * 9)
    stopped.resumes = False
    with pytest.raises(NotAvailableError, match="run the command again"):
        fetch(Home(tmp_path), known(stopped.url), clock=Quick())
    assert DataSets(Home(tmp_path)).names() == []
    server = serve()
    fetch(Home(tmp_path), known(server.url), clock=Quick())
    assert server.ranges == ["bytes=90000-"]


def test_a_server_that_cannot_resume_sends_the_whole_file(serve, tmp_path):
    server = serve(cuts=[100_000], resumes=False)
    fetch(Home(tmp_path), known(server.url), clock=Quick())
    assert (tmp_path / "data/toy/file.bin").read_bytes() == CONTENT


def test_the_next_address_is_tried(serve, tmp_path):
    server = serve()
    fetch(Home(tmp_path), known("http://127.0.0.1:9/file.bin", server.url), clock=Quick())
    assert server.ranges == [None]


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT[:-1] + b"?"])
def test_a_wrong_checksum_is_refused_and_not_kept(serve, tmp_path, content):
    with pytest.raises(ReadtrackError, match="SHA-256"):
        fetch(Home(tmp_path), known(serve(content).url), clock=Quick())
    assert not (tmp_path / "data/.toy.part/file.bin").exists()
    assert DataSets(Home(tmp_path)).names() == []


def test_more_than_announced_in_the_catalogue_is_refused(serve, tmp_path):
    with pytest.raises(NotAvailableError, match="larger than allowed"):
        fetch(Home(tmp_path), known(serve(CONTENT + b"more").url), clock=Quick())
    assert DataSets(Home(tmp_path)).names() == []


@pytest.mark.parametrize("form", get_args(Format))
@pytest.mark.parametrize(
    ("served", "cuts", "why"),
    [
        (CONTENT, [50_000] * 9, "run the command again"),
        (CONTENT[:-1] + b"?", (), "SHA-256"),
        (CONTENT + b"more", (), "larger than allowed"),
        (CONTENT, (), ""),
    ],
    ids=["cut", "changed", "too large", "not the format"],
)
def test_no_format_is_there_before_it_is_whole_and_checked(serve, tmp_path, form, served, cuts, why):
    about = known(serve(served, cuts=cuts, resumes=False).url, form=form)
    if not why and form not in ("safetensors", *UNPACKED):
        fetch(Home(tmp_path), about, clock=Quick())  # opened when it is read (`test_read`)
        return
    with pytest.raises((ReadtrackError, NotAvailableError), match=why or "unpacked|not a safetensors"):
        fetch(Home(tmp_path), about, clock=Quick())
    assert DataSets(Home(tmp_path)).names() == []
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".toy.part"]


def test_cancelling_keeps_downloaded_files(serve, tmp_path):
    cancel = threading.Event()

    def stop(file, here, size):
        if here > 100_000:
            cancel.set()

    with pytest.raises(SyncCancelled):
        fetch(Home(tmp_path), known(serve().url), progress=stop, cancel=cancel, clock=Quick())
    assert 100_000 < (tmp_path / "data/.toy.part/file.bin").stat().st_size <= len(CONTENT)
    assert DataSets(Home(tmp_path)).names() == []


def test_an_archive_of_sounds_is_unpacked(serve, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:bz2") as tar:
        info = tarfile.TarInfo("LJ/wavs/1.wav")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"RIFF"))
    about = known(serve(packed.getvalue()).url, content=packed.getvalue(), form="lj speech")
    stored = fetch(Home(tmp_path), about, clock=Quick())
    assert list(stored.files) == ["LJ/wavs/1.wav"]
    assert sorted(path.name for path in (tmp_path / "data/toy").iterdir()) == ["LJ", "data.json"]
    assert list(DataSets(Home(tmp_path)).problems("toy")) == []


def hostile(name, kind=tarfile.REGTYPE):
    """An archive with a sound and a member outside of the folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, its_kind in (("yes/1.wav", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(path)
            info.type, info.linkname = its_kind, "/etc/passwd" if its_kind != tarfile.REGTYPE else ""
            info.size = 0 if info.linkname else 4
            tar.addfile(info, io.BytesIO(b"RIFF"))
    return packed.getvalue()


@pytest.mark.parametrize("form", UNPACKED)
@pytest.mark.parametrize("way", ["get", "add"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../../out.wav", tarfile.REGTYPE),
        ("yes/../../out.wav", tarfile.REGTYPE),
        ("/tmp/readtrack-out.wav", tarfile.REGTYPE),
        ("yes/link.wav", tarfile.SYMTYPE),
        ("yes/link.wav", tarfile.LNKTYPE),
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(serve, tmp_path, form, way, name, kind):
    content, home = hostile(name, kind), Home(tmp_path / "home")
    about = known(serve(content).url, content=content, form=form)
    (tmp_path / "file.bin").write_bytes(content)
    ways = {
        "get": lambda: fetch(home, about, clock=Quick()),
        "add": lambda: DataSets(home).add_known(about, tmp_path),
    }
    with pytest.raises(ReadtrackError, match=r"leads out of its folder|not a regular file"):
        ways[way]()
    assert DataSets(home).names() == []
    assert not list(tmp_path.rglob("out.wav"))
    assert not list(tmp_path.rglob("link.wav"))
    assert not Path("/tmp/readtrack-out.wav").exists()


@pytest.mark.parametrize("form", UNPACKED)
def test_an_archive_that_unpacks_to_too_much_is_refused(serve, tmp_path, form):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("yes/1.wav")
        info.size = 1_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    content = packed.getvalue()
    assert len(content) < 10_000
    with pytest.raises(ReadtrackError, match="unpacks to more than"):
        fetch(Home(tmp_path), known(serve(content).url, content=content, form=form), clock=Quick())
    assert DataSets(Home(tmp_path)).names() == []
    assert not list(tmp_path.rglob("*.wav"))


def test_added_archives_of_sounds_are_unpacked_as_fetched_ones_are(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("yes/1.wav")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"RIFF"))
    (tmp_path / "file.bin").write_bytes(packed.getvalue())
    store = DataSets(Home(tmp_path / "home"))
    about = known("http://nowhere.invalid/", content=packed.getvalue(), form="lj speech")
    assert list(store.add_known(about, tmp_path).files) == ["yes/1.wav"]
    assert list(store.problems("toy")) == []


def safetensors(offsets=(0, 16), length=None):
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": offsets}}).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(16)


def fetch_weights(server, content, home):
    return fetch(home, known(server.url, content=content, form="safetensors"), clock=Quick())


def test_weights_are_fetched_and_checked(serve, tmp_path):
    content = safetensors()
    stored = fetch_weights(serve(content), content, Home(tmp_path))
    assert (stored.kind, stored.format, stored.size) == ("weights", "safetensors", len(content))


def test_cut_weights_are_not_there_and_are_resumed(serve, tmp_path):
    content = safetensors()
    with pytest.raises(NotAvailableError, match="run the command again"):
        fetch_weights(serve(content, cuts=[40] * 9, resumes=False), content, Home(tmp_path))
    assert DataSets(Home(tmp_path)).names() == []
    fetch_weights(serve(content), content, Home(tmp_path))
    assert DataSets(Home(tmp_path)).names() == ["toy"]


@pytest.mark.parametrize(
    ("content", "served", "why"),
    [
        (safetensors(), safetensors()[:-1] + b"x", "SHA-256"),
        (pickle.dumps({"w": [1.0] * 100}), None, "not a safetensors file"),
        (safetensors((0, 20)), None, "20 bytes, but 16 bytes follow"),
        (safetensors((4, 16)), None, "gaps"),
        (safetensors(length=2**62), None, "an impossible length"),
        (b"[]" + bytes(30), None, "not a safetensors file"),
        (b"", None, "not a safetensors file"),
    ],
)
def test_a_file_that_is_not_safetensors_is_refused(serve, tmp_path, content, served, why):
    with pytest.raises(ReadtrackError, match=why):
        fetch_weights(serve(served or content), content, Home(tmp_path))
    store = DataSets(Home(tmp_path))
    assert store.names() == []
    assert not list(store.folder.glob("*/file.bin"))
