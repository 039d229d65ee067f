"""The wheel contains the plugins and the checklist, and an installed readtrack finds them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from readtrack import interpreter

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation, because the build backend is the locked one.
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
    assert {"readtrack/papers.yaml", "readtrack/verdicts.json", "readtrack/plugins.md"} <= inside
    styles = {
        f"readtrack/{p.relative_to(CHECKOUT / 'readtrack').as_posix()}"
        for p in CHECKOUT.rglob("readtrack/**/*.tcss")
    }
    assert styles
    assert styles <= inside
    assert not [name for name in inside if name.startswith(("tests/", "plugins/")) or "__pycache__" in name]


@pytest.mark.slow
def test_an_installed_wheel_finds_the_checkouts_plugins(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # Use the dependencies of this environment but not its editable readtrack: .pth files are ignored.
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


# The lock


LOCKS = sorted((CHECKOUT / "lock").glob("*.txt"))


def locked(path: Path) -> dict[str, Requirement]:
    """The locked requirements for this Python and system, by name."""
    lines = re.findall(r"^(\S+==.*?) \\$", path.read_text(encoding="utf-8"), re.MULTILINE)
    found = (Requirement(line) for line in lines)
    return {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate()}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_is_a_version_with_hashes_and_names_no_place(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    form = re.compile(r"[a-z0-9-]+==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not form.fullmatch(line)] == []
    assert not re.search(r"^[^ ].*\n[^ ]", "\n".join(lines), re.MULTILINE), "a version without a hash"


def test_the_lock_has_all_dependencies_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], project["build-system"]["requires"], *extras.values()]
    held: dict[str, Requirement] = {}
    for path in LOCKS:
        held |= locked(path)
    for one in map(Requirement, itertools.chain(*lists)):
        if one.name != "readtrack" and (one.marker is None or one.marker.evaluate()):
            (pin,) = held[canonicalize_name(one.name)].specifier
            assert one.specifier.contains(pin.version, prereleases=True), one


def test_both_builds_of_torch_have_one_version() -> None:
    usual, cpu = (str(locked(CHECKOUT / "lock" / name)["torch"]) for name in ("torch.txt", "torch-cpu.txt"))
    assert cpu == f"{usual}+cpu"


def test_make_installs_wheels_of_the_lock_and_builds_only_readtrack(tmp_path: Path) -> None:
    command = ["make", "--dry-run", f"VENV={tmp_path}/env", f"{tmp_path}/env/.dev"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    installs = re.findall(r"-m pip .*?(?=2>|\|\||$)", done.stdout, re.MULTILINE)
    locks = ("build.txt", "run.txt", "torch-cpu.txt", "torch.txt", "dev.txt")
    *wheels, own = sorted(installs, key=lambda one: "--editable" in one)
    assert [re.search(r"lock/(\S+)", one)[1] for one in wheels] == list(locks)
    assert all("--require-hashes" in one and "--only-binary :all:" in one for one in wheels)
    assert "--no-build-isolation" in own
    assert all("--no-deps" in one for one in installs)


# Install commands for extras


def test_a_checkout_is_extended_by_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    own = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: own("json") if name == "pip" else own(name))
    asked = f"--editable '{CHECKOUT}[run]'"
    assert interpreter.install_command() == f"{sys.executable} -m pip install {asked}"
    assert interpreter.install_command("run", "/py") == f"/py -m pip install {asked}"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else own(name))
    assert interpreter.install_command() == f"uv pip install --python {sys.executable} {asked}"


def test_an_installation_is_extended_from_its_source(wheel: Path, tmp_path: Path) -> None:
    """Also tests a deleted clone. On a package index, the name may belong to another project."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    came = next((tmp_path / "site").glob("*.dist-info")) / "direct_url.json"

    def command() -> str:
        code = "from readtrack import interpreter; print(interpreter.install_command('run', '/py'))"
        variables = {"PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert command() == "(in a clone of readtrack) /py -m pip install '.[run]'"
    came.write_text(json.dumps({"url": "file:///no/such%20folder", "dir_info": {}}))
    assert command() == "(in a clone of readtrack) /py -m pip install '.[run]'"
    came.write_text(json.dumps({"url": CHECKOUT.as_uri(), "dir_info": {}}))
    assert command() == f"/py -m pip install '{CHECKOUT}[run]'"


def test_nothing_is_installed_by_the_name_of_readtrack_alone() -> None:
    texts = [*CHECKOUT.rglob("readtrack/**/*.py"), CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")]
    found = [path for path in texts if re.search(r"install '?readtrack", path.read_text(encoding="utf-8"))]
    assert found == []
