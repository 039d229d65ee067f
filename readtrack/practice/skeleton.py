"""The skeleton file for the reader: the paper's functions without their bodies."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from readtrack.errors import ReadtrackError
from readtrack.plugins.find import NAMESPACE
from readtrack.practice.sheet import Definition, Sheet, definition, parsed

_WIDTH = 88
_EMPTY = "raise NotImplementedError"
_DTYPES = ("Float", "Float32", "Float64", "Int", "Int64", "Bool", "Complex", "Num", "Shaped", "Inexact")


def text(title: str, found: Sequence[Sheet], *, solved: bool = False) -> str:
    """The whole file, with the paper's bodies if `solved`. Raises ReadtrackError if a file cannot be read."""
    paper = found[0].paper
    head = (
        f'"""{title}, written by you.\n\n'
        f"    readtrack practice {paper} --check     compare what you wrote with the paper's code\n"
        f"    readtrack practice {paper} --watch     the same whenever this file is saved\n"
        f"    readtrack practice {paper} --hint      the next hint for the first open exercise\n\n"
        "Fill in the bodies. Names imported from readtrack.papers are given; change anything else as "
        "you like.\n"
        '"""\n\nfrom __future__ import annotations\n'
    )
    blocks = [block(found, sheet.qualname, solved=solved) for sheet in firsts(found)]
    return f"{head}\n{_imports(found)}\n\n" + "\n\n".join(blocks)


def firsts(found: Sequence[Sheet]) -> list[Sheet]:
    """One exercise for each top-level function or class in the file."""
    seen: dict[str, Sheet] = {}
    for sheet in found:
        seen.setdefault(_top(sheet.qualname), sheet)
    return list(seen.values())


def block(found: Sequence[Sheet], qualname: str, *, solved: bool = False) -> str:
    """The function or the method's class, with the task above each body to write.

    solved  with the paper's bodies
    """
    own = [one for one in found if _top(one.qualname) == _top(qualname)]
    sheet = own[0]
    node = definition(parsed(sheet.file), _top(qualname))
    if node is None:
        raise ReadtrackError(f"{sheet.file} no longer has {qualname}.")
    source = _source(sheet.file).splitlines()
    if solved:
        return "\n".join(source[_start(node) - 1 : node.end_lineno]) + "\n"
    numbers = {one.qualname: found.index(one) + 1 for one in own}
    if isinstance(node, ast.ClassDef):
        others = {name for one in found if one not in own for name in _attributes(one)}
        return "\n".join(_class(node, source, own, numbers, others)) + "\n"
    return "\n".join([*_task(sheet, numbers[sheet.qualname], ""), *_emptied(node, source)]) + "\n"


def empty(sheet: Sheet) -> list[str]:
    """The exercise's function alone, without its body."""
    node = definition(parsed(sheet.file), sheet.qualname)
    if node is None:
        raise ReadtrackError(f"{sheet.file} no longer has {sheet.qualname}.")
    return _emptied(node, _source(sheet.file).splitlines())


def is_empty(node: ast.AST) -> bool:
    """Whether the body is only a docstring, `...`, pass or raise NotImplementedError."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(_says_nothing(statement) for statement in node.body)


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    raised = statement.exc if isinstance(statement, ast.Raise) else None
    if isinstance(raised, ast.Call):
        raised = raised.func
    return isinstance(statement, ast.Pass) or (
        isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    )


def _attributes(sheet: Sheet) -> set[str]:
    """The attributes that the function to write accesses."""
    node = definition(parsed(sheet.file), sheet.qualname)
    return {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)} if node else set()


def _class(
    node: ast.ClassDef, source: list[str], own: Sequence[Sheet], numbers: dict[str, int], others: set[str]
) -> Iterator[str]:
    """The class without unrelated methods and without the bodies of the methods to write.

    Unrelated methods are left out, because they often contain the same equation.

    others  attributes used by the other functions to write
    """
    wanted = {one.qualname.rpartition(".")[2]: one for one in own}
    shown, line = _shown(node, set(wanted), others), _start(node)
    kept: list[str] = []
    for statement in node.body:
        if not isinstance(statement, Definition):
            continue
        sheet = wanted.get(statement.name)
        if sheet is None and statement.name in shown:
            continue
        kept += source[line - 1 : _start(statement) - 1]
        line = (statement.end_lineno or statement.lineno) + 1
        if sheet:
            kept += _task(sheet, numbers[sheet.qualname], " " * statement.col_offset)
            kept += _emptied(statement, source)
        while kept and not kept[-1].strip():
            kept.pop()
    yield from (*kept, *source[line - 1 : node.end_lineno])


def _shown(node: ast.ClassDef, wanted: set[str], others: set[str]) -> set[str]:
    """Names to show: special methods, classes, and methods that call or are called by the ones to write."""
    uses = {
        one.name: {part.attr for part in ast.walk(one) if isinstance(part, ast.Attribute)}
        for one in node.body
        if isinstance(one, ast.FunctionDef)
    }
    shown = {one.name for one in node.body if isinstance(one, ast.ClassDef)}
    shown |= {name for name, used in uses.items() if name.startswith("__") or used & wanted}
    todo = [*wanted, *(uses.keys() & others - wanted)]
    shown |= set(todo) - wanted
    while todo:
        found = uses.get(todo.pop(), set()) & uses.keys() - shown
        shown |= found
        todo += found
    return shown


def _task(sheet: Sheet, number: int, indent: str) -> list[str]:
    said = f"{number} {sheet.name}: {sheet.task}"
    return textwrap.wrap(said, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _emptied(node: Definition, source: list[str]) -> list[str]:
    """Decorators, signature and docstring of a function, with an empty body."""
    first = node.body[0]
    has_docstring = ast.get_docstring(node, clean=False) is not None
    end = (first.end_lineno or first.lineno) if has_docstring else _start(first) - 1
    kept = source[_start(node) - 1 : end]
    while kept and (not kept[-1].strip() or kept[-1].strip().startswith("#")):
        kept.pop()
    if first.lineno == node.lineno:  # def f(x): return x
        kept = [source[node.lineno - 1][: first.col_offset].rstrip()]
    return [*kept, f"{' ' * (node.col_offset + 4)}{_EMPTY}"]


def _start(node: ast.stmt) -> int:
    """The first line, including decorators."""
    decorators = node.decorator_list if isinstance(node, Definition) else ()
    return min([node.lineno, *(one.lineno for one in decorators)])


def _source(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _top(qualname: str) -> str:
    return qualname.partition(".")[0]


# The functions' imports


def _imports(found: Sequence[Sheet]) -> str:
    """Imports for the functions: the plugin's imports, and the plugin's own names from their modules.

    Named shapes are expanded.
    """
    written = {_top(sheet.qualname) for sheet in found}
    lines: dict[str, None] = {}
    own: dict[str, set[str]] = {}
    written_out: dict[str, None] = {}
    for sheet in firsts(found):
        tree = parsed(sheet.file)
        node = definition(tree, _top(sheet.qualname))
        if node is None:
            continue
        used = _used(node) - written
        shapes = {name: value for name, value in _shapes(tree).items() if name in used}
        used = (used - shapes.keys()).union(*(_used(value) for value in shapes.values()))
        written_out.update((ast.unparse(value).replace("'", '"'), None) for value in shapes.values())
        imported = dict(_imported(tree, sheet))
        defined = set(_defined(tree))
        for name in sorted(used - shapes.keys()):
            if name in imported:
                lines[imported[name]] = None
            elif name in defined:
                own.setdefault(sheet.dotted, set()).add(name)
    for module, names in own.items():
        lines.update((f"from {module} import {name}", None) for name in sorted(names))
    return _sorted_imports(lines) + "".join(f"\n{line}" for line in written_out) + "\n" * bool(written_out)


def _used(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _shapes(tree: ast.Module) -> dict[str, ast.Assign]:
    """Named shapes such as `State = Float[Tensor, "batch hidden"]`, by name."""
    return {
        node.targets[0].id: node
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(node.value, ast.Subscript) and ast.unparse(node.value.value) in _DTYPES
    }


def _imported(tree: ast.Module, sheet: Sheet) -> Iterator[tuple[str, str]]:
    """Each imported name, with an absolute import statement."""
    package = sheet.dotted if sheet.file.name == "__init__.py" else sheet.dotted.rpartition(".")[0]
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                said = f"import {one.name}" + (f" as {one.asname}" if one.asname else "")
                yield one.asname or one.name.partition(".")[0], said
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            module = node.module or ""
            if node.level:
                base = package.split(".")
                base = base[: len(base) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            for one in node.names:
                said = f"from {module} import {one.name}" + (f" as {one.asname}" if one.asname else "")
                yield one.asname or one.name, said


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements at the top level and inside `if TYPE_CHECKING:`."""
    for node in tree.body:
        if isinstance(node, ast.If):
            yield from node.body
        else:
            yield node


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, Definition):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))


def _sorted_imports(lines: Iterable[str]) -> str:
    """Imports in three groups, with one line per module."""
    plain = sorted(line for line in lines if line.startswith("import "))
    names: dict[str, list[str]] = {}
    for line in sorted(line for line in lines if line.startswith("from ")):
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, []).append(name)
    own = {module: named for module, named in names.items() if module.startswith(f"{NAMESPACE}.")}
    others = {module: named for module, named in names.items() if module not in own}
    groups = [
        [*plain, *(_from(module, named) for module, named in others.items())],
        [_from(module, named) for module, named in own.items()],
    ]
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def _from(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
