"""Imports define the lineage: a plugin builds on exactly the papers that it imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from readtrack.reading_list.load import load

CHECKOUT = Path(__file__).parents[1]
PLUGINS = CHECKOUT / "plugins"
CATALOG = load(CHECKOUT / "papers.yaml")


def papers() -> dict[str, list[Path]]:
    """Each plugin's id with its files."""
    found = {path.stem: [path] for path in PLUGINS.glob("*.py") if not path.stem.startswith("_")}
    return found | {
        path.parent.name: sorted(path.parent.rglob("*.py")) for path in PLUGINS.glob("*/__init__.py")
    }


def imported(path: Path) -> set[str]:
    """The papers that a plugin's file imports: with `from .x`, in a folder `from ..x`, or by the full
    name.
    """
    depth = len(path.relative_to(PLUGINS).parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            modules = [f"readtrack.papers.{node.module or alias.name}" for alias in node.names]
        else:
            continue
        names |= {module.split(".")[2] for module in modules if module.startswith("readtrack.papers.")}
    return names


@pytest.mark.parametrize("paper", sorted(papers()))
def test_a_plugin_builds_on_exactly_what_it_imports(paper: str) -> None:
    stated = sorted(CATALOG.papers[paper].builds_on)
    found = sorted(set().union(*map(imported, papers()[paper])))
    assert found == stated, (
        f"papers.yaml says that {paper} builds on {stated}, but its plugin imports {found}: change "
        "builds_on, or import from it"
    )


@pytest.mark.parametrize("paper", sorted(papers()))
def test_a_plugin_has_a_test_file_and_stays_short(paper: str) -> None:
    assert (CHECKOUT / "tests" / "papers" / f"test_{paper}.py").exists()
    for path in papers()[paper]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
