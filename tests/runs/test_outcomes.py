"""Every way in which a run can end, with the real launcher and a real child process."""

import signal
import sys

import psutil
import pytest

from readtrack import devices, interpreter
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.runs import launcher, outcome, store
from readtrack.runs.events import EventReader
from readtrack.runs.job import new_job

pytestmark = pytest.mark.usefixtures("light")


def fail(runs, how, **fields):
    return runs.run("toy_fail", settings={"how": how, **fields.pop("settings", {})}, **fields)


def test_a_sound_run_completes_and_records_it_in_one_file(runs, home):
    done = runs.run("toy_ok", settings={"steps": "4"}, budget="quick")
    assert done.outcome == "completed"
    assert done.error is None
    assert done.curves["loss"]["paper"] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3)), (3, 0.25)]
    assert done.values["accuracy", "paper"] == 0.75
    assert [name for name, _ in done.phases] == ["import", "setup", "train", "evaluate", "teardown"]
    assert done.claims[0]["verdict"] == "held"
    assert done.memory_peak > 10 << 20
    (artifact,) = done.artifacts
    assert (home.runs / done.run_id / artifact["path"]).read_text() == "it fell"
    assert not (home.runs / done.run_id / "scratch").exists()
    assert store.summaries(home) == [done.summary()]
    assert done.bad_events == 0
    assert done.warnings == []


def test_hello_comes_before_anything_is_imported(runs):
    process = runs.start("toy_ok")
    runs.finish(process)
    names = [event["event"] for event in EventReader(process.folder).read_new()]
    assert names[:2] == ["hello", "phase"]
    assert names.index("environment") > 1


def test_an_exception_is_failed_with_its_place_in_the_plugin(runs):
    done = fail(runs, "raise")
    assert done.outcome == "failed"
    assert done.error["type"] == "ValueError"
    assert done.error["kind"] == "plugin"
    assert done.error["phase"] == "train"
    assert done.error["message"] == "the loss is wrong"
    assert "toy_fail.py" in done.error["where"]
    assert "readtrack/runs/worker.py" not in done.error["traceback"]
    assert "raise ValueError" in done.error["traceback"]
    assert "toy_fail.py" in done.detail


def test_an_exception_that_cannot_be_printed_is_failed_too(runs):
    done = fail(runs, "ugly")
    assert (done.outcome, done.error["type"]) == ("failed", "UglyError")


def test_sys_exit_is_failed(runs):
    done = fail(runs, "exit")
    assert done.outcome == "failed"
    assert "sys.exit(3)" in done.detail


def test_os_exit_is_a_crash_without_a_result(runs):
    done = fail(runs, "os_exit")
    assert done.outcome == "crashed"
    assert "exit code 3" in done.detail
    assert done.phase == "train"


@pytest.mark.parametrize(("how", "name"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_fault_is_a_crash_with_its_place_from_the_log(runs, how, name):
    process = runs.start("toy_fail", settings={"how": how})
    done = runs.finish(process)
    assert done.outcome == "crashed"
    assert name in done.detail
    assert "toy_fail.py" in done.detail
    assert "Fatal Python error" in (process.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("before", "after", "expected", "words"),
    [
        (4, 5, "out_of_memory", "because host memory ran out"),
        (4, 4, "crashed", "a system daemon or a kill command"),
        (None, None, "out_of_memory", "likely"),
    ],
)
def test_sigkill_is_judged_by_the_kernels_counter(runs, monkeypatch, before, after, expected, words):
    counts = iter([before, after])
    monkeypatch.setattr(outcome, "oom_kills", lambda: next(counts))
    done = fail(runs, "kill")
    assert done.outcome == expected
    assert words in done.detail


def test_the_kernels_counter_is_read_where_there_is_one(tmp_path):
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert outcome._field(tmp_path / "memory.events", "oom_kill") == 2
    assert outcome._field(tmp_path / "memory.events", "max") is None
    assert outcome._field(tmp_path / "missing", "oom_kill") is None
    count = outcome.oom_kills()
    assert count is None or count >= 0


def test_a_signal_from_outside_is_an_interruption(runs):
    done = fail(runs, "term")
    assert done.outcome == "interrupted"
    assert "SIGTERM" in done.detail


def test_a_plugin_that_forks_ends_once(runs):
    process = runs.start("toy_fail", settings={"how": "fork"})
    runs.finish(process)
    events = EventReader(process.folder).read_new()
    assert [event["outcome"] for event in events if event["event"] == "end"] == ["completed"]


@pytest.mark.parametrize("how", ["limit", "chained"])
def test_host_memory(runs, how):
    done = runs.run("toy_oom", settings={"how": how})
    assert done.outcome == "out_of_memory"
    assert done.error["kind"] == "memory"
    assert "host memory ran out in phase train" in done.detail


def test_device_memory(runs):
    done = runs.run("toy_oom", settings={"how": "device"})
    assert done.outcome == "out_of_memory"
    assert "device memory" in done.detail


def test_an_impossible_device_or_dtype_starts_no_run(home):
    with pytest.raises(ReadtrackError, match="'gpu' is not a device"):
        launcher.start(new_job("toy_ok", device="gpu"), home)
    with pytest.raises(ReadtrackError, match="no dtype 'int8'"):
        launcher.start(new_job("toy_ok", dtype="int8"), home)
    assert not home.runs.exists()


def test_usage_errors_are_distinguished(runs, monkeypatch):
    wrong_type = fail(runs, "option", settings={"size": "much"})
    assert (wrong_type.outcome, wrong_type.error["kind"]) == ("failed", "usage")
    assert "--set size=much" in wrong_type.detail
    assert wrong_type.error["traceback"] == ""

    monkeypatch.setattr(devices, "require", lambda name: None)  # like a CUDA build without a GPU
    no_device = runs.run("toy_ok", device="cuda:7")
    assert (no_device.outcome, no_device.error["kind"]) == ("failed", "usage")
    assert (wrong_type.error["exit_code"], no_device.error["exit_code"]) == (2, 3)
    assert no_device.summary().headline == "There is no device 'cuda:7' here. Available: cpu."

    no_plugin = runs.run("toy_o")
    assert (no_plugin.outcome, no_plugin.error["kind"]) == ("failed", "usage")
    assert "toy_ok" in no_plugin.detail


def test_an_unknown_setting_starts_no_run(home):
    with pytest.raises(ReadtrackError, match="toy_ok has no option 'stepz'; did you mean 'steps'"):
        launcher.start(new_job("toy_ok", settings={"stepz": "4"}), home)
    assert not home.runs.exists()


def test_an_unused_setting_is_a_warning_where_only_the_run_can_tell(runs, monkeypatch):
    monkeypatch.setattr(launcher.settings, "options", lambda paper, plugins: None)
    done = runs.run("toy_ok", settings={"stepz": "4"})
    assert done.outcome == "completed"
    assert done.warnings == ["--set stepz: the experiment has no such option; it has steps."]


def test_a_plugins_output_reaches_only_the_log(runs):
    process = runs.start("toy_noise")
    done = runs.finish(process)
    assert done.outcome == "completed"
    assert done.detail == ""
    log = (process.folder / "log.txt").read_bytes()
    assert log.count(b'"detail": "fake"') == 4
    assert b"\x1b[2J" in log
    assert done.bad_events == 0
    assert done.values["from stdin", ""] == 0
    # Non-finite and over-long values are still valid events.
    assert [value != value for _, value in done.curves["loss"][""]] == [True, True]
    assert len(done.logs[0]) < 262_144
    assert "more characters" in done.logs[0]


def test_the_log_is_capped(runs):
    process = runs.start("toy_noise", settings={"megabytes": "30"})
    done = runs.finish(process)
    assert done.outcome == "completed"
    log = (process.folder / "log.txt").read_bytes()
    assert len(log) <= (1536 << 10)
    assert b"bytes left out" in log
    assert log.startswith(b"\x1b[2J")


def test_no_process_of_a_run_outlives_it(runs, home, dies):
    process = runs.start("toy_leftovers")
    done = runs.finish(process)
    assert done.outcome == "completed"
    for line in done.logs:
        assert dies(int(line.split()[1]))
    runs.no_process_left(done.run_id)
    assert done.values["scratch", ""] == 1
    assert done.values["terminal", ""] == 0
    assert [path.name for path in (process.folder / "scratch").iterdir()] == ["file in the scratch folder"]


def test_kill_9_of_a_worker_takes_its_children_along(runs):
    process = runs.start("toy_hang")
    runs.child(process.folder)
    worker = store.load(process.folder).hello["pid"]
    psutil.Process(worker).send_signal(signal.SIGKILL)
    done = runs.finish(process)
    assert done.outcome in ("crashed", "out_of_memory")
    runs.no_process_left(done.run_id)


def test_an_interpreter_without_readtrack_is_named_by_its_own_words(runs, home, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho No module named readtrack >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("READTRACK_PYTHON", str(python))
    process = launcher.start(new_job("toy_ok"), home)
    done = runs.finish(process)
    assert done.outcome == "crashed"
    assert "No module named readtrack" in done.detail
    assert done.paper == "toy_ok"


def test_an_interpreter_that_does_not_exist_leaves_no_run_behind(home, monkeypatch):
    monkeypatch.setenv("READTRACK_PYTHON", "/nowhere/python")
    with pytest.raises(ReadtrackError, match="READTRACK_PYTHON is '/nowhere/python'"):
        launcher.start(new_job("toy_ok"), home)
    assert not home.runs.exists()


def test_a_start_that_fails_leaves_no_run_behind(home, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("not a program")
    python.chmod(0o755)
    monkeypatch.setenv("READTRACK_PYTHON", str(python))
    with pytest.raises(ReadtrackError, match="Exec format error"):
        launcher.start(new_job("toy_ok"), home)
    assert list(home.runs.iterdir()) == []


def test_runs_use_the_python_that_the_reader_names(runs, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho started by the wrapper\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("READTRACK_PYTHON", str(python))
    process = runs.start("toy_ok")
    assert runs.finish(process).outcome == "completed"
    assert (process.folder / "log.txt").read_text().startswith("started by the wrapper")


def test_without_torch_no_run_begins_and_the_command_that_gets_it_is_named(home, monkeypatch):
    find_spec = interpreter.importlib.util.find_spec
    monkeypatch.setattr(
        interpreter.importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    with pytest.raises(NotAvailableError, match=r"-m pip install --editable '/.*\[run\]'"):
        launcher.start(new_job("toy_ok"), home)
    assert not home.runs.exists()
    monkeypatch.setenv("READTRACK_PYTHON", "sh")  # another Python reports this itself during the run
    interpreter.require_torch()


def test_a_run_id_is_used_once(runs, home):
    job = new_job("toy_ok", only="experiment")
    process = launcher.start(job, home)
    with pytest.raises(ReadtrackError, match="already"):
        launcher.start(job, home)
    assert runs.finish(process).outcome == "completed"


def test_the_child_sees_no_terminal_and_absolute_paths(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", "there")
    monkeypatch.setenv("FORCE_COLOR", "1")
    environment = launcher._environment(new_job("toy_ok", device="cpu", seed=7), home)
    assert environment["PYTHONPATH"] == str(tmp_path / "here")
    assert environment["READTRACK_PLUGIN_PATH"] == str(tmp_path / "there")
    assert environment["TERM"] == "dumb"
    assert "FORCE_COLOR" not in environment
    if sys.platform == "linux":
        assert environment["MALLOC_MMAP_THRESHOLD_"] == str(4 * 1024**3)
        assert "MALLOC_MMAP_THRESHOLD_" not in launcher._environment(new_job("x", device="cuda:0"), home)
