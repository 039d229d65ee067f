"""`devices`, `doctor` and `plugins`: available devices, reported problems, and a newly written plugin."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.checks.__main__ import in_words
from readtrack.cli import ending, machine, plugins
from readtrack.cli.app import run as readtrack
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins import find
from readtrack.runs import store
from readtrack.runs.job import Job

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_devices_name_the_cpu_last(cli: Cli) -> None:
    devices = json.loads(cli("devices", "--json").stdout)
    assert devices[-1]["name"] == "cpu"
    assert devices[-1]["memory_bytes"] > 2**30
    assert re.search(r"^cpu +[\d.]+ GiB", cli("devices").stdout, re.MULTILINE)


@pytest.mark.slow
def test_the_doctor_finds_no_problem_in_a_fresh_home(cli: Cli, home: Home, papers: Path) -> None:
    done = cli("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    for part in ("torch", str(home.root), f"{papers}: 4 papers", "device", "terminal"):
        assert part in done.stdout


@pytest.mark.slow
def test_the_doctor_names_the_problems(cli: Cli, home: Home, tmp_path: Path) -> None:
    home.journal.write_text("rubbish\n")
    home.ensure(home.plugins)
    (home.plugins / "broken.py").write_text("def f(:\n")
    (home.plugins / "not-a-name.py").write_text("")
    done = cli("doctor", environment={"READTRACK_PLUGIN_PATH": str(tmp_path / "nowhere")})
    assert done.returncode == 1
    wrong = "\n".join(line for line in done.stdout.splitlines() if line.startswith("wrong"))
    for part in ("journal.jsonl:1", "broken.py:1", "not-a-name.py", "nowhere"):
        assert part in wrong
    assert done.stderr == "readtrack: 4 problems found\n"


def test_the_doctor_sees_a_gpu_that_pytorch_does_not(tmp_path: Path) -> None:
    assert machine._unused_gpu({"cpu"}, tmp_path) == ""
    driver = tmp_path / "proc" / "driver" / "nvidia" / "version"
    driver.parent.mkdir(parents=True)
    driver.touch()
    assert "driver for an NVIDIA GPU" in machine._unused_gpu({"cpu"}, tmp_path)
    assert machine._unused_gpu({"cuda", "cpu"}, tmp_path) == ""


@pytest.mark.slow
def test_the_doctor_names_rows_that_the_journal_knows_and_the_list_does_not(cli: Cli, papers: Path) -> None:
    assert cli("mark", "Try a convolution", "read").returncode == 0
    text = papers.read_text(encoding="utf-8")
    papers.write_text(text.replace("Try a convolution", "Try the convolution"), encoding="utf-8")
    none = {"READTRACK_PLUGIN_PATH": ""}
    assert "on the list no longer" not in cli("doctor", environment=none).stdout
    assert "row:try-the-convolution: read already" in cli("mark", "Try the", "read").stdout
    papers.write_text(text.replace("Try a convolution", "Something else"), encoding="utf-8")
    done = cli("doctor", environment=none)
    assert done.returncode == 0
    (line,) = (line for line in done.stdout.splitlines() if "is no longer on the list" in line)
    assert line.startswith("look   rows")
    assert "'Try a convolution' (state read)" in line


@pytest.mark.slow
def test_the_doctor_mends_a_journal_that_is_kept_elsewhere(cli: Cli, home: Home, tmp_path: Path) -> None:
    assert cli("mark", "toy_adam", "read").returncode == 0
    kept = tmp_path / "synced.jsonl"
    kept.write_bytes(home.journal.read_bytes() + b"torn\n")
    home.journal.unlink()
    home.journal.symlink_to(kept)
    cli("doctor", "--fix", environment={"READTRACK_PLUGIN_PATH": ""})
    assert home.journal.is_symlink()
    assert "torn" not in kept.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_doctor_makes_nothing(cli: Cli, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    variables = {"HOME": str(nowhere), "READTRACK_HOME": "", "XDG_DATA_HOME": ""}
    done = cli("doctor", environment=variables)
    assert done.returncode == 1
    assert re.search(
        rf"^wrong +home +{nowhere}/.*: your home folder {nowhere} does not exist", done.stdout, re.M
    )
    assert not nowhere.exists()
    fresh = tmp_path / "fresh" / "readtrack"
    done = cli("doctor", environment={"READTRACK_HOME": str(fresh)})
    assert re.search(rf"^ok +home +{fresh}: does not exist yet", done.stdout, re.M)
    assert not fresh.parent.exists()
    (tmp_path / "file").touch()
    done = cli("doctor", environment={"READTRACK_HOME": str(tmp_path / "file" / "home")})
    assert re.search(r"^wrong +home +.*/file is not writable", done.stdout, re.M)
    if Path("/proc/self").exists():  # root may write there according to its permissions
        done = cli("doctor", environment={"READTRACK_HOME": "/proc/readtrack"})
        assert re.search(r"^wrong +home +/proc/readtrack: /proc is not writable", done.stdout, re.M)


@pytest.mark.slow
def test_the_doctor_looks_at_the_python_that_runs_papers(cli: Cli, tmp_path: Path) -> None:
    none = {"READTRACK_PLUGIN_PATH": ""}
    done = cli("doctor", environment=none)
    assert re.search(rf"^ok +runs +{sys.executable}: Python 3.*, torch \d", done.stdout, re.M)
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    done = cli("doctor", environment={**none, "READTRACK_PYTHON": str(bare / "bin/python")})
    assert done.returncode == 1
    wrong = next(line for line in done.stdout.splitlines() if line.startswith("wrong"))
    assert f"{bare}/bin/python (from READTRACK_PYTHON): Python 3" in wrong
    assert "it needs readtrack" in wrong
    assert f"{bare}/bin/python -m pip install --editable '{Path(__file__).parents[2]}[run]'" in wrong
    done = cli("doctor", environment={**none, "READTRACK_PYTHON": "true"})
    assert "is not a working Python" in done.stdout
    done = cli("doctor", environment={**none, "READTRACK_PYTHON": "no-such-python"})
    assert "READTRACK_PYTHON is 'no-such-python', which is not a program" in done.stdout


@pytest.mark.slow
def test_the_doctor_survives_a_broken_list(cli: Cli, papers: Path) -> None:
    papers.write_text("title: [\n", encoding="utf-8")
    done = cli("doctor")
    assert done.returncode == 1
    assert re.search(r"^wrong +papers +papers.yaml:", done.stdout, re.MULTILINE)


def test_plugins_are_listed_by_origin_with_shadowed_ones(cli: Cli, home: Home) -> None:
    home.ensure(home.plugins)
    (home.plugins / "toy_ok.py").write_text("")
    plugins = {p["name"]: p for p in json.loads(cli("plugins", "list", "--json").stdout)}
    assert plugins["toy_ok"]["origin"] == "user"
    assert plugins["toy_ok"]["shadows"][0].endswith("toys/toy_ok.py")
    assert plugins["toy_fail"]["origin"] == "path"
    assert re.search(
        r"^toy_ok +user +.*\(shadows .*toys/toy_ok.py\)$", cli("plugins", "list").stdout, re.MULTILINE
    )


def test_a_folder_with_a_hostile_name_is_listed_harmlessly(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "\x1b]0;mine\x07plugins"
    folder.mkdir()
    (folder / "toy.py").write_text("")
    for command in ("list", "path"):
        done = cli("plugins", command, environment={"READTRACK_PLUGIN_PATH": str(folder)})
        assert f"{tmp_path}/plugins" in done.stdout
        assert done.stdout.replace("\n", "").isprintable()


def test_the_path_is_in_the_order_of_precedence(cli: Cli, home: Home) -> None:
    lines = cli("plugins", "path").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["user", "path", "shipped"]
    assert lines[0].endswith(f"{home.plugins}  (does not exist yet)")


def test_a_broken_plugin_is_a_line_with_the_reason(
    cli: Cli, home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home.ensure(home.plugins)
    (home.plugins / "broken.py").write_text("import no_such_package\n")
    found = {name: ref for name, ref in find.find(home).items() if name in ("broken", "toy_ok")}
    monkeypatch.setattr(find, "find", lambda home: found)
    assert readtrack(["plugins", "check"]) == 1
    bad, good = capfd.readouterr().out.splitlines()
    assert re.match(r"toy_ok +ok +path +/", good)
    assert re.match(r"broken +broken +user +.*broken.py:1: .*'no_such_package'", bad)
    done = cli("plugins", "check", "broken")
    assert done.returncode == 1
    assert re.search(r"✗ the plugin can be imported: .*broken.py:1: .*'no_such_package'", done.stdout)
    assert cli("plugins", "check", "nobody").returncode == 2


@pytest.mark.parametrize("name", ["Big", "with-dash", "2fast", "class", "a/b", ""])
def test_a_new_plugin_needs_a_name_that_python_takes(cli: Cli, home: Home, name: str) -> None:
    done = cli("plugins", "new", name)
    assert done.returncode == 2
    assert not home.plugins.exists()


def test_nothing_is_overwritten(cli: Cli, home: Home) -> None:
    assert cli("plugins", "new", "mine").returncode == 0
    (home.plugins / "mine.py").write_text("my work")
    done = cli("plugins", "new", "mine")
    assert done.returncode == 2
    assert str(home.plugins / "mine.py") in done.stderr
    assert (home.plugins / "mine.py").read_text() == "my work"


def test_a_new_plugin_explains_how_to_try_it_and_what_its_test_needs(
    cli: Cli, home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = cli("plugins", "new", "mine").stderr.splitlines()
    assert said == [
        "Try it:    readtrack run mine",
        "Check it:  readtrack plugins check mine",
        f"Test it:   {sys.executable} -m pytest {home.root}/tests/test_mine.py",
        f"Guide:     {Path(__file__).parents[2]}/docs/plugins.md",
    ]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        plugins.importlib.util, "find_spec", lambda name: None if name == "pytest" else find_spec(name)
    )
    assert readtrack(["plugins", "new", "other"]) == 0
    assert capfd.readouterr().err.splitlines()[-1] == (
        "pytest is not installed. To install: "
        f"{sys.executable} -m pip install --editable '{Path(__file__).parents[2]}[test]'"
    )


def test_a_taken_name_is_refused_and_the_message_names_the_plugin_that_would_run(
    cli: Cli, home: Home, tmp_path: Path
) -> None:
    def listed() -> str:
        return next(line for line in cli("plugins", "list").stdout.splitlines() if line.startswith("adamw "))

    done = cli("plugins", "new", "adamw")
    assert done.returncode == 2
    assert "there is a shipped plugin adamw already" in done.stderr
    assert "A new one would run in its place." in done.stderr
    assert "press i, then e" in done.stderr
    assert not home.plugins.exists()

    here = cli("plugins", "new", "adamw", "--here")
    assert here.returncode == 2
    assert f"A new one in {tmp_path}/plugins would not run" in here.stderr
    (tmp_path / "plugins").mkdir()
    on_path = {"READTRACK_PLUGIN_PATH": str(tmp_path / "plugins")}
    here = cli("plugins", "new", "adamw", "--here", environment=on_path)
    assert "A new one would run in its place." in here.stderr

    (tmp_path / "plugins" / "adamw").mkdir()
    (tmp_path / "plugins" / "adamw" / "__init__.py").touch()
    here = cli("plugins", "new", "adamw", "--here", environment=on_path)
    assert "there is a path plugin adamw already" in here.stderr
    assert "It would still run, and a new one would not." in here.stderr

    (home.plugins / "adamw").mkdir(parents=True)
    (home.plugins / "adamw" / "__init__.py").touch()
    assert re.match(r"adamw +user .*shadows ", listed())
    done = cli("plugins", "new", "adamw")
    assert done.returncode == 2
    assert "there is a user plugin adamw already" in done.stderr
    assert re.search(r"`readtrack plugins revert adamw` makes \S*/adamw/__init__.py run again", done.stderr)
    assert not (home.plugins / "adamw.py").exists()


@pytest.mark.slow
def test_a_new_plugin_works_at_once_and_so_does_its_test(cli: Cli, home: Home) -> None:
    plugin, test = map(Path, cli("plugins", "new", "mine").stdout.splitlines())
    assert plugin == home.plugins / "mine.py"
    assert cli("plugins", "check", "mine").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


@pytest.mark.slow
def test_a_new_plugins_claim_is_judged(cli: Cli) -> None:
    cli("plugins", "new", "mine")
    done = cli("run", "mine", "--only", "experiment", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["verdict"] for e in events if e["event"] == "claim"] == ["held"]
    assert len({e["arm"] for e in events if e["event"] == "metric" and "loss" in e["name"]}) == 2


def test_a_new_plugin_here_is_laid_out_as_in_a_checkout(cli: Cli, tmp_path: Path) -> None:
    written = cli("plugins", "new", "mine", "--here").stdout.splitlines()
    assert written == [str(tmp_path / "plugins/mine.py"), str(tmp_path / "tests/papers/test_mine.py")]
    test = (tmp_path / "tests/papers/test_mine.py").read_text()
    assert "plugins" not in test  # test_every_plugin.py runs its checks


def test_the_template_is_held_to_the_rules_of_the_house(cli: Cli, tmp_path: Path) -> None:
    cli("plugins", "new", "mine", "--here")
    for arguments in (("check",), ("format", "--check")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ruff", *arguments, "--config"),
                str(Path(__file__).parents[2] / "pyproject.toml"),
                *("plugins/mine.py", "tests/papers/test_mine.py"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_a_new_plugin_whose_writing_was_cut_off_is_written_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = plugins.write_text
    written: list[Path] = []

    def killed(path: Path, text: str) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_text(path, text)

    monkeypatch.setattr(plugins, "write_text", killed)
    assert readtrack(["plugins", "new", "mine"]) == 130
    assert not (home.plugins / "mine.py").exists()
    monkeypatch.undo()
    monkeypatch.setenv("READTRACK_HOME", str(home.root))
    assert readtrack(["plugins", "new", "mine"]) == 0
    assert (home.plugins / "mine.py").is_file()
    assert readtrack(["plugins", "new", "mine"]) == 2, "never over what is there"
    (home.plugins / "mine.py").unlink()
    (home.root / "tests/test_mine.py").write_text("# mine\n")
    assert readtrack(["plugins", "new", "mine"]) == 2
    assert (home.root / "tests/test_mine.py").read_text() == "# mine\n"


def test_one_of_several_that_begin_the_same_plugin_does(home: Home) -> None:
    command = [sys.executable, "-m", "readtrack", "plugins", "new", "mine"]
    starts = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sorted(start.wait(60) for start in starts) == [0, 2, 2, 2]


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_without_free_files_is_not_reported_as_a_bug(
    home: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    folder = home.runs / "20260101-000000-bert-0000"
    folder.mkdir(parents=True)
    Job(run_id=folder.name, paper="bert").write(folder)
    os.utime(folder / "job.json", (0, 0))
    home.ensure(home.notes)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(store, "replacing", refuse)
    monkeypatch.setattr("readtrack.cli.plugins.write_text", refuse)
    monkeypatch.setattr("readtrack.library.write_text", refuse)
    why = os.strerror(number)
    for command, code, said in (
        (["results"], 0, f"has ended, but its result could not be saved: {why}"),
        (["show", "bert"], 0, ""),
        (["plugins", "new", "mine"], 2, why),
        (["note", "bert", "text"], 2, why),
    ):
        assert readtrack(command) == code
        error = capfd.readouterr().err
        assert said in error
        assert "bug" not in error


def test_an_unexpected_disk_error_is_not_reported_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/home/me/x")

    assert ending.run(full) == 2
    assert capfd.readouterr().err == (
        "readtrack: could not write /home/me/x: No space left on device. Free some space and try again.\n"
    )


def test_a_check_names_the_line_of_an_error_that_it_did_not_raise_itself() -> None:
    def said(error: Exception) -> str:
        try:
            raise error
        except Exception as raised:
            return in_words(raised)

    assert said(AssertionError("0 of 3 values differ")) == "0 of 3 values differ"
    assert said(ReadtrackError("no such plugin.")) == "no such plugin."
    wanted = r"KeyError: 'slow' \(test_machine.py, line \d+: raise error\)"
    assert re.fullmatch(wanted, said(KeyError("slow")))
    assert said(AssertionError()).startswith("AssertionError:  (test_machine.py, line ")
