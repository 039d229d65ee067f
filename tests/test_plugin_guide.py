"""The guide for plugin authors documents everything that a plugin may use, and nothing that no longer
exists.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import readtrack.data
import readtrack.plugin
import readtrack.scores
from readtrack.claims import Bound, Break, Claim, Figure
from readtrack.cli import plugins
from readtrack.cli.app import _COMMANDS
from readtrack.runs.run import Run
from readtrack.runs.trial import Trial

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_every_public_name_of_run_is_on_the_page_and_no_other() -> None:
    methods = {name for name, _ in inspect.getmembers(Run, inspect.isfunction) if not name.startswith("_")}
    attributes = set(re.findall(r"self\.([a-z]\w*) = ", inspect.getsource(Run.__init__)))
    assert set(re.findall(r"`run\.(\w+)\(", PAGE)) == methods
    assert set(re.findall(r"`run\.(\w+)`", PAGE)) - methods == attributes


def test_every_public_name_of_a_trial_is_on_the_page_and_no_other() -> None:
    methods = {name for name, _ in inspect.getmembers(Trial, inspect.isfunction) if not name.startswith("_")}
    attributes = set(re.findall(r"self\.([a-z]\w*)(?:: \w+)? = ", inspect.getsource(Trial.__init__)))
    assert set(re.findall(r"`at\.(\w+)\(", PAGE)) == methods
    assert set(re.findall(r"`at\.(\w+)`", PAGE)) - methods == attributes


def test_every_name_that_a_plugin_may_import_is_on_the_page() -> None:
    for module in (readtrack.plugin, readtrack.data, readtrack.scores):
        assert [name for name in module.__all__ if f"`{name}`" not in PAGE] == []
    modules = {f"readtrack.data.{path.stem}" for path in (ROOT / "readtrack" / "data").glob("[a-z]*.py")}
    reached_otherwise = ("shipped", "splits", "sheet", "sources", "stored")
    modules -= {f"readtrack.data.{name}" for name in reached_otherwise}
    assert set(re.findall(r"`(readtrack\.data\.\w+)`", PAGE)) == modules
    for name in re.findall(r"`readtrack\.scores\.(\w+)`", PAGE):
        assert (ROOT / "readtrack" / "scores" / f"{name}.py").is_file()


def test_every_field_of_a_claim_is_on_the_page() -> None:
    assert [one.name for one in fields(Claim) if f"`{one.name}`" not in PAGE] == []
    for part in (Figure, Bound, Break):
        assert f"`{part.__name__}({', '.join(one.name for one in fields(part))})`" in PAGE


def test_the_example_is_the_template() -> None:
    template = Path(plugins.__file__).parent / "templates" / "plugin.py.txt"
    lines = set(template.read_text(encoding="utf-8").splitlines())
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    assert [line for block in blocks for line in block.splitlines() if line not in lines] == []
    for block in blocks:
        ast.parse(textwrap.dedent(block))  # whole statements, which can be copied


def test_the_commands_of_the_page_exist_and_the_page_is_linked() -> None:
    known = {command.callback.__name__ for command in plugins.group.registered_commands if command.callback}
    for command, action in re.findall(r"readtrack (\w+)(?: (\w+))?", PAGE):
        if command in _COMMANDS:
            assert command != "plugins" or action in known
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "docs/plugins.md" in (ROOT / name).read_text(encoding="utf-8")
