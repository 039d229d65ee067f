"""Plausible wrong answers: the paper's own function with one mistake in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

from readtrack.practice.sheet import definition


class PracticeMutant(NamedTuple):
    """A file with a mistake in one function, and what the mistake is."""

    says: str
    source: str


_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
# Calls whose receiver has the result's shape: left out, the code still runs.
_LEFT_OUT = {
    "abs", "clamp", "cos", "cumsum", "exp", "exp2", "flip", "log", "masked_fill", "mul", "neg", "reciprocal",
    "relu", "rsqrt", "sigmoid", "silu", "sin", "softmax", "sqrt", "square", "tanh", "tril", "triu",
}  # fmt: skip


def mutants(source: str, qualname: str) -> Iterator[PracticeMutant]:
    """Every mistake that the mutators can make in the function, one at a time."""
    tree = ast.parse(source)
    function = definition(tree, qualname)
    if function is None:
        return
    for path, node in _nodes(function):
        for says, changed in _changes(node):
            _put(function, path, changed)
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(function, path, node)
            yield PracticeMutant(f"line {getattr(node, 'lineno', 0)}: {says}", text)


Path = tuple[tuple[str, int | None], ...]


def _nodes(function: ast.AST) -> Iterator[tuple[Path, ast.AST]]:
    """The nodes of the function's body, with the way to each; its signature and docstring are left alone."""
    for index, statement in enumerate(getattr(function, "body", ())):
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield from _below((("body", index),), statement)


def _below(path: Path, node: ast.AST) -> Iterator[tuple[Path, ast.AST]]:
    yield path, node
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST) and name not in ("annotation", "returns"):
            yield from _below((*path, (name, None)), value)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                if isinstance(one, ast.AST):
                    yield from _below((*path, (name, index)), one)


def _put(root: ast.AST, path: Path, changed: ast.AST) -> None:
    for name, index in path[:-1]:
        value = getattr(root, name)
        root = value if index is None else value[index]
    name, index = path[-1]
    if index is None:
        setattr(root, name, changed)
    else:
        getattr(root, name)[index] = changed


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in the node's place."""
    kinds: dict[type, Any] = {
        ast.BinOp: _operation,
        ast.Compare: _comparison,
        ast.Call: _call,
        ast.Attribute: _attribute,
        ast.UnaryOp: _unary,
        ast.Constant: _constant,
        ast.AugAssign: _statement,
        ast.Expr: _statement,
        ast.IfExp: _choice,
        ast.keyword: _keyword,
        ast.Tuple: _targets,
        ast.Return: _returned,
    }
    if type(node) in kinds:
        yield from kinds[type(node)](node)


def _operation(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    text = ast.unparse(node)
    if type(node.op) in _OPERATORS:
        other = _OPERATORS[type(node.op)]()
        yield f"{text} with the other operator", ast.BinOp(node.left, other, node.right)
        yield f"{text} without its right side", node.left
    if isinstance(node.op, ast.Mult | ast.Add):
        yield f"{text} without its left side", node.right
    if isinstance(node.op, ast.Pow):
        yield f"{text} without the power", node.left
    if isinstance(node.op, ast.MatMult | ast.Sub):
        yield f"{text} the other way round", ast.BinOp(node.right, node.op, node.left)


def _comparison(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    if len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        other = _COMPARISONS[type(node.ops[0])]()
        yield f"{ast.unparse(node)} off by one", ast.Compare(node.left, [other], node.comparators)


def _call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    text = ast.unparse(node)
    for word in node.keywords:
        kept = [other for other in node.keywords if other is not word]
        yield f"{text} without {word.arg}", ast.Call(node.func, node.args, kept)
    if isinstance(node.func, ast.Attribute):
        name = node.func.attr.rstrip("_")
        on_module = isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "F")
        receiver = node.args[0] if on_module and node.args else node.func.value
        if name in _LEFT_OUT or name in ("contiguous", "t"):
            yield f"{text} without {name}", receiver
        if name == "transpose" and len(node.args) >= 2:
            yield f"{text} without the transpose", receiver
    if len(node.args) == 2 and not any(isinstance(one, ast.Starred | ast.Constant) for one in node.args):
        swapped = ast.Call(node.func, node.args[::-1], node.keywords)
        yield f"{text} with its arguments swapped", swapped


def _attribute(node: ast.Attribute) -> Iterator[tuple[str, ast.AST]]:
    if node.attr in ("mT", "T") and isinstance(node.ctx, ast.Load):
        yield f"{ast.unparse(node)} without the transpose", node.value


def _unary(node: ast.UnaryOp) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield f"{ast.unparse(node)} without its sign", node.operand
    if isinstance(node.op, ast.Invert | ast.Not):
        yield f"{ast.unparse(node)} not negated", node.operand
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, int):
            yield f"{-value} for {-value - 1}", ast.UnaryOp(ast.USub(), ast.Constant(value + 1))
        elif isinstance(value, float):
            yield f"{ast.unparse(node)} without its sign", node.operand


def _constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield f"{not node.value} for {node.value}", ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield f"{node.value + 1} for {node.value}", ast.Constant(node.value + 1)
        if node.value > 0:
            yield f"{node.value - 1} for {node.value}", ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        other = 2 * node.value or 1.0
        yield f"{other} for {node.value}", ast.Constant(other)


def _statement(node: ast.AugAssign | ast.Expr) -> Iterator[tuple[str, ast.AST]]:
    yield f"without {ast.unparse(node)}", ast.Pass()


def _choice(node: ast.IfExp) -> Iterator[tuple[str, ast.AST]]:
    yield f"always {ast.unparse(node.body)}", node.body
    yield f"always {ast.unparse(node.orelse)}", node.orelse


def _keyword(node: ast.keyword) -> Iterator[tuple[str, ast.AST]]:
    if node.arg == "keepdim":
        yield "without keepdim", ast.keyword("keepdim", ast.Constant(False))


def _targets(node: ast.Tuple) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.ctx, ast.Store) and len(node.elts) > 1:
        first, second, *rest = node.elts
        yield (
            f"{ast.unparse(node)} with the first two mixed up",
            ast.Tuple([second, first, *rest], ast.Store()),
        )


def _returned(node: ast.Return) -> Iterator[tuple[str, ast.AST]]:
    if node.value is not None and not isinstance(node.value, ast.Tuple | ast.Constant | ast.UnaryOp):
        yield "the result with the other sign", ast.Return(ast.UnaryOp(ast.USub(), node.value))
