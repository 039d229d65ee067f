"""Computes one hash of all numbers in an experiment, so that a test can pin them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from types import ModuleType

from readtrack.checks.watching import files


def digest(module: ModuleType) -> str:
    """Hash the named numbers of a module, or of all modules of a plugin's folder, as twelve hex digits.

    Named numbers are constants in capitals, default arguments, keyword arguments such as `lr=0.1`, and all
    arguments of `run.pick` and `run.option`. Claims, breaks, exercises, numbers inside an expression and the
    layout of the source do not change the hash.
    """
    return hashlib.sha256("\n".join(constants(module)).encode()).hexdigest()[:12]


def constants(module: ModuleType) -> Iterator[str]:
    """The name and normalised source of each constant, in source order."""
    for file in sorted(files(module)):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            yield from _in(node)


def _in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Claim", "Break", "Exercise"):
        return
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        if any(name.isupper() for name in names) and not isinstance(node.value, ast.Call):
            yield from (ast.unparse(node) for _ in (0,) if _numeric(node.value))
            return
    if isinstance(node, ast.arguments):
        yield from (ast.unparse(one) for one in (*node.defaults, *node.kw_defaults) if one and _numeric(one))
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("pick", "option"):
        yield ast.unparse(node)
        return
    if isinstance(node, ast.keyword) and _literal(node.value):
        yield ast.unparse(node)
    for child in ast.iter_child_nodes(node):
        yield from _in(child)


def _numeric(node: ast.AST) -> bool:
    found = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
    return any(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


def _literal(node: ast.AST) -> bool:
    plain = (ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.USub, ast.Load)
    return _numeric(node) and all(isinstance(one, plain) for one in ast.walk(node))
