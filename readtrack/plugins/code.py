"""The code that a paper's results depend on: its plugin's files, and those of the papers it builds on."""

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
    """`paper` and the papers that it builds on, directly or indirectly, that have plugins, sorted by name."""
    names, found = [paper], set[str]()
    while names:
        name = names.pop()
        if name not in found and name in plugins:
            found.add(name)
            names += builds_on.get(name, ())
    return sorted(found)


def digest(paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]) -> str:
    """A hash of the code that affects results.

    It does not change with comments, docstrings, quotations from the paper (`Figure`), file times or
    locations.
    """
    found = hashlib.sha256()
    for name in closure(paper, plugins, builds_on):
        for file in files(plugins[name]):
            if file.name == EXERCISES:  # no run depends on exercises
                continue
            found.update(f"\0{name}/{file.name}\0".encode())
            found.update(_meaning(file))
    return found.hexdigest()[:16]


def files(plugin: PluginRef) -> list[Path]:
    """Every file of a plugin, sorted; for an installed plugin, all files of its package."""
    if plugin.origin == "installed":
        # Locating a module inside the package would import it.
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
    """Removes docstrings, quotations in claims, and exercises with the functions that draw their inputs."""

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


def meaning(source: str | bytes) -> ast.Module:
    """The parsed source without parts that do not affect results. Raises SyntaxError, ValueError."""
    tree: ast.Module = _Meaning().visit(ast.parse(source))
    return tree


def _meaning(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix == ".py":
        try:
            return ast.dump(meaning(data)).encode()
        except (SyntaxError, ValueError):
            return data
    return data
