"""The code sent with a job: the Python files of the paper's plugin and of the papers it builds on."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from readtrack.plugins.code import closure
from readtrack.plugins.find import PluginRef

Code = tuple[str, bytes]  # SHA-256 of the archive, and the archive


def pack(paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]) -> Code:
    """Pack code reproducibly. Installed plugins are not sent, and must be installed on the other machine."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name in closure(paper, plugins, builds_on):
            if plugins[name].origin != "installed":
                _add(tar, Path(plugins[name].location))
    return hashlib.sha256(output.getvalue()).hexdigest(), output.getvalue()


def names(code: Code) -> list[str]:
    """The names of the files in the archive."""
    with tarfile.open(fileobj=io.BytesIO(code[1])) as tar:
        return tar.getnames()


def _add(tar: tarfile.TarFile, file: Path) -> None:
    base = file.parent.parent if file.name == "__init__.py" else file.parent
    for path in _files(file):
        entry = tarfile.TarInfo(path.relative_to(base).as_posix())
        data = path.read_bytes()
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def _files(file: Path) -> list[Path]:
    """A plugin's Python files, without hidden files and files outside the plugin's folder."""
    if file.name != "__init__.py":
        return [file]
    package = file.parent.resolve()
    return [
        path
        for path in sorted(file.parent.rglob("*.py"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(file.parent).parts)
        and path.resolve().is_relative_to(package)
    ]
