"""What a process imports, looked at from inside a fresh interpreter (a static graph cannot see deferrals)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
def test_the_parents_side_imports_nothing_heavy(module: str) -> None:
    assert modules_after(f"import readtrack.{module}").isdisjoint(HEAVY)


def test_opening_the_library_imports_no_plugin_and_nothing_heavy() -> None:
    seen = modules_after("from readtrack.library import Library; Library.open().runnable()")
    assert seen.isdisjoint({*HEAVY, "textual", "rich"})
    assert not [name for name in seen if name.startswith("readtrack.papers.")]


def test_the_start_of_the_app_does_not_import_the_search() -> None:
    seen = modules_after("import readtrack.tui.app")
    assert seen.isdisjoint({"sqlite3", "readtrack.fulltext.index", "readtrack.fulltext.searching"})
