"""Six attacks on a page: links, encodings, attributes, disguised files, paths, and cards."""

from __future__ import annotations

import io
import json
import os
import shlex
import struct
import wave
from pathlib import Path
from typing import Any

import pytest
from pageread import Page, claim, run
from PIL import Image

from readtrack.home import Home
from readtrack.library import Library
from readtrack.report.card import Card, of_library, read
from readtrack.report.gather import of_reader
from readtrack.report.markdown import html
from readtrack.report.pages import write_card
from readtrack.report.site import Site, build

HANDLER = '" onload="pwned()" x="'


def reader(home: Home) -> Site:
    home.ensure()
    return build(of_reader(Library.open(home), private=True), ("adam",))


def adam(home: Home) -> Page:
    return Page(reader(home).files["papers/adam.html"].decode())


def attributes(page: Page) -> set[str]:
    return {name for _, named in page.tags for name in named}


# 1. Links in a note that run scripts, in various spellings


@pytest.mark.parametrize(
    "address",
    [
        "javascript:pwned()", "JaVaScRiPt:pwned()", "java&#115;cript:pwned()", "javascript&colon;pwned()",
        "&#x6A;avascript:pwned()", "java\\\tscript:pwned()", "%6aavascript:pwned()", "\x01javascript:pwned()",
        "data:text/html;base64,PHNjcmlwdD5wd25lZCgpPC9zY3JpcHQ+", "vbscript:pwned", "file:///etc/passwd",
        "//example.org/x", "\\\\example.org\\x", "blob:https://example.org/x", "view-source:https://x.org",
        "https:pwned", "HTTPS://example.org/x",
    ],
)  # fmt: skip
def test_a_link_that_is_not_to_the_web_is_text(address: str) -> None:
    for text in (f"[a]({address})", f"[a](<{address}>)", f"[a][b]\n\n[b]: <{address}>", f"<{address}>"):
        page = Page(f"<div>{html(text)}</div>")
        assert page.links == [], text
        assert page.text


# 2. Encodings that turn into markup


@pytest.mark.parametrize(
    "note",
    [
        b"+ADw-script+AD4-pwned()+ADw-/script+AD4-",  # UTF-7
        b"\xc0\xbcscript\xc0\xbepwned()\xc0\xbc/script\xc0\xbe",  # overlong UTF-8
        "<script>pwned()</script>".encode("utf-16"),
        "\ufeff<script>pwned()</script>\u2028\u202e<!--\x00-->".encode(),
        b"\x1b(J<script>pwned()</script>",  # ISO-2022-JP
        b"&lt;script&gt;pwned()&lt;/script&gt; &#60;script&#62;",
        "＜script＞pwned()＜/script＞ <ſcript>".encode(),
    ],
)
def test_a_note_in_another_encoding_stays_text(home: Home, note: bytes) -> None:
    home.ensure(home.notes)
    (home.notes / "adam.md").write_bytes(note)
    body = reader(home).files["papers/adam.html"]
    assert body[:1024].index(b'<meta charset="utf-8">') > 0  # no browser guesses the encoding
    assert not set("\x00\x1b\u2028\u202e") & set(body.decode())
    assert [tag for tag, _ in Page(body.decode()).tags if tag == "script"] == []


# 3. Texts that break out of an attribute


def test_no_text_of_a_record_leaves_its_attribute(home: Home) -> None:
    artifact = {"event": "artifact", "path": "artifacts/p.png", "kind": "image"}
    names = {"row_names": [HANDLER] * 2, "column_names": [HANDLER]}
    run(
        home,
        events=[
            {**artifact, "name": HANDLER, "caption": HANDLER, "alt": HANDLER, **names},
            {**artifact, "name": "p", "row_names": [["x"]], "column_names": {"a": HANDLER}},
            {"event": "axes", "metric": "loss", "x": HANDLER, "y": HANDLER},
            {"event": "meaning", "roles": {HANDLER: HANDLER}, "better": {"loss": HANDLER}},
            *(
                {"event": "metric", "name": name, "step": step, "arm": HANDLER, "value": 1.0}
                for name in (f"loss {HANDLER}", f"a, rate {HANDLER}", "a, rate 1", "a, rate 2", "b over rate")
                for step in (1, 2, 3, 4, 5)
            ),
            {"event": "metric", "name": "best rate", "step": None, "arm": HANDLER, "value": 2},
        ],
    )
    page = adam(home)
    assert "onload" not in attributes(page)
    assert HANDLER in page.text
    assert HANDLER.strip() in " ".join(named.get("alt", "") for _, named in page.tags)


# 4. Files of another type than they claim


def test_files_of_a_run_are_written_again_or_left_out(home: Home) -> None:
    script = b"<html><script>pwned()</script>"
    kinds = {
        "gif.png": "image",
        "svg.png": "image",
        "page.wav": "audio",
        "bomb.png": "image",
        "long.wav": "audio",
    }
    names = [("polyglot", "p.png", "image"), *((name, name, kind) for name, kind in kinds.items())]
    events = [
        {"event": "artifact", "name": name, "path": f"artifacts/{path}", "kind": kind, "caption": ""}
        for name, path, kind in names
    ]
    artifacts = run(home, events=events) / "artifacts"
    with (artifacts / "p.png").open("ab") as file:
        file.write(script)  # a file that is both a picture and a page
    (artifacts / "gif.png").write_bytes(b"GIF89a" + script)
    (artifacts / "svg.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg' onload='pwned()'/>")
    (artifacts / "page.wav").write_bytes(script)
    bomb = io.BytesIO()
    Image.new("1", (5000, 1)).save(bomb, "PNG")
    header = bytearray(bomb.getvalue())
    header[16:24] = struct.pack(">II", 100_000, 100_000)
    (artifacts / "bomb.png").write_bytes(header)
    sound = bytearray((artifacts / "a.wav").read_bytes())
    sound[40:44] = struct.pack("<I", 0xFFFFFFF0)  # claims to be four gigabytes long
    (artifacts / "long.wav").write_bytes(sound)
    found = reader(home)
    media = {path: body for path, body in found.files.items() if path.startswith("media/adam/")}
    assert {Path(path).suffix for path in media} == {".png", ".wav"}
    for path, body in media.items():
        assert script not in body
        if path.endswith(".wav"):
            with wave.open(io.BytesIO(body)) as file_:
                assert 0 < file_.getnframes() <= 4000
        else:
            with Image.open(io.BytesIO(body)) as image:
                assert image.format == "PNG"
    text = Page(found.files["papers/adam.html"].decode()).text
    for name in ("Gif.png", "Svg.png", "Page.wav", "Bomb.png"):
        assert f"{name} could not be read" in text


# 5. Paths outside of the run or the report


def test_a_path_of_a_record_leads_nowhere_else(home: Home, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the reader's password")
    paths = ["../../../../secret.txt", str(secret), "artifacts/link.txt", "artifacts/pipe", "", ".", "a\x00b"]
    named = ["../../index", "..", "/etc/passwd", "con", "a" * 5000]
    text = [
        {"event": "artifact", "name": f"t{at}", "path": path, "kind": "text", "caption": ""}
        for at, path in enumerate(paths)
    ]
    pictures = [
        {"event": "artifact", "name": name, "path": "artifacts/p.png", "kind": "image", "caption": ""}
        for name in named
    ]
    folder = run(home, events=[*text, *pictures])
    (folder / "artifacts" / "link.txt").symlink_to(secret)
    os.mkfifo(folder / "artifacts" / "pipe")  # a reader would block for ever
    found = reader(home)
    assert not [path for path, body in found.files.items() if b"password" in body]
    assert all(
        Page(found.files["papers/adam.html"].decode()).text.count(f"T{at} could not")
        for at in range(len(paths))
    )
    for path in found.files:
        assert ".." not in path
        assert not path.startswith("/")
        assert max(map(len, path.split("/"))) < 100


# 6. Cards made for attacking a replay


@pytest.mark.parametrize(
    "job",
    [
        {"seed": "0; touch pwned"}, {"budget": "quick; touch pwned"}, {"only": "--on evil"},
        {"device": "cpu; touch pwned"}, {"dtype": "$(touch pwned)"}, {"times": "9"},
        {"settings": {"a": ["x"]}}, {"null": "no"}, {"broken": ["x"]},
    ],
)  # fmt: skip
def test_a_card_with_a_malformed_job_is_refused(home: Home, job: dict[str, Any]) -> None:
    body = of_library(Library.open(home), run(home), private=False).to_json()
    Card.from_json(json.loads(json.dumps(body)))
    with pytest.raises(ValueError, match=r"."):
        Card.from_json({**body, "job": {**body["job"], **job}})


def test_a_cards_command_is_one_command_and_its_data_end_where_they_should(
    home: Home, tmp_path: Path
) -> None:
    evil = "x'; touch pwned; $(touch pwned) `touch pwned` \" </script><!--<script>"
    event = {"event": "claim", "claim": claim(name=evil), "values": {"gain": 0.3}, "verdict": "held"}
    made = of_library(
        Library.open(home),
        run(home, job={"settings": {evil: evil}}, events=[{**event, "why": "", "seed": 3, "at_least": []}]),
        private=True,
    )
    words = shlex.split(made.command)
    assert words[:6] == ["readtrack", "run", "adam", "--seed", "3", "--budget"]
    assert words[-2:] == ["--set", f"{evil}={evil}"]
    page, text = write_card(made, tmp_path, "card")
    assert read(page) == read(text)
    assert page.read_text().count("</script>") == 1
    assert "<!--" not in page.read_text().replace("<!doctype", "")
