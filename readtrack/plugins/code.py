"""The code that a paper's results hang on: its plugin's files, and those of the papers that it builds on."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from readtrack.plugins.find import PluginRef

EXERCISES = "exercises.py"  # where a plugin of several files declares its exercises


def closure(
    paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """`paper` and what it builds on, directly or not, sorted by name: those that there are plugins for."""
    names, found = [paper], set[str]()
    while names:
        name = names.pop()
        if name not in found and name in plugins:
            found.add(name)
            names += builds_on.get(name, ())
    return sorted(found)


def digest(paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]) -> str:
    """A hash that changes when what the code does may have changed, and not with comments, docstrings or
    what a claim quotes from its paper (`Figure`); nor with the time or the place of a file."""
    found = hashlib.sha256()
    for name in closure(paper, plugins, builds_on):
        for file in files(plugins[name]):
            if file.name == EXERCISES:  # no run depends on them
                continue
            found.update(f"\0{name}/{file.name}\0".encode())
            found.update(_meaning(file))
    return found.hexdigest()[:16]


def files(plugin: PluginRef) -> list[Path]:
    """Every file of a plugin, sorted; of an installed one those of its distribution's whole package."""
    if plugin.origin == "installed":
        # To find a module inside the package would import it.
        spec = importlib.util.find_spec(plugin.location.partition(".")[0])
        main = Path(spec.origin) if spec and spec.origin else None
    else:
        main = Path(plugin.location)
    if main is None:
        return []
    if main.name != "__init__.py":
        return [main]
    return sorted(
        path for path in main.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


class _Meaning(ast.NodeTransformer):
    """Without texts, what claims quote, and exercises with the functions that draw their inputs."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if ast.unparse(node.targets[0]) == "EXERCISES" else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        draws = any(
            isinstance(one.annotation, ast.Name) and one.annotation.id == "Draw" for one in node.args.args
        )
        return None if draws else self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        node.names = [one for one in node.names if one.name not in ("Draw", "Exercise", "Try")]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "Figure":
            return node.func
        return self.generic_visit(node)


def _meaning(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix == ".py":
        try:
            return ast.dump(_Meaning().visit(ast.parse(data))).encode()
        except (SyntaxError, ValueError):
            return data
    return data
