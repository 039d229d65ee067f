"""Plausible wrong answers: mutants of the paper's own function."""

from __future__ import annotations

import ast
import copy
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, permutations
from typing import Any, NamedTuple

from readtrack.practice.sheet import Definition, definition

Path = tuple[tuple[str, int | None], ...]


class PracticeMutant(NamedTuple):
    """A mutant: its description, and a function that returns the mutated file."""

    says: str
    source: Callable[[], str]


class _Change(NamedTuple):
    """A replacement of a node. kind: a description for a reader who must not see the code."""

    says: str
    kind: str
    node: ast.AST


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
# Calls that can be omitted, because the receiver has the result's shape.
_LEFT_OUT = {
    "abs", "clamp", "cos", "cumsum", "exp", "exp2", "flip", "log", "masked_fill", "mul", "neg", "reciprocal",
    "relu", "rsqrt", "sigmoid", "silu", "sin", "softmax", "sqrt", "square", "tanh", "tril", "triu",
    "unsqueeze",
}  # fmt: skip
_ORDERED = 4  # maximum number of unpacked names tried in every order
# Functions that are often confused.
_OTHERS = {
    "mean": "sum", "sum": "mean", "sin": "cos", "cos": "sin", "tanh": "sigmoid", "sigmoid": "tanh",
    "softmax": "log_softmax", "log_softmax": "softmax", "exp": "exp2", "log": "log2", "square": "abs",
    "std": "var", "var": "std", "tril": "triu", "triu": "tril", "max": "min", "min": "max",
}  # fmt: skip


def mutants(source: str, qualname: str) -> Iterator[PracticeMutant]:
    """All mutants of the function that contain a single mistake."""
    tree = ast.parse(source)
    function = definition(tree, qualname)
    if function is None:
        return
    for path, node in list(_nodes(function)):
        for one in _changes(node):
            says = f"line {getattr(node, 'lineno', 0)}: {one.says}"
            yield PracticeMutant(says, partial(_spliced, source, function, path, one.node))


def _spliced(source: str, function: Definition, path: Path, changed: ast.AST) -> str:
    """The file with the changed function in its place. Unparsing the whole file would take longer."""
    with _in_place(function, path, changed):
        text = ast.unparse(ast.fix_missing_locations(function))
    lines = source.splitlines()
    start = min([function.lineno, *(one.lineno for one in function.decorator_list)])
    lines[start - 1 : function.end_lineno] = [textwrap.indent(text, " " * function.col_offset)]
    return "\n".join(lines) + "\n"


def functions(function: Definition) -> Iterator[tuple[str, Definition]]:
    """The function with each mistake in turn, with a description that does not reveal code.

    Yields the same tree each time, and restores it at the end. Conditions come last, because a wrong
    condition may have the same effect as a missing term.
    """
    for path, node in sorted(_nodes(function), key=lambda pair: isinstance(pair[1], ast.Compare | ast.IfExp)):
        for one in _changes(node):
            ast.copy_location(one.node, node)
            kind = one.kind + _where(function, path)
            with _in_place(function, path, ast.fix_missing_locations(one.node)):
                yield kind, function
    for path, node in list(_nodes(function)):
        if isinstance(node, ast.List) and isinstance(node.ctx, ast.Load) and len(node.elts) <= _ORDERED:
            kind = "the items of a list are in a different order" + _where(function, path)
            for order in islice(permutations(node.elts), 1, None):
                listed = ast.copy_location(ast.List(list(order), ast.Load()), node)
                with _in_place(function, path, listed):
                    yield kind, function
    for name in _names(function):
        copied = copy.deepcopy(function)
        if (places := _Factor(name).left_out(copied)) > 1:
            yield f"the same factor is missing from {places} places", ast.fix_missing_locations(copied)
    for other in (-2, 0):
        copied = copy.deepcopy(function)
        if _Dimensions(other).changed(copied) > 1:
            yield "another dimension is used instead of -1", ast.fix_missing_locations(copied)


def _where(function: Definition, path: Path) -> str:
    """A suffix such as `, in a step that uses q and k`, which names the parameters used in the innermost
    statement, or "" if there are none or too many.
    """
    step: ast.AST = function
    node: ast.AST = function
    for name, index in path:
        node = getattr(node, name) if index is None else getattr(node, name)[index]
        step = node if isinstance(node, ast.stmt) else step
    if isinstance(step, ast.If | ast.For | ast.While | ast.With) or isinstance(function, ast.ClassDef):
        return ""
    known = [one.arg for one in (*function.args.args, *function.args.kwonlyargs) if one.arg != "self"]
    used = {one.id for one in ast.walk(step) if isinstance(one, ast.Name)}
    named = [name for name in known if name in used]
    return f", in a step that uses {' and '.join(named)}" if 0 < len(named) < 3 else ""


class _Dimensions(ast.NodeTransformer):
    """Replaces every -1 with another number."""

    def __init__(self, other: int) -> None:
        self._other, self._count = other, 0

    def changed(self, function: ast.AST) -> int:
        """Returns the number of replacements."""
        self.visit(function)
        return self._count

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if ast.unparse(node) != "-1":
            return self.generic_visit(node)
        self._count += 1
        return ast.Constant(self._other)


def _names(function: ast.AST) -> list[str]:
    """The function's variable names, in the order of their first use."""
    return list(dict.fromkeys(node.id for node in ast.walk(function) if isinstance(node, ast.Name)))


class _Factor(ast.NodeTransformer):
    """Removes one variable from products."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def left_out(self, function: ast.AST) -> int:
        """Returns the number of changed products."""
        self.visit(function)
        return self._count

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(node.op, ast.Mult) and isinstance(side, ast.Name) and side.id == self._name:
                self._count += 1
                return other
        return node


def _nodes(function: ast.AST) -> Iterator[tuple[Path, ast.AST]]:
    """Yields the path and node of each part of the function's body, except the docstring."""
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


@contextmanager
def _in_place(root: ast.AST, path: Path, changed: ast.AST) -> Iterator[None]:
    """Replace the node at the end of the path for the duration of the `with` block."""
    before = _put(root, path, changed)
    try:
        yield
    finally:
        _put(root, path, before)


def _put(root: ast.AST, path: Path, changed: ast.AST) -> ast.AST:
    """Replace the node at the end of the path, and return the old node."""
    for name, index in path[:-1]:
        value = getattr(root, name)
        root = value if index is None else value[index]
    name, index = path[-1]
    before: ast.AST = getattr(root, name) if index is None else getattr(root, name)[index]
    if index is None:
        setattr(root, name, changed)
    else:
        getattr(root, name)[index] = changed
    return before


def _changes(node: ast.AST) -> Iterator[_Change]:
    """The possible replacements of a node."""
    kinds: dict[type, Any] = {
        ast.BinOp: _operation,
        ast.Compare: _comparison,
        ast.Call: _call,
        ast.Attribute: _attribute,
        ast.UnaryOp: _unary,
        ast.Constant: _constant,
        ast.AugAssign: _statement,
        ast.Expr: _statement,
        ast.Assign: _assigned,
        ast.IfExp: _choice,
        ast.keyword: _keyword,
        ast.Tuple: _targets,
        ast.Return: _returned,
    }
    if type(node) in kinds:
        yield from kinds[type(node)](node)


def _operation(node: ast.BinOp) -> Iterator[_Change]:
    text, op = ast.unparse(node), node.op
    part = "factor" if isinstance(op, ast.Mult) else "term"
    if type(op) in _OPERATORS:
        other = _OPERATORS[type(op)]()
        signs = "plus and minus" if isinstance(op, ast.Add | ast.Sub) else "multiplication and division"
        yield _Change(
            f"{text} with the other operator",
            f"{signs} are mixed up",
            ast.BinOp(node.left, other, node.right),
        )
        missing = "division" if isinstance(op, ast.Div) else part
        yield _Change(f"{text} without its right side", f"a {missing} is missing", node.left)
    if isinstance(op, ast.Mult | ast.Add):
        yield _Change(f"{text} without its left side", f"a {part} is missing", node.right)
    if isinstance(op, ast.Pow):
        yield _Change(f"{text} without the power", "a power is missing", node.left)
    if isinstance(op, ast.MatMult | ast.Sub):
        sides = "matrix product" if isinstance(op, ast.MatMult) else "difference"
        yield _Change(
            f"{text} reversed",
            f"the two sides of a {sides} are swapped",
            ast.BinOp(node.right, op, node.left),
        )


def _comparison(node: ast.Compare) -> Iterator[_Change]:
    if len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        other = _COMPARISONS[type(node.ops[0])]()
        yield _Change(
            f"{ast.unparse(node)} off by one",
            "a comparison is off by one, or the wrong way round",
            ast.Compare(node.left, [other], node.comparators),
        )


def _call(node: ast.Call) -> Iterator[_Change]:
    text = ast.unparse(node)
    for word in node.keywords:
        kept = [other for other in node.keywords if other is not word]
        yield _Change(
            f"{text} without {word.arg}",
            f"a call lacks its argument {word.arg}",
            ast.Call(node.func, node.args, kept),
        )
    if isinstance(node.func, ast.Attribute):
        name = node.func.attr.rstrip("_")
        on_module = isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "F", "math")
        receiver = node.args[0] if on_module and node.args else node.func.value
        if name in _LEFT_OUT or name in ("contiguous", "t"):
            yield _Change(f"{text} without {name}", f"{name} is missing", receiver)
        if name == "transpose" and len(node.args) >= 2:
            yield _Change(f"{text} without the transpose", "a transpose is missing", receiver)
        if name in ("softmax", "log_softmax") and not on_module:
            before = ast.Call(ast.Attribute(receiver, "softmax", ast.Load()), node.args, node.keywords)
            twice = ast.Call(ast.Attribute(before, name, ast.Load()), node.args, node.keywords)
            yield _Change(f"{text} of a softmax", "softmax is applied twice", twice)
        if name in ("maximum", "minimum") and on_module:
            for one in node.args:
                yield _Change(f"{ast.unparse(one)} for {text}", f"only one side of a {name} is used", one)
        if node.func.attr in _OTHERS:
            other = _OTHERS[node.func.attr]
            yield _Change(
                f"{text} with {other}",
                f"{other} is used instead of {node.func.attr}",
                ast.Call(ast.Attribute(node.func.value, other, ast.Load()), node.args, node.keywords),
            )
    if len(node.args) == 2 and not any(isinstance(one, ast.Starred | ast.Constant) for one in node.args):
        yield _Change(
            f"{text} with its arguments swapped",
            "two arguments of a call are swapped",
            ast.Call(node.func, node.args[::-1], node.keywords),
        )


def _attribute(node: ast.Attribute) -> Iterator[_Change]:
    if node.attr in ("mT", "T") and isinstance(node.ctx, ast.Load):
        yield _Change(f"{ast.unparse(node)} without the transpose", "a transpose is missing", node.value)


def _unary(node: ast.UnaryOp) -> Iterator[_Change]:
    text = ast.unparse(node)
    if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield _Change(f"{text} without its sign", "a minus sign is missing", node.operand)
        if "inf" in text:
            yield _Change(
                f"0.0 for {text}",
                "0 is used instead of -inf to mask an entry of a softmax",
                ast.Constant(0.0),
            )
    if isinstance(node.op, ast.Invert | ast.Not):
        yield _Change(f"{text} not negated", "a mask or condition is not negated", node.operand)
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        if isinstance(value, int):
            for other in (value + 1, value - 1):
                changed = ast.UnaryOp(ast.USub(), ast.Constant(other))
                yield _Change(f"{-other} for {-value}", _OFF_BY_ONE, changed)
        elif isinstance(value, float):
            yield _Change(f"{text} without its sign", "a minus sign is missing", node.operand)


_OFF_BY_ONE = "a whole number is off by one: a dimension, an index or a shift"


def _constant(node: ast.Constant) -> Iterator[_Change]:
    value = node.value
    if isinstance(value, bool):
        yield _Change(f"{not value} for {value}", "True and False are swapped", ast.Constant(not value))
    elif isinstance(value, int):
        for other in (value + 1, value - 1) if value > 0 else (value + 1, -1):
            yield _Change(f"{other} for {value}", _OFF_BY_ONE, ast.Constant(other))
    elif isinstance(value, float):
        twice = 2 * value or 1.0
        yield _Change(f"{twice} for {value}", "a constant has a different value", ast.Constant(twice))


def _statement(node: ast.AugAssign | ast.Expr) -> Iterator[_Change]:
    yield _Change(f"without {ast.unparse(node)}", "a line is missing", ast.Pass())


def _assigned(node: ast.Assign) -> Iterator[_Change]:
    if isinstance(node.value, ast.Name) and all(isinstance(one, ast.Name) for one in node.targets):
        yield _Change(f"without {ast.unparse(node)}", "a variable is not updated", ast.Pass())


def _choice(node: ast.IfExp) -> Iterator[_Change]:
    for one in (node.body, node.orelse):
        yield _Change(f"always {ast.unparse(one)}", "a condition is ignored", one)


def _keyword(node: ast.keyword) -> Iterator[_Change]:
    if node.arg == "keepdim":
        yield _Change(
            "without keepdim", "keepdim is missing", ast.keyword("keepdim", ast.Constant(value=False))
        )


def _targets(node: ast.Tuple) -> Iterator[_Change]:
    if not isinstance(node.ctx, ast.Store) or len(node.elts) > _ORDERED:
        return
    for order in islice(permutations(node.elts), 1, None):
        changed = ast.Tuple(list(order), ast.Store())
        yield _Change(
            f"{ast.unparse(changed)} for {ast.unparse(node)}",
            "values that are unpacked together are in a different order",
            changed,
        )


def _returned(node: ast.Return) -> Iterator[_Change]:
    if node.value is not None and not isinstance(node.value, ast.Tuple | ast.Constant | ast.UnaryOp):
        negated = ast.Return(ast.UnaryOp(ast.USub(), node.value))
        yield _Change("the result has the wrong sign", "the result has the opposite sign", negated)
