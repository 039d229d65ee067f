"""Runs the command as a reader types it: in a separate process, with a list of a few papers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.home import Home

TOYS = Path(__file__).parents[1] / "toys"
COMMAND = Path(sys.executable).with_name("readtrack")

Cli = Callable[..., subprocess.CompletedProcess[str]]

PAPERS = """
title: My list
note: read one a day
checklist:
  - section: Optimisers
    rows:
      - text: "SGD to AdamW [see blog](https://example.org/blog)"
        done: true
        papers: [toy_sgd, toy_adam]
        rows:
          - text: Second order
            papers: [toy_newton]
      - note: "(TODO: more of them)"
  - section: Vision
    rows:
      - text: Try a convolution
      - text: A toy
        papers: [toy_ok]
papers:
"""
PAPER = """
  {id}:
    title: "{title}"
    authors: [Ada Example, René Muster]
    year: 2014
    sources:
      - arxiv: "1412.{number:04}"
"""


@pytest.fixture
def papers(home: Home) -> Path:
    """The reader's own papers.yaml, with four papers without a shipped plugin and a row without papers."""
    titles = {
        "toy_sgd": "Stochastic Approximation",
        "toy_adam": "Adam ≥ naïve",
        "toy_newton": "Newton",
        "toy_ok": "A Toy",
    }
    home.ensure()
    home.papers_yaml.write_text(
        PAPERS
        + "".join(
            PAPER.format(id=id_, title=title, number=6980 + index)
            for index, (id_, title) in enumerate(titles.items())
        ),
        encoding="utf-8",
    )
    return home.papers_yaml


@pytest.fixture
def command() -> str:
    """The installed command."""
    return str(COMMAND)


@pytest.fixture
def cli(papers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs the installed command, with the toy plugins on the plugin path."""
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(TOYS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(
        *arguments: str, environment: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            input=stdin,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, **(environment or {})},
            check=False,
        )

    return run
