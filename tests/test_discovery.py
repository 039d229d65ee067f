"""Finding plugins without importing them, and one line for each kind of broken plugin."""

import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from readtrack.errors import ReadtrackError
from readtrack.plugins import check, find, load
from readtrack.plugins.find import PluginRef

SOUND = """
from readtrack.plugin import hookimpl

@hookimpl
def implementation():
    return dict

@hookimpl
def experiment(run):
    pass

@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.fixture
def write(home):
    """Write a plugin into the reader's own folder, or into `folder`."""

    def write(name, text=SOUND, folder=None):
        path = (folder or home.plugins) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def only_own(home):
    return {name: ref for name, ref in find.find(home).items() if ref.origin != "shipped"}


def test_files_and_packages_are_found_without_importing_them(home, write):
    toy = write("toy.py", "raise SystemExit('imported')")
    folder = write("toy_folder/__init__.py", "raise SystemExit('imported')")
    assert only_own(home) == {
        "toy": PluginRef("toy", "user", str(toy)),
        "toy_folder": PluginRef("toy_folder", "user", str(folder)),
    }


def test_junk_in_a_plugin_folder_is_passed_over(home, write):
    for name in ("README.md", "toy.pyc", "_helper.py", ".hidden.py", "data/x.txt", "my-paper.py", "class.py"):
        write(name, "")
    (home.plugins / "folder.py").mkdir()
    (home.plugins / "dangling.py").symlink_to(home.plugins / "nowhere.py")
    assert only_own(home) == {}
    assert [line.partition(": ")[0].rpartition("/")[2] for line in find.problems(home)] == [
        "class.py",
        "my-paper.py",
    ]


def test_a_missing_folder_on_the_path_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", f"{tmp_path / 'nowhere'}:")
    assert only_own(home) == {}
    assert find.problems(home) == [f"READTRACK_PLUGIN_PATH: {tmp_path / 'nowhere'} is not a folder"]


def test_earlier_origins_shadow_later_ones_and_are_marked(home, tmp_path, monkeypatch, write):
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", f"{one}:{two}")
    monkeypatch.syspath_prepend(installed(tmp_path / "site", {"toy": "vendor.toy", "other": "vendor.other"}))
    mine = write("toy.py")
    first = write("toy.py", folder=one)
    package = write("toy/__init__.py", folder=two)
    second = write("toy.py", folder=two)
    assert only_own(home) == {
        "other": PluginRef("other", "installed", "vendor.other"),
        "toy": PluginRef("toy", "user", str(mine), (str(first), str(package), str(second), "vendor.toy")),
    }


def test_a_folder_named_twice_shadows_nothing(home, monkeypatch, write):
    write("toy.py")
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", f"{home.plugins}:{home.plugins}/../plugins")
    assert only_own(home)["toy"].shadows == ()


def installed(site, entries):
    """A distribution with these entry points, in the form that pip installs."""
    info = site / "vendor-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor\nVersion: 1.0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in entries.items())
    (info / "entry_points.txt").write_text(f"[readtrack.plugins]\n{lines}")
    return site


def test_finding_is_quick_and_light(home):
    code = (
        "import sys; from readtrack.plugins.find import find; from readtrack.home import Home; find(Home());"
        "print([name for name in ('torch', 'numpy', 'pluggy', 'importlib.metadata') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_load_registers_the_hooks_of_one_plugin(home, write):
    write("toy_base.py", f"WIDTH = 8\n{SOUND}")
    write("toy.py", f"from .toy_base import WIDTH\n{SOUND}")
    manager = load.load("toy", home)
    assert manager.hook.implementation() is dict
    assert [name for name, _ in manager.list_name_plugin()] == ["toy"]


def test_load_names_the_nearest_plugin(home, write):
    write("toy_norm.py")
    with pytest.raises(ReadtrackError, match="did you mean 'toy_norm'"):
        load.load("toy_norn", home)


@pytest.mark.parametrize(
    "text", [SOUND, "import sys, os\nprint('noise'); sys.stderr.write('noise')\n" + SOUND]
)
def test_check_of_a_sound_plugin(home, write, text):
    write("toy.py", text)
    assert check.check("toy", home) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ndef f(:\n", "{file}:2: syntax error: invalid syntax"),
        ("import nothing_such.deep\n", "{file}:1: needs the package 'nothing_such', which is not installed"),
        (
            "x = 1\nfrom .nothing_such import Y\n",
            "{file}:2: needs the paper 'nothing_such', which has no plugin here",
        ),
        ("from readtrack.plugin import Nothing\n", "{file}:1: ImportError: cannot import name 'Nothing'"),
        ("1 / 0\n", "{file}:1: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "{file}:2: called sys.exit(3) while it was imported"),
        (
            SOUND.replace("experiment(run)", "experimnt(run)"),
            "{file}:8: unknown hook 'experimnt'; did you mean",
        ),
        (SOUND.replace("experiment(run)", "train(run)"), "{file}:8: unknown hook 'train'; the hooks are"),
        (SOUND.replace("experiment(run)", "experiment(r)"), "{file}:8: the hook must be experiment(run)"),
        (
            SOUND.replace("experiment(run)", "experiment(run, extra)"),
            "{file}:8: the hook must be experiment(run)",
        ),
        (
            SOUND.replace("implementation()", "implementation(run)"),
            "{file}:4: the hook must be implementation()",
        ),
        (
            SOUND.replace("@hookimpl\ndef experiment", "def experiment"),
            "experiment() is not marked with @hookimpl",
        ),
        (
            SOUND.replace("@hookimpl\ndef experiment", "def experimnt"),
            "no hook 'experiment'; did you mean 'experimnt'",
        ),
        (SOUND.replace("@hookimpl\ndef benchmark", "def other"), "{file}: has no hook 'benchmark'"),
        ("", "{file}: has no hook 'implementation'"),
        ("import ctypes\nctypes.string_at(0)\n", "it crashed (SIGSEGV) during import"),
        ("import os\nos.kill(os.getpid(), 35)\n", "it crashed (signal 35) during import"),
        ("import os\nos._exit(0)\n", "it ended the process (exit code 0) during import"),
        ("raise Exception('\x1b[31mred\\nand more')\n", "{file}:1: Exception: red and more"),
    ],
)
def test_check_explains_the_error_in_one_line(home, write, text, reason):
    file = write("toy.py", text)
    told = check.check("toy", home)
    assert reason.format(file=file) in told
    assert "\n" not in told
    assert "\x1b" not in told


def test_check_gives_up_on_an_endless_import_and_leaves_no_process(home, write, tmp_path, dies):
    marker = tmp_path / "child"
    write(
        "toy.py",
        f"""
        import subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        open({str(marker)!r}, "w").write(str(child.pid))
        time.sleep(600)
        """,
    )
    start = time.monotonic()
    assert check.check("toy", home, timeout=2) == "it took more than 2 s during import"
    assert time.monotonic() - start < 10
    assert dies(int(marker.read_text()))


def test_check_ends_the_group_while_its_number_is_still_the_leaders(home, write, monkeypatch):
    """After the leader was reaped, another process may get its number."""
    write("toy.py", SOUND)
    held = []
    kill_group = os.killpg

    def kill(group, sign):
        held.append(psutil.pid_exists(group))
        kill_group(group, sign)

    monkeypatch.setattr(check.os, "killpg", kill)
    assert check.check("toy", home) is None
    assert held == [True]


def test_a_fault_deep_in_a_folder_plugin_is_found_there(home, write):
    write("toy/__init__.py", f"from .kernel import KERNEL\n{SOUND}")
    kernel = write("toy/kernel.py", "KERNEL = 1\nraise ValueError('no')\n")
    assert check.check("toy", home) == f"{kernel}:2: ValueError: no"


def run_python(code, **environment):
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def test_papers_can_be_imported_from_every_origin(home, tmp_path, write):
    site = installed(tmp_path / "site", {"toy_vendor": "vendor.toy", "toy": "vendor.other"})
    write("__init__.py", "", folder=site / "vendor")
    write("toy.py", "from .toy_path import WHERE as PATH\nWHERE = 'installed'\n", folder=site / "vendor")
    write("other.py", "WHERE = 'shadowed'\n", folder=site / "vendor")
    write("toy_path.py", "WHERE = 'path'\n", folder=tmp_path / "path")
    write("toy.py", "WHERE = 'user'\n", folder=tmp_path / "path")
    write("toy.py", "from .toy_path import WHERE as PATH\nWHERE = 'user'\n")
    code = (
        "from readtrack.papers import toy, toy_path, toy_vendor;"
        "print(toy.WHERE, toy.PATH, toy_path.WHERE, toy_vendor.WHERE, toy_vendor.PATH, toy_vendor.__name__)"
    )
    told = run_python(code, READTRACK_PLUGIN_PATH=str(tmp_path / "path"), PYTHONPATH=str(site))
    assert told == "user path path installed path readtrack.papers.toy_vendor"
