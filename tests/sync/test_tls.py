"""TLS, also with the proxy of a company, with a certificate created for the test."""

from __future__ import annotations

import shlex
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import Server

from readtrack.home import Home

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = shlex.split("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext")
    subprocess.run(
        [*command, "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def secure(server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """arXiv behind https, at the addresses in the environment variables."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    base = server.base.replace("http:", "https:")
    monkeypatch.setenv("READTRACK_ARXIV_API", f"{base}/api/query")
    monkeypatch.setenv("READTRACK_ARXIV_PDF", f"{base}/pdf")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_an_untrusted_certificate(secure: Server, papers: Any, sync: Any) -> None:
    papers({"one": '- arxiv: "2001.00001"'})
    summary = sync()
    assert secure.requests == []
    assert secure.accepted == 1  # not retried
    assert summary.exit_code == 1
    assert "cannot be trusted" in summary.reasons["one"]
    assert "self-signed certificate" in summary.reasons["one"]
    assert "set REQUESTS_CA_BUNDLE to the file with its certificates" in summary.reasons["one"]


def test_a_bundle_from_the_environment(
    secure: Server, certificate: Path, papers: Any, sync: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    papers({"one": '- arxiv: "2001.00001"'})
    assert sync().headline == "one: done."
    assert (home.pdfs / "one.pdf").read_bytes() == secure.pdf("2001.00001v1")
    assert secure.accepted == 1  # one connection for both requests
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    assert "cannot be trusted" in sync(refresh=True).reasons["one"]


def test_a_redirect_from_https_to_http_is_not_followed(
    secure: Server,
    elsewhere: Server,
    certificate: Path,
    papers: Any,
    sync: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    secure.fail("00001v1", loopback.redirect(f"{elsewhere.base}/pdf/2001.00001v1"))
    papers({"one": '- arxiv: "2001.00001"'})
    assert "redirects from https to http, which is not followed" in sync().reasons["one"]
    assert elsewhere.requests == []
