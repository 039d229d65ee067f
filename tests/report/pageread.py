"""Parses pages, and creates a home with made-up runs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import wave
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from readtrack.home import Home

AT = "2026-01-01T00:00:00+00:00"
VOID = {"meta", "input", "img", "br", "hr", "image"}


class Page(HTMLParser):
    """The tags, links and texts of a page. Raises AssertionError if tags are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.files: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append((tag, named))
        self.ids += [named["id"]] if "id" in named else []
        if tag in ("a", "use") and "href" in named:
            self.links.append(named["href"])
        if tag in ("img", "audio"):
            self.files.append(named["src"])
        if tag == "image":
            self.files.append(named["href"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> without a beginning"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        (self.scripts if inside == "script" else self.styles if inside == "style" else self.words).append(
            data
        )

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def policy(self) -> str:
        return next(named["content"] for tag, named in self.tags if named.get("http-equiv"))


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def run(home: Home, paper: str = "adam", number: int = 1, **changes: Any) -> Path:
    """A completed run with a curve, a claim, a picture, sounds, a table and a benchmark.

    changes  events that replace those of their kind, or further fields of the job
    """
    run_id = f"20260101-00000{number}-{paper}-aaaa"
    folder = home.runs / run_id
    (folder / "artifacts").mkdir(parents=True)
    job = {
        "run_id": run_id,
        "paper": paper,
        "budget": "quick",
        "seed": 3,
        "created": "2026-01-01T00:00:00+00:00",
    }
    (folder / "job.json").write_text(json.dumps({**job, **changes.pop("job", {})}))
    picture(folder / "artifacts" / "p.png")
    sound(folder / "artifacts" / "a.wav", 0.5)
    sound(folder / "artifacts" / "b.wav", 0.25)
    table = {"columns": ["sound", "said", "heard"], "rows": [["a", "one", "one"], ["b", "one", "nine"]]}
    (folder / "artifacts" / "t.json").write_text(json.dumps(table))
    events = [*complete_events(paper, run_id), *changes.pop("events", [])]
    assert not changes
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:
        for seq, event in enumerate(events):
            file.write(json.dumps({"v": 1, "seq": seq, "t": float(seq), **event}) + "\n")
    return folder


def complete_events(paper: str, run_id: str) -> Iterator[dict[str, Any]]:
    yield {
        "event": "hello",
        "run_id": run_id,
        "paper": paper,
        "pid": 1,
        "process_start": 0.0,
        "at": AT,
        "readtrack": "0.1.0",
        "python": "3.11.7",
        "host": "secretbox",
    }
    yield {
        "event": "environment",
        "device": "cpu",
        "device_name": "Toy CPU",
        "threads": 1,
        "torch": "2.13.0",
        "dtype": "float32",
    }
    yield {
        "event": "meaning",
        "roles": {"ours": "paper", "control": "control"},
        "better": {"errors": "lower"},
    }
    for step in range(100):
        for arm, rate in (("ours", 0.05), ("control", 0.02)):
            yield {
                "event": "metric",
                "name": "loss",
                "step": step,
                "arm": arm,
                "value": math.exp(-rate * step),
            }
    yield {"event": "headline", "metric": "loss"}
    for condition in ("quiet", "hum", "echo"):
        for arm, value in (("ours", 0.1), ("control", 0.4)):
            yield {
                "event": "metric",
                "name": f"errors, {condition}",
                "step": None,
                "arm": arm,
                "value": value,
            }
    yield {
        "event": "claim",
        "claim": claim(),
        "values": {"gain": 0.3},
        "verdict": "held",
        "why": "",
        "ours": "gain 0.3",
        "seed": 3,
        "at_least": [],
        "edges": [],
    }
    for name, kind, caption in (
        ("a", "audio", "one, a"),
        ("b", "audio", "one, b"),
        ("p", "image", "Two digits."),
        ("t", "table", ""),
    ):
        suffix = {"audio": "wav", "image": "png", "table": "json"}[kind]
        yield {
            "event": "artifact",
            "name": name,
            "path": f"artifacts/{name}.{suffix}",
            "kind": kind,
            "caption": caption,
            **({"beside": "a"} if name == "b" else {}),
        }
    yield from (measurement(role, value) for role, value in (("paper", 1e6), ("naive", 3e6), ("strong", 2e6)))
    yield {"event": "end", "outcome": "completed", "detail": ""}


def claim(**changes: Any) -> dict[str, Any]:
    """A claim as stated by a run."""
    bound = {"metric": "gain", "op": ">=", "threshold": 0.2, "direction": 0.0, "ratio": False}
    figure = {"text": "0.5", "where": "table 1", "read": "table"}
    texts = {"name": "it gains", "sentence": "It gains.", "control": "the control", "deviations": ""}
    lists = ("guards", "control_reaches", "breaks", "shortcuts", "chosen_on")
    stated = {**texts, **{name: [] for name in lists}, "paper": figure, "rule": [bound]}
    return {**stated, "kind": "measured", "headline": True, **changes}


def measurement(role: str, nanoseconds: float, **changes: Any) -> dict[str, Any]:
    return {
        "event": "measurement",
        "case": "a step",
        "axes": {"n": 64},
        "variant": role,
        "role": role,
        "mode": "forward",
        "dtype": "float32",
        "device": "cpu",
        "round": 5,
        "rounds": 5,
        "t_ns": {
            "value": nanoseconds,
            "p50": nanoseconds,
            "min": nanoseconds * 0.97,
            "ci95": [nanoseconds * 0.98, nanoseconds * 1.02],
        },
        "pct_ceiling": 40.0,
        "bound": "compute",
        "closeness": 0.7,
        "vs_naive": 3e6 / nanoseconds,
        "vs_strong": 2e6 / nanoseconds,
        "vs_strong_sure": True,
        "flags": [],
        **changes,
    }


def picture(path: Path, said: str = "/home/ada/secret") -> None:
    info = PngInfo()
    info.add_text("Comment", said)
    Image.new("L", (40, 20), 200).save(path, pnginfo=info)


def sound(path: Path, seconds: float, rate: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        tones = (int(9000 * math.sin(at / 5)) for at in range(int(seconds * rate)))
        file.writeframes(b"".join(struct.pack("<h", tone) for tone in tones))
