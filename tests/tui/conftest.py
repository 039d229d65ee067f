"""A small list, its library, and the app for tests that press keys."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pytest
from terminals import Terminal

from readtrack import published
from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.find import PluginRef, find
from readtrack.runs import processes
from readtrack.runs.store import load, write_result
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.device_list import DeviceList, Devices
from readtrack.tui.widgets import line_view

LIST = """\
title: "My list"
note: "protip: read the figures first"
checklist:
  - section: "Optimisers"
    rows:
      - text: "SGD - Adam [see blog](https://example.org/blog)"
        done: true
        papers: [sgd, adam]
      - text: "Hessian"
        papers: [hessian]
  - section: "Attention"
    note: "the long road"
    rows:
      - text: "Transformer"
        papers: [attention]
        rows:
          - text: "Flash [bold]not bold[/bold]"
            papers: [flash]
          - note: "(TODO: more)"
          - text: "https://example.org/a-page"
papers:
  sgd:
    title: "A Stochastic Approximation Method"
    authors: [Herbert Robbins, Sutton Monro]
    year: 1951
    sources:
      - doi: 10.1214/aoms/1177729586
    problem: A function can only be measured with noise.
    idea: Small noisy steps find the root.
    result: A proof shows that it converges.
  adam:
    title: "Adam: A Method for Stochastic Optimization"
    authors: [Diederik P. Kingma, Jimmy Ba]
    year: 2014
    sources:
      - arxiv: "1412.6980"
    builds_on: [sgd]
    problem: One step size does not suit every weight.
    idea: Steps are scaled by running moments.
    result: It is at least as fast as the alternatives (Figure 1).
  hessian:
    title: "Fast Exact Multiplication by the Hessian"
    authors: [Barak A. Pearlmutter]
    year: 1994
    sources:
      - doi: 10.1162/neco.1994.6.1.147
    problem: The Hessian is too large to store.
    idea: Products without the matrix.
    result: It is as cheap as a gradient (Equation 3).
  attention:
    title: "Attention Is All You Need"
    authors: [Ashish Vaswani, et al.]
    year: 2017
    sources:
      - arxiv: "1706.03762"
    problem: Recurrent networks read one word after the other.
    idea: Attention replaces recurrence.
    result: Translations reach 28.4 BLEU (Table 2).
  flash:
    title: "Flash: [red]fast[/red] \\e[31mexact\\e[0m attention"
    authors: ["Tri [link=https://evil.example]Dao[/link]"]
    year: 2022
    sources:
      - arxiv: "2205.14135"
    builds_on: [attention]
    problem: The score matrix travels through slow memory.
    idea: Tiles.
    result: GPT-2 trains 3 times faster.
"""


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "EDITOR",
        "VISUAL",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "READTRACK_ASCII",
        "READTRACK_THEME",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    # No server listens there, so no test contacts a real host.
    monkeypatch.setenv("READTRACK_ARXIV_API", "http://127.0.0.1:9/api/query")
    monkeypatch.setenv("READTRACK_ARXIV_PDF", "http://127.0.0.1:9/pdf")


@pytest.fixture(autouse=True)
def _whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw pages only when all visible lines are made, however busy the machine is."""
    monkeypatch.setattr(line_view, "_PATIENCE", 60.0)


@pytest.fixture(autouse=True)
def _own_plugins_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use only the plugins that a test adds, because the shipped ones change."""

    def plugins(library: Library) -> dict[str, PluginRef]:
        return {name: ref for name, ref in find(library.home).items() if ref.origin != "shipped"}

    kept = cached_property(plugins)  # as in the app, where a reload forgets them
    kept.__set_name__(Library, "_plugins")
    monkeypatch.setattr("readtrack.plugins.find._entry_points", list)  # those are sought in all distributions
    monkeypatch.setattr(Library, "_plugins", kept)


@pytest.fixture(autouse=True)
def _no_shipped_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the shipped verdicts, which change with every `readtrack verify`."""
    monkeypatch.setattr(published, "shipped_file", lambda: tmp_path / "no verdicts.json")


@pytest.fixture(autouse=True)
def _one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid listing devices, which imports torch."""

    def ask(devices: DeviceList) -> Devices:
        devices.found = [("cpu", "A processor")]
        return devices.found

    monkeypatch.setattr(DeviceList, "ask", ask)


@pytest.fixture
def papers_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "papers.yaml"
    path.write_text(LIST, encoding="utf-8")
    return path


@pytest.fixture
def app(home: Home, papers_yaml: Path) -> ReadtrackApp:
    home.ensure(home.plugins)
    (home.plugins / "attention.py").touch()
    return ReadtrackApp(Library.open(home, papers_yaml))


@pytest.fixture
def toy_app(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadtrackApp]:
    """The app with toy plugins and the stub of torch. Runs are real child processes, and all are stopped
    at the end.
    """
    toys = Path(__file__).parents[1] / "toys"
    names = ("toy_ok", "toy_hang", "toy_fail", "unwritten")
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(toys))
    monkeypatch.setenv("PYTHONPATH", str(toys / "light"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    facts = "".join(
        f"  {name}:\n    title: Title of {name}\n    authors: [A. Person]\n    year: 2020\n"
        "    sources:\n      - page: https://example.org/\n"
        "    problem: P.\n    idea: I.\n    result: R.\n"
        for name in names
    )
    rows = "".join(f'      - text: "{name}"\n        papers: [{name}]\n' for name in names)
    path = tmp_path / "papers.yaml"
    path.write_text(f"title: Toys\nchecklist:\n  - section: All\n    rows:\n{rows}papers:\n{facts}", "utf-8")
    yield ReadtrackApp(Library.open(home, path))
    for folder in home.runs.iterdir() if home.runs.exists() else ():
        processes.kill_leftover_processes(folder.name)


@pytest.fixture
def screen_text() -> Callable[[ReadtrackApp], str]:
    """The whole screen as text, without trailing spaces."""

    def read(app: ReadtrackApp) -> str:
        # The only access to a private name of Textual; the public alternative is export_screenshot.
        return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())

    return read


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a text with tests/tui/golden/<name>.txt. READTRACK_UPDATE_GOLDEN=1 writes the file instead."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / f"{name}.txt"
        text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if os.environ.get("READTRACK_UPDATE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


class Recorded(Protocol):
    def __call__(self, until: float = math.inf, run_id: str = ...) -> Path: ...


@pytest.fixture
def recorded(home: Home) -> Recorded:
    """Puts the run in tests/tui/recorded into the home: all of it, or its events `until` a second.

    It has two arms of a curve of which one diverges, a second metric, a claim, measurements of two sizes, and
    one artifact of each kind.
    """

    def put(until: float = math.inf, run_id: str = "20260102-030405-adam-00ff") -> Path:
        folder = home.runs / run_id
        shutil.copytree(Path(__file__).parent / "recorded", folder)
        events = folder / "events.jsonl"
        lines = events.read_text(encoding="utf-8").splitlines(keepends=True)
        events.write_text("".join(x for x in lines if json.loads(x)["t"] <= until), encoding="utf-8")
        record = load(folder)
        if record.outcome is not None:
            write_result(folder, record)
        return folder

    return put


@pytest.fixture
def terminal(tmp_path: Path, home: Home) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()
    for folder in home.runs.iterdir() if home.runs.exists() else ():
        processes.kill_leftover_processes(folder.name)
