"""The wheel carries the plugins and the checklist, and an installed readtrack finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # No isolation: the build backend is the one that the constraints file pinned.
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(CHECKOUT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("readtrack-*.whl"))


def plugin_names(folder: Path) -> set[str]:
    files = {path.stem for path in folder.glob("*.py")}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    return {name for name in files | folders if not name.startswith("_")}


def test_the_wheel_holds_every_file_of_every_plugin_and_the_checklist(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    plugins = CHECKOUT / "plugins"
    for path in plugins.rglob("*.py"):
        assert f"readtrack/papers/{path.relative_to(plugins).as_posix()}" in inside
    assert "readtrack/papers.yaml" in inside
    styles = {
        f"readtrack/{p.relative_to(CHECKOUT / 'readtrack').as_posix()}"
        for p in CHECKOUT.rglob("readtrack/**/*.tcss")
    }
    assert styles
    assert styles <= inside
    assert not [name for name in inside if name.startswith(("tests/", "plugins/")) or "__pycache__" in name]


def test_an_installed_wheel_finds_the_checkouts_plugins(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # The dependencies come from this environment, its editable readtrack does not: no .pth file is read.
    dependencies = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{site}{os.pathsep}{dependencies}",
        "READTRACK_HOME": str(tmp_path / "home"),
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(python), "-m", "readtrack", *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    listed = json.loads(run("plugins", "list", "--json"))
    assert {plugin["name"] for plugin in listed} == plugin_names(CHECKOUT / "plugins")
    assert {plugin["origin"] for plugin in listed} == {"shipped"}
    assert all(str(site) in plugin["location"] for plugin in listed)
    assert "FlashAttention" in run("list")
    outcome = json.loads(run("run", "attention", "--budget", "smoke", "--json").splitlines()[-1])
    assert outcome["outcome"] == "completed"
