"""Without PyTorch, the list works, and commands that need PyTorch print the install command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FOR_RUNS = re.compile(r"(torch|functorch|triton|numpy|sklearn|scikit_learn|scipy|jaxtyping)\b")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with all packages of this environment except those for runs."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for path in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for package in path.iterdir():
            if not FOR_RUNS.match(package.name) and not (site / package.name).exists():
                (site / package.name).symlink_to(package)
    return folder / "bin" / "python"


@pytest.fixture
def run(python: Path, papers: Path, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "readtrack", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("list", "--runnable"), ("show", "toy_sgd"), ("mark", "toy_sgd", "read"), ("sync", "--help")],
)
def test_the_list_works(run: Run, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(CHECKOUT / "tests" / "toys"))
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_app_opens(python: Path) -> None:
    code = "import readtrack.tui.app, readtrack.tui.screens.run_options, readtrack.tui.controllers.sync"
    done = subprocess.run(
        [python, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [("run", "attention"), ("devices",), ("calibrate",), ("plugins", "check", "attention")]
)
def test_commands_that_need_torch_explain_how_to_install_it(
    run: Run, python: Path, arguments: tuple[str, ...]
) -> None:
    done = run(*arguments)
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("readtrack: PyTorch is not installed")
    assert f"{python} -m pip install --editable '{CHECKOUT}[run]'" in done.stderr


def test_the_doctor_reports_it_and_finds_no_problem(run: Run) -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert re.search(
        rf"^ok +runs .* has no torch, .*-m pip install --editable '{CHECKOUT}\[run\]'",
        done.stdout,
        re.MULTILINE,
    )


def test_runs_are_an_extra_and_development_includes_it() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=~;\s]", requirement)[0] for requirement in requirements}

    assert names(extras["run"]) == {"torch", "numpy", "scikit-learn", "jaxtyping"}
    assert names(project["dependencies"]).isdisjoint(names(extras["run"]))
    assert "readtrack[run,test]" in extras["dev"]
