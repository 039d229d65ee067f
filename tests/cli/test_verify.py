"""`readtrack verify` with toy plugins: the runs it makes, the earlier runs it reuses, and every exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.claims import Bound, Claim, Figure
from readtrack.cli import app
from readtrack.home import Home
from readtrack.library import Library
from readtrack.verdicts import rule_seeds

Cli = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE = 60.0

PLUGIN = """
import time
from readtrack.plugin import Bound, Break, Claim, Figure, hookimpl

CLAIM = Claim(
    name="gain", sentence="It gains.", paper=Figure("1 | 2", read="table"),
    rule=(Bound("gain", ">=", {threshold}),), control="none", deviations="all",
    breaks=(Break("no idea", "The idea is left out.", "near miss"),),
)

@hookimpl
def implementation():
    return dict

@hookimpl
def experiment(run):
    run.phase("train")
    arms = run.arms({{"paper": 2.0, "plain": 1.0}}, control="plain")
    gain = arms["paper"] - arms["plain"] + run.seed % 7 / 100
    if run.without("no idea"):
        gain = 0.0
    {body}
    run.claim(CLAIM, {{"gain": gain}})

@hookimpl
def benchmark(bench):
    raise ValueError("nobody asked for a benchmark")
"""


def seeds(count: int = 5, *, threshold: float = 0.5) -> list[int]:
    """The seeds that the plugin's rule determines."""
    bound = Bound("gain", ">=", threshold)
    claim = Claim(name="gain", sentence="", paper=Figure(""), rule=(bound,))
    return rule_seeds([claim], count)


@pytest.fixture
def plugins(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for a test's plugins. Workers import a stub of torch."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "toys" / "light"), prepend=os.pathsep)
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(folder))
    return folder


def write(folder: Path, name: str, *, threshold: float = 0.5, body: str = "pass") -> Path:
    """Write a plugin whose modification time is a few seconds ago."""
    file = folder / f"{name}.py"
    file.write_text(PLUGIN.format(threshold=threshold, body=body))
    past = time.time() - 5
    os.utime(file, (past, past))
    return file


def runs(home: Home) -> dict[str, dict[str, object]]:
    """Job and outcome of each run, in the order of the seeds."""
    found = []
    for folder in home.runs.iterdir() if home.runs.exists() else []:
        result = json.loads((folder / "result.json").read_text())
        found.append({**json.loads((folder / "job.json").read_text()), **result})
    return {run["run_id"]: run for run in sorted(found, key=lambda run: run["seed"])}


@pytest.mark.slow
def test_the_seeds_of_the_rule_are_run_and_decide(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path
) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_sgd", "--jobs", "2", "--output", "new")
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("✓ reproduced      toy_sgd: gain: gain 1.0")
    assert rest[-1] == "1 of 1 measured claims reproduced"
    asked = [(run["seed"], run["only"], run["budget"]) for run in runs(home).values()]
    assert asked == [(seed, "experiment", "quick") for seed in sorted(seeds())]
    page = (tmp_path / "new" / "verdicts.md").read_text(encoding="utf-8")
    assert "**1 of 1 measured claims reproduced.**" in page
    assert "| ≥ 0.5 | reproduced | 5 of 5 |" in page
    assert "- null runs reproduced: not run" in page
    one = (tmp_path / "new" / "verdicts" / "toy_sgd.md").read_text(encoding="utf-8")
    assert "1 \\| 2" in one
    assert "- software: readtrack 0." in one
    assert "toy_sgd,gain,reproduced" in (tmp_path / "new" / "verdicts.csv").read_text(encoding="utf-8")
    body = json.loads((tmp_path / "new" / "verdicts.json").read_text(encoding="utf-8"))
    assert body["claims"][0]["seeds"] == seeds()
    assert done.stderr.splitlines()[-1] == "readtrack: the table is new/verdicts.md"
    assert "(5/5)" in done.stderr


@pytest.mark.slow
def test_one_paper_verified_again_leaves_the_others_in_the_table(
    cli: Cli, plugins: Path, tmp_path: Path
) -> None:
    for name in ("toy_sgd", "toy_adam"):
        write(plugins, name)
        done = cli("verify", name, "--output", "out")
        assert done.returncode == 0, done.stderr
    assert "the rows of 1 other paper were kept" in done.stderr
    page = (tmp_path / "out" / "verdicts.md").read_text(encoding="utf-8")
    assert "**2 of 2 measured claims reproduced.**" in page
    assert page.index("toy\\_sgd") < page.index("toy\\_adam")
    (tmp_path / "out" / "verdicts.json").write_text("mine")
    refused = cli("verify", "toy_sgd", "--output", "out")
    assert refused.returncode == 2
    assert "verdicts.json is not a readable table of verdicts" in refused.stderr
    assert (tmp_path / "out" / "verdicts.json").read_text() == "mine"


@pytest.mark.slow
def test_the_page_shows_the_effect_after_more_steps(cli: Cli, plugins: Path, tmp_path: Path) -> None:
    file = write(plugins, "toy_sgd")
    file.write_text(file.read_text().replace('deviations="all"', 'deviations="all", after_steps=100'))
    done = cli("verify", "toy_sgd", "--breaks", "--jobs", "2", "--output", "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "verdicts" / "toy_sgd.md").read_text(encoding="utf-8")
    assert "- **4 times the steps**: gain 1.0" in page


@pytest.mark.slow
def test_null_runs_and_breaks_show_the_quality_of_the_rule(cli: Cli, home: Home, plugins: Path) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_sgd", "--null", "--breaks", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert "null run: fails the rule" in done.stdout
    assert "no idea: fails the rule" in done.stdout
    assert "null runs reproduced: 0 of 1" in done.stdout
    assert "near misses caught, of the claims that are reproduced: 1 of 1" in done.stdout
    # Null runs and breaks go through the same looks, because a shorter procedure would underestimate the
    # error rates.
    assert [(run["null"], run["broken"]) for run in runs(home).values()].count((True, "")) == 5
    assert [run["broken"] for run in runs(home).values()].count("no idea") == 5
    assert {run["condition"] for run in runs(home).values()} == {"", "null run", "break: no idea"}


@pytest.mark.slow
def test_breaks_are_left_out_if_the_claim_falls_without_them(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path
) -> None:
    file = write(plugins, "toy_sgd", threshold=5.0)
    file.write_text(file.read_text().replace('deviations="all"', 'deviations="all", after_steps=100'))
    done = cli("verify", "toy_sgd", "--null", "--breaks", "--jobs", "2", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert sorted(str(run["condition"]) for run in runs(home).values()) == [""] * 5 + ["null run"] * 5
    page = (tmp_path / "out" / "verdicts" / "toy_sgd.md").read_text(encoding="utf-8")
    assert "- **breaks**: not run, because the claim is not reproduced without them" in page


@pytest.mark.slow
@pytest.mark.parametrize("wins", [True, False])
def test_breaks_are_left_out_if_a_rival_passes(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path, wins: bool
) -> None:
    file = write(plugins, "toy_sgd", body=f'if run.without("cheap"): gain = float({wins})')
    rival = 'breaks=(Break("cheap", "A cheap method replaces it.", "rival"), '
    file.write_text(
        file.read_text()
        .replace("breaks=(", rival)
        .replace('deviations="all"', 'deviations="all", after_steps=100')
    )
    done = cli("verify", "toy_sgd", "--breaks", "--jobs", "2", "--output", "out")
    assert done.returncode == 0, done.stderr
    conditions = sorted(str(run["condition"]) for run in runs(home).values())
    others = [] if wins else ["4 times the steps"] * 2 + ["break: no idea"] * 5
    assert conditions == sorted([""] * 5 + ["break: cheap"] * 5 + others)
    page = (tmp_path / "out" / "verdicts" / "toy_sgd.md").read_text(encoding="utf-8")
    assert ("- **breaks**: no idea: not run; a rival passes the rule" in page) == wins


@pytest.mark.slow
def test_a_rule_that_the_control_wins_is_found_out(cli: Cli, plugins: Path) -> None:
    write(plugins, "toy_sgd", threshold=-1.0)
    done = cli("verify", "toy_sgd", "--null")
    assert "null run: passes the rule" in done.stdout
    assert "null runs reproduced: 1 of 1" in done.stdout


@pytest.mark.slow
def test_one_dissenting_seed_calls_for_five_more(cli: Cli, home: Home, plugins: Path) -> None:
    odd = seeds(10)[2]
    write(plugins, "toy_sgd", body=f"gain = 0.0 if run.seed == {odd} else gain")
    done = cli("verify", "toy_sgd", "--jobs", "2")
    assert done.stdout.startswith("✓ reproduced")
    assert [run["seed"] for run in runs(home).values()] == sorted(seeds(10))


OPEN = """
    import dataclasses
    gain = 0.48 + 0.04 * (run.seed % 2)
    other = dataclasses.replace(CLAIM, name="sure", rule=(Bound("loss", "<=", 1.0),))
    run.claim(other, {{"loss": 0.5 + run.seed % 3 / 100}})
"""


@pytest.mark.slow
def test_an_undecided_claim_takes_twenty_seeds_and_a_decided_one_only_its_five(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path
) -> None:
    file = write(plugins, "toy_sgd")
    file.write_text(file.read_text().replace("    pass\n", OPEN.format()))
    done = cli("verify", "toy_sgd", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert len(runs(home)) == 20
    sure, open_ = json.loads((tmp_path / "out" / "verdicts.json").read_text(encoding="utf-8"))["claims"]
    assert (sure["verdict"], len(sure["seeds"]), len(sure["values"]["loss"])) == ("reproduced", 5, 5)
    assert (open_["verdict"], len(open_["seeds"])) == ("inconclusive", 20)
    assert open_["why"].startswith("gain 0.4")
    assert "another verification is expected to change 0." in done.stdout
    again = cli("verify", "toy_sgd", "--output", "out")
    assert (again.stdout, again.stderr.count("taken from"), len(runs(home))) == (done.stdout, 20, 20)


def test_without_other_limits_one_run_per_core_runs_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from readtrack.cli.verify import _default_jobs

    monkeypatch.setattr("readtrack.devices.physical_cores", lambda: 6)
    assert [_default_jobs(device, "") for device in ("auto", "cpu", "cuda:1")] == [6, 6, 1]
    assert _default_jobs("auto", "cluster") == 1


@pytest.mark.slow
def test_rows_of_the_earlier_procedure_stay_and_are_counted_apart(
    cli: Cli, plugins: Path, tmp_path: Path
) -> None:
    write(plugins, "toy_sgd")
    write(plugins, "toy_adam")
    assert cli("verify", "toy_sgd", "toy_adam", "--output", "out").returncode == 0
    body = json.loads((tmp_path / "out" / "verdicts.json").read_text(encoding="utf-8"))
    for row in body["claims"]:
        del row["procedure"], row["values"]
    (tmp_path / "out" / "verdicts.json").write_text(json.dumps(body), encoding="utf-8")
    assert cli("verify", "toy_adam", "--output", "out").returncode == 0
    page = (tmp_path / "out" / "verdicts.md").read_text(encoding="utf-8")
    assert (
        "**1 of 1 measured claims reproduced; 1 of 1 measured claims reproduced by the earlier procedure.**"
        in page
    )
    assert page.count("| reproduced: earlier |") == page.count("| reproduced |") == 1


def test_an_audit_draws_other_seeds_and_is_noted(cli: Cli, home: Home, plugins: Path) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_sgd", "--audit", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    (line,) = (home.root / "audits.jsonl").read_text(encoding="utf-8").splitlines()
    noted = json.loads(line)
    assert noted["verdicts"] == {"toy_sgd: gain": "reproduced"}
    assert [run["seed"] for run in runs(home).values()] == noted["seeds"][:5]
    assert not set(noted["seeds"]) & set(seeds(10))


@pytest.mark.slow
def test_a_claim_that_does_not_hold_is_exit_code_0(cli: Cli, plugins: Path) -> None:
    write(plugins, "toy_sgd", threshold=5.0)
    done = cli("verify", "toy_sgd", "--jobs", "2")
    assert done.returncode == 0
    assert done.stdout.startswith("✗ not reproduced  toy_sgd: gain: gain 1.0")


@pytest.mark.slow
def test_verdicts_on_other_data_name_them(cli: Cli, home: Home, plugins: Path) -> None:
    write(plugins, "toy_sgd", body='run.option("images", "")')
    done = cli("verify", "toy_sgd", "--jobs", "2", "--data", "digits")
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first == "Data set: digits. Published verdicts are on the papers' default data."
    assert second.startswith("✓ reproduced      toy_sgd: gain: gain 1.0")
    assert [run["settings"] for run in runs(home).values()] == [{"images": "digits"}] * 5
    assert cli("verify", "toy_sgd", "--jobs", "2").stdout.startswith("✓ reproduced")  # these runs are its own


@pytest.mark.slow
def test_existing_runs_are_used(cli: Cli, home: Home, plugins: Path) -> None:
    write(plugins, "toy_sgd")
    cli("verify", "toy_sgd", "--jobs", "2")
    before = runs(home)
    again = cli("verify", "toy_sgd", "--null")
    assert again.returncode == 0
    assert all(f"taken from {run_id}" in again.stderr for run_id in before)
    assert {run["null"] for run_id, run in runs(home).items() if run_id not in before} == {True}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["fresh", "device", "budget", "plugin", "parent", "settings"])
def test_runs_with_other_code_are_repeated(
    cli: Cli, home: Home, plugins: Path, papers: Path, what: str
) -> None:
    text = papers.read_text(encoding="utf-8")
    papers.write_text(
        text.replace("  toy_adam:\n", "  toy_adam:\n    builds_on: [toy_sgd]\n"), encoding="utf-8"
    )
    parent, plugin = write(plugins, "toy_sgd"), write(plugins, "toy_adam", body="run.option('a', 1)")
    if what == "settings":
        cli("run", "toy_adam", "--seed", str(seeds()[0]), "--only", "experiment", "--set", "a=2")
    else:
        assert cli("verify", "toy_adam", "--jobs", "2").returncode == 0
    before = len(runs(home))
    arguments = {"fresh": ["--fresh"], "device": ["--device", "cpu"], "budget": ["--budget", "full"]}
    if what in ("plugin", "parent"):
        with (plugin if what == "plugin" else parent).open("a", encoding="utf-8") as file:
            file.write("\nMORE = 1\n")
    done = cli("verify", "toy_adam", "--jobs", "2", *arguments.get(what, []))
    assert (done.returncode, len(runs(home))) == (0, before + 5)
    assert "taken" not in done.stderr


@pytest.mark.slow
def test_a_failed_run_is_exit_code_1_and_is_tried_again(
    cli: Cli, home: Home, plugins: Path, tmp_path: Path
) -> None:
    bad, broken = seeds()[1], tmp_path / "broken"
    broken.touch()
    fine = f"run.seed != {bad} or not __import__('os').path.exists({str(broken)!r})"
    write(plugins, "toy_adam", body=f"assert {fine}, 'the loss | is wrong'")
    write(plugins, "toy_sgd")
    done = cli("verify", "toy_adam", "toy_sgd", "--jobs", "2", "--output", "out")
    assert done.returncode == 1
    # In the order of the list.
    first, second, third, *_ = done.stdout.splitlines()
    assert first.startswith("✓ reproduced      toy_sgd: gain: ")
    assert second.startswith(f"· not judged      toy_adam: gain: no completed run with seed {bad}")
    assert f"toy_adam: seed {bad}: toy_adam failed in train: AssertionError: the loss | is wrong" in third
    page = (tmp_path / "out" / "verdicts.md").read_text(encoding="utf-8")
    assert "| not judged | 4 of 4 |" in page
    one = (tmp_path / "out" / "verdicts" / "toy_adam.md").read_text(encoding="utf-8")
    assert f"not judged: no completed run with seed {bad}" in one
    remark = page.split("## Without a verdict")[1]
    assert "the loss \\| is wrong (toy\\_adam.py:" in remark
    assert str(plugins) in third
    assert str(plugins) not in remark

    broken.unlink()
    again = cli("verify", "toy_adam", "toy_sgd")
    assert again.returncode == 0
    assert again.stderr.count("taken from") == 9
    assert len(runs(home)) == 11


@pytest.mark.slow
def test_an_interrupt_keeps_finished_work(
    cli: Cli, command: str, home: Home, plugins: Path, tmp_path: Path
) -> None:
    first, second = seeds(2)
    wait = tmp_path / "wait"
    wait.touch()
    waits = f"run.seed == {second} and __import__('os').path.exists({str(wait)!r})"
    slow = f"[time.sleep(0.01) for _ in run.steps(10**9 if {waits} else 1)]"
    write(plugins, "toy_sgd", body=slow)
    process = subprocess.Popen(
        [command, "verify", "toy_sgd", "--jobs", "1", "--output", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"verify  toy_sgd, seed {second}: started"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "readtrack: stopping (asked)" in err
    assert "the same command continues" in err
    outcomes = {run["seed"]: run["outcome"] for run in runs(home).values()}
    assert outcomes == {first: "completed", second: "cancelled"}
    assert not (tmp_path / "out" / "verdicts.md").exists()

    wait.unlink()
    again = cli("verify", "toy_sgd", "--jobs", "2")
    assert (again.returncode, again.stderr.count("taken from")) == (0, 1)
    assert len(runs(home)) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("toy_sgd", "--device", "warp9"), 2, "warp9"),
        (("nobody",), 2, "nobody"),
        (("toy_newton",), 3, "plugins new toy_newton"),
        (("toy_sgd", "--jobs", "0"), 2, "--jobs"),
        (("toy_sgd", "--output", "/dev/null"), 2, "Name a folder"),
    ],
)
def test_invalid_options_are_reported(
    cli: Cli, plugins: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    write(plugins, "toy_sgd")
    done = cli("verify", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("readtrack: ")
    assert said in last


@pytest.mark.slow
def test_without_names_every_runnable_paper_is_verified(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("toy_adam", "toy_sgd", "unlisted"):
        write(plugins, name)
    found = Library.runnable
    monkeypatch.setattr(
        Library,
        "runnable",
        lambda self: {name: ref for name, ref in found(self).items() if ref.origin == "path"},
    )
    monkeypatch.chdir(tmp_path)
    assert app.run(["verify", "--jobs", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in said[:3]] == ["toy_sgd:", "toy_adam:", "unlisted:"]
    assert not (tmp_path / "docs").exists()


def test_a_closed_terminal_ends_no_verification() -> None:
    from readtrack.cli.verify import _unless_hung_up

    before = signal.getsignal(signal.SIGHUP)
    with _unless_hung_up():
        signal.raise_signal(signal.SIGHUP)  # would end this process
        went_on = True
    assert went_on
    assert signal.getsignal(signal.SIGHUP) is before
