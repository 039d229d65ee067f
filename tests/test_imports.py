"""Imports of processes, observed in a fresh interpreter, because a static graph cannot show deferred
imports.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import readtrack

HEAVY = ("torch", "numpy", "sklearn", "scipy", "PIL.Image")


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    ["plugin", "library", "plugins.find", "plugins.check", "runs.launcher", "runs.record", "bench.compare"],
)
def test_the_parents_side_imports_no_heavy_module(module: str) -> None:
    assert modules_after(f"import readtrack.{module}").isdisjoint(HEAVY)


def test_opening_the_library_imports_no_plugin_and_no_heavy_module() -> None:
    seen = modules_after("from readtrack.library import Library; Library.open().runnable()")
    assert seen.isdisjoint({*HEAVY, "textual", "rich"})
    assert not [name for name in seen if name.startswith("readtrack.papers.")]


def test_the_start_of_the_app_does_not_import_the_search() -> None:
    seen = modules_after("import readtrack.tui.app")
    assert seen.isdisjoint({"sqlite3", "readtrack.fulltext.index", "readtrack.fulltext.searching"})


def imports(root: Path, package: str) -> dict[str, set[str]]:
    """Maps each module of a package to the modules of the package that it imports anywhere."""
    files = {}
    for file in root.rglob("*.py"):
        parts = [package, *file.relative_to(root).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named = {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # `from package import module` needs the module, `from module import name` only the first.
                inner = {f"{node.module}.{one.name}" for one in node.names}
                named = inner & files.keys() if inner & files.keys() else {node.module}
            else:
                continue
            found[name] |= (named & files.keys()) - {name}
    return found


def test_no_modules_import_each_other_in_a_circle_for_types_either() -> None:
    graph = imports(Path(readtrack.__file__).parent, "readtrack")
    assert len(graph) > 200
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the cycle


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from toy.b import one\n")
    (tmp_path / "b.py").write_text("def two():\n    from toy import c\n")
    (tmp_path / "c.py").write_text("if TYPE_CHECKING:\n    import toy.a\n")
    with pytest.raises(CycleError):
        tuple(TopologicalSorter(imports(tmp_path, "toy")).static_order())


def test_each_public_class_name_is_defined_once() -> None:
    """A class name in a traceback or a search then identifies one class."""
    places = defaultdict(list)
    root = Path(readtrack.__file__).parent
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{file.relative_to(root)}:{node.lineno}")
    assert len(places) > 250
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
