"""The commands in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from readtrack.cli.app import app
from readtrack.reading_list.load import load

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    readtrack (\S+) ?(.*?)(?:  .*)?$", README, re.MULTILINE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_every_command_and_option_exists(name: str, arguments: str) -> None:
    command = typer.main.get_command(app)
    with command.make_context("readtrack", [name, "--help"], resilient_parsing=True) as context:
        found = command.get_command(context, name)  # type: ignore[attr-defined]
    assert found is not None
    known = {flag for parameter in found.params for flag in parameter.opts}
    assert set(re.findall(r"--[\w-]+", arguments)) <= known


def test_the_papers_that_it_names_are_there_and_the_one_to_add_is_not() -> None:
    papers = load(CHECKOUT / "papers.yaml").papers
    for name, arguments in COMMANDS:
        if name in ("show", "run", "results", "mark"):
            assert arguments.split()[0] in papers
    (added,) = [arguments for name, arguments in COMMANDS if name == "add"]
    assert re.fullmatch(r"\d{4}\.\d{5}", added)
    assert not [p.id for p in papers.values() for s in p.sources if s.value.startswith(added)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/plugins.md", "docs/method.md"])
def test_the_files_that_it_names_are_there(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:docs|plugins|readtrack|tests|lock)/[a-z_/.]+[.][a-z]+)`", text)
    assert [name for name in named if not (CHECKOUT / name).exists()] == []
