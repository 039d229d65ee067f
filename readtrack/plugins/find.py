"""Find plugins by name from file names alone, without importing any.

A plugin is a module `<id>.py` or a package `<id>/__init__.py` in a plugin folder, or an entry point of the
group `readtrack.plugins`. There are four origins, each shadowing the later ones: the reader's own folder
(READTRACK_HOME/plugins), the folders on READTRACK_PLUGIN_PATH, installed distributions, and the plugins
shipped with readtrack.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import readtrack
from readtrack.home import Home

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


Origin = Literal["user", "path", "installed", "shipped"]


NAMESPACE = "readtrack.papers"


_ORIGINS: tuple[Origin, ...] = ("user", "path", "installed", "shipped")


_GROUP = "readtrack.plugins"


_DIST_INFO = (".dist-info", ".egg-info")


@dataclass(frozen=True, slots=True)
class PluginRef:
    """A plugin that was found, but not loaded.

    location  the file, or the module name of an installed plugin
    shadows   locations of the plugins with the same name that this one hides
    """

    name: str
    origin: Origin
    location: str
    shadows: tuple[str, ...] = ()


def folders(home: Home) -> list[tuple[Origin, Path]]:
    """The existing plugin folders, in order of precedence."""
    found: dict[Path, tuple[Origin, Path]] = {}
    for origin, folder in _places(home):
        if folder.is_dir():
            found.setdefault(folder.resolve(), (origin, folder))
    return list(found.values())


def _places(home: Home) -> Iterator[tuple[Origin, Path]]:
    yield "user", home.plugins
    for entry in plugin_path():
        yield "path", entry
    yield "shipped", _shipped_folder()


def _shipped_folder() -> Path:
    package = Path(readtrack.__file__).parent
    # The build hook puts both papers.yaml and the plugins into a wheel.
    return package / "papers" if (package / "papers.yaml").exists() else package.parent / "plugins"


def plugin_path() -> list[Path]:
    """READTRACK_PLUGIN_PATH as absolute folders."""
    entries = os.environ.get("READTRACK_PLUGIN_PATH", "").split(os.pathsep)
    return [Path(entry).expanduser().absolute() for entry in entries if entry.strip()]


def search_path(home: Home) -> list[str]:
    """The value of `readtrack.papers.__path__`; installed plugins are imported by a separate finder."""
    installed = {entry.name: entry.module for entry in _entry_points()}
    if installed and not any(isinstance(finder, _InstalledFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InstalledFinder(home, installed))
    return [str(folder) for _, folder in folders(home)]


def find(home: Home) -> dict[str, PluginRef]:
    """Every plugin by name, sorted, without importing any."""
    places = [(origin, *module) for origin, folder in folders(home) for module in _modules(folder)]
    places += [("installed", entry.name, entry.module) for entry in _entry_points()]
    places.sort(key=lambda place: _ORIGINS.index(place[0]))
    found: dict[str, list[tuple[Origin, str]]] = {}
    for origin, name, location in places:
        found.setdefault(name, []).append((origin, location))
    return {
        name: PluginRef(name, *places[0], shadows=tuple(location for _, location in places[1:]))
        for name, places in sorted(found.items())
    }


def shipped() -> dict[str, PluginRef]:
    """The plugins shipped with readtrack, by name, even if shadowed."""
    return {name: PluginRef(name, "shipped", file) for name, file in _modules(_shipped_folder())}


def problems(home: Home) -> list[str]:
    """One line for each entry of a plugin folder that looks like a plugin but cannot be one."""
    lines = [
        f"READTRACK_PLUGIN_PATH: {folder} is not a folder" for folder in plugin_path() if not folder.is_dir()
    ]
    for _, folder in folders(home):
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            lines.append(f"{folder}: {error.strerror}")
            continue
        lines += [
            f"{folder / name}: a plugin's name must be a Python identifier"
            for name in names
            if name.endswith(".py") and not name.startswith(("_", ".")) and not _is_name(name[:-3])
        ]
    return lines


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(name, file) of the modules and packages in `folder`; packages before files, as in Python."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    packages: list[tuple[str, str]] = []
    files: list[tuple[str, str]] = []
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        if suffix == ".py" and _is_name(stem) and entry.is_file():
            files.append((stem, entry.path))
        elif _is_name(entry.name) and os.path.isfile(os.path.join(entry.path, "__init__.py")):
            packages.append((entry.name, os.path.join(entry.path, "__init__.py")))
    return packages + files


def _is_name(text: str) -> bool:
    return text.isidentifier() and not text.startswith("_") and not keyword.iskeyword(text)


def _entry_points() -> list[EntryPoint]:
    """The entry points of our group, sorted by name.

    importlib.metadata is slow with many distributions, so it reads only those whose file names the group.
    """
    found: dict[str, EntryPoint] = {}
    for folder in sys.path:
        try:
            entries = sorted(e.path for e in os.scandir(folder or ".") if e.name.endswith(_DIST_INFO))
        except OSError:
            continue
        for path in entries:
            try:
                with open(os.path.join(path, "entry_points.txt"), "rb") as file:
                    declared = file.read()
            except OSError:
                continue
            if f"[{_GROUP}]".encode() in declared:
                from importlib.metadata import PathDistribution

                for entry in PathDistribution(Path(path)).entry_points.select(group=_GROUP):
                    if _is_name(entry.name):
                        found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]


class _InstalledFinder:
    """Imports an installed plugin as `readtrack.papers.<id>`, unless another plugin shadows it.

    Under that name its relative imports of other papers work, as in any plugin.
    """

    def __init__(self, home: Home, modules: dict[str, str]) -> None:
        self._home = home
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != NAMESPACE or name not in self._modules:
            return None
        if find(self._home)[name].origin != "installed":
            return None
        original = importlib.util.find_spec(self._modules[name])
        if original is None or original.origin is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname,
            original.origin,
            submodule_search_locations=original.submodule_search_locations,
        )
