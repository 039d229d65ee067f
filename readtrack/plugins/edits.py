"""The differences between the reader's copy of a plugin and the plugin that it shadows.

A run stores the whole text of every edited file, before and after, in `edits.json`, so that its diff can be
shown and compared with another run's even if the files change later.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from readtrack import regular
from readtrack.home import write_text
from readtrack.plugins.code import closure, files
from readtrack.plugins.find import PluginRef
from readtrack.text import counted, plain

_FILE = "edits.json"
_LARGEST = 16 << 20  # size limit of an edits.json, in bytes
_NAMED = 2  # maximum number of files in a summary


class Edit(NamedTuple):
    """One file that differs.

    file           relative to the plugin's parent folder: `adamw/model.py`, `reinforce.py`
    before, after  its text as shipped and as run; "" for a missing file
    """

    file: str
    before: str
    after: str

    def diff(self) -> list[str]:
        """Lines of a unified diff, without line ends and without the header with file names."""
        a, b = self.before.splitlines(), self.after.splitlines()
        return list(difflib.unified_diff(a, b, n=3, lineterm=""))[2:]

    @property
    def counts(self) -> str:
        """`+1 −1`: lines added and removed."""
        diff = self.diff()
        added, removed = (sum(line.startswith(sign) for line in diff) for sign in "+-")
        return f"+{added} −{removed}"


def of_plugin(plugin: PluginRef) -> list[Edit]:
    """The differences from the last plugin that this one shadows: the shipped one, if there is one."""
    if not plugin.shadows or plugin.origin == "installed":
        return []
    original = Path(plugin.shadows[-1])
    if not original.is_file():  # an installed plugin is given by its module name
        return []
    before, after = texts(PluginRef(plugin.name, "shipped", str(original))), texts(plugin)
    return [
        Edit(name, before.get(name, ""), after.get(name, ""))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def of_paper(
    paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]
) -> list[Edit]:
    """The edits in a run of the paper: its own, and those of the papers that it builds on."""
    return [edit for name in closure(paper, plugins, builds_on) for edit in of_plugin(plugins[name])]


def texts(plugin: PluginRef) -> dict[str, str]:
    """The plugin's texts by path, relative to its parent folder."""
    main = Path(plugin.location)
    base = main.parent.parent if main.name == "__init__.py" else main.parent
    return {
        path.relative_to(base).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in files(plugin)
        if not path.name.startswith(".")
    }


def summary(paper: str, found: Sequence[Edit]) -> str:
    """`model.py +1 −1, sgd/model.py +3 −0`; "" without edits."""
    named = [f"{edit.file.removeprefix(f'{paper}/')} {edit.counts}" for edit in found[:_NAMED]]
    more = len(found) - len(named)
    if more:
        named.append(counted(more, "more file"))
    return ", ".join(named)


def save(folder: Path, found: Sequence[Edit]) -> None:
    """Save the edits in a run's folder. Raises OSError."""
    if found:
        write_text(folder / _FILE, json.dumps([edit._asdict() for edit in found], ensure_ascii=False) + "\n")


def load(folder: Path) -> list[Edit]:
    """The edits saved in a run's folder; none if there are none, or they cannot be read."""
    path = folder / _FILE
    try:
        kept = json.loads(regular.read_bytes(path, _LARGEST))
        return [Edit(*(plain(str(one[name])) for name in Edit._fields)) for one in kept]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def of_runs(a: Path, b: Path) -> list[Edit]:
    """The differences in code from the run in folder `a` to the run in folder `b`."""
    return between(load(a), load(b))


def between(a: Sequence[Edit], b: Sequence[Edit]) -> list[Edit]:
    """The differences in code from run `a` to run `b`.

    A file that only one of them edited ran as shipped in the other.
    """
    ours, theirs = ({edit.file: edit for edit in found} for found in (a, b))
    texts = {
        name: tuple(
            one[name].after if name in one else other[name].before
            for one, other in ((ours, theirs), (theirs, ours))
        )
        for name in sorted(ours.keys() | theirs.keys())
    }
    return [Edit(name, before, after) for name, (before, after) in texts.items() if before != after]
