"""`readtrack compare` on the folders of two runs. The tests write the events instead of running
benchmarks.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from readtrack.claims import UNTRAINED, Claim, Figure, at_most
from readtrack.cli.bench import app
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.plugins import edits
from readtrack.plugins.edits import Edit
from readtrack.runs.events import EventWriter
from readtrack.runs.job import Job


def measurement(variant: str, p50: float, **fields: Any) -> dict[str, Any]:
    return {
        "case": "attention",
        "axes": {"tokens": 1024},
        "variant": variant,
        "role": "paper",
        "mode": "forward",
        "dtype": "float32",
        "device_id": "aaaa",
        "settings": {"threads": 4},
        "t_ns": {"p50": p50, "min": p50, "value": p50, "ci95": [0.995 * p50, 1.005 * p50]},
        "flags": [],
        "skipped": None,
        "pct_ceiling": 60.0,
        "vs_naive": 2.0,
        "vs_strong": 0.9,
        **fields,
    }


def make_run(root: Path, run_id: str, *measurements: dict[str, Any], paper: str = "flashattention") -> Path:
    folder = root / run_id
    folder.mkdir(parents=True)
    Job(run_id=run_id, paper=paper).write(folder)
    events = EventWriter(folder)
    events.emit("hello", run_id=run_id, paper=paper, pid=1, at="2026-01-01T00:00:00+00:00")
    for fields in measurements:
        events.emit("measurement", **fields)
    events.close()
    return folder


@pytest.fixture
def runs(home: Home) -> Path:
    make_run(home.runs, "20260101-000000-flash-aaaa", measurement("naive", 4e6), measurement("tiled", 2e6))
    make_run(home.runs, "20260102-000000-flash-bbbb", measurement("naive", 4e6), measurement("tiled", 3e6))
    return home.runs


def compare(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def failure(*arguments: str) -> ReadtrackError:
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, ReadtrackError)
    return done.exception


@pytest.mark.parametrize("names", [("20260101", "20260102"), ("aaaa", "bbbb")])
def test_each_variant_has_a_verdict(runs: Path, names: tuple[str, str]) -> None:
    lines = compare(*names).splitlines()
    [naive] = [line for line in lines if "naive" in line]
    [tiled] = [line for line in lines if "tiled" in line]
    assert naive.startswith("SAME")
    assert tiled.startswith("SLOWER")
    for part in ("attention, tokens 1024, forward, float32", "2 ms", "3 ms", "1.5 (1.489 to 1.511)"):
        assert part in tiled
    assert lines[-2:] == [
        "1 SAME, 1 SLOWER",
        "Dead band: ±2.0 % (2 %, or the machine's own drift).",
    ]


def test_json_is_one_document(runs: Path) -> None:
    document = json.loads(compare("aaaa", "bbbb", "--json"))
    assert document["paper"] == "flashattention"
    assert [line["verdict"] for line in document["measurements"]] == ["SAME", "SLOWER"]
    assert document["measurements"][1]["ratio"] == pytest.approx(1.5)


def test_a_run_that_was_copied_here_is_named_by_its_folder(runs: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "box", "20260103-gpu", measurement("tiled", 1e5, device_id="bbbb"))
    out = compare("aaaa", str(other))
    [tiled] = [line for line in out.splitlines() if "tiled" in line]
    assert tiled.startswith("-")
    assert "different devices" in tiled
    assert "ceiling 60 % and 60 %; vs naive 2× and 2×; vs best 0.9× and 0.9×" in tiled


@pytest.fixture
def edited(runs: Path) -> Path:
    """Two runs: the first holds one claim; the second, with edited code, misses it and states one more."""
    faster = Claim(
        name="faster",
        sentence="It is faster.",
        paper=Figure("a half"),
        rule=(at_most("steps", "ours", 0.5, over="control"),),
        control_arm="control",
        breaks=(UNTRAINED,),
    )
    for run_id, more, value in (("aaaa", (), 0.4), ("bbbb", (replace(faster, name="smaller"),), 0.75)):
        folder = runs / f"2026010{1 + len(more)}-000000-flash-{run_id}"
        events = EventWriter(folder, first_seq=3)
        stated = [one.to_json() for one in (faster, *more)]
        events.emit("claims", claims=stated)
        verdict = "held" if value < 0.5 else "missed"
        events.emit(
            "claim", claim=stated[0], values={"steps, ours / control": value}, verdict=verdict, ours=""
        )
        events.emit("end", outcome="completed", detail="")
        events.close()
    edits.save(folder, [Edit("flashattention/model.py", "a = 1\n", "a = 2\n")])
    return runs


def test_the_claims_of_both_runs_and_the_code_between_them_are_shown(edited: Path) -> None:
    lines = compare("aaaa", "bbbb").splitlines()
    at = lines.index("faster")
    assert lines[at + 1].split() == ["a", "✓", "held", "steps,", "ours", "/", "control", "0.4"]
    assert lines[at + 2].split() == ["b", "✗", "missed", "steps,", "ours", "/", "control", "0.75"]
    at = lines.index("smaller")
    assert lines[at + 1].split() == ["a", "-", "not", "in", "this", "run"]
    assert lines[at + 2].split()[:4] == ["b", "·", "not", "judged"]
    at = lines.index("flashattention/model.py  +1 −1")
    assert lines[at + 2 : at + 4] == ["  -a = 1", "  +a = 2"]
    assert "  +a = 1" in compare("bbbb", "aaaa").splitlines()


def test_json_holds_claims_and_code(edited: Path) -> None:
    document = json.loads(compare("aaaa", "bbbb", "--json"))
    faster, smaller = document["claims"]
    assert (faster["a"]["verdict"], faster["b"]["verdict"]) == ("held", "missed")
    assert faster["b"]["values"] == {"steps, ours / control": 0.75}
    assert smaller["a"] is None
    [code] = document["code"]
    assert code["counts"] == "+1 −1"
    assert code["diff"][1:] == ["-a = 1", "+a = 2"]


def test_runs_that_cannot_be_compared_give_the_reason(runs: Path) -> None:
    make_run(runs, "20260104-rope", measurement("rope", 1e3), paper="rope")
    make_run(runs, "20260105-empty")
    assert "'zzzz'" in str(failure("aaaa", "zzzz"))
    assert "several runs" in str(failure("2026010", "aaaa"))
    assert "two papers" in str(failure("aaaa", "20260104"))
    make_run(runs, "20260106-empty")
    empty = failure("20260105", "20260106")
    assert isinstance(empty, NotAvailableError)
    assert "neither run has claims or measurements" in str(empty)
    assert "only in a" in compare("aaaa", "20260105")


def test_results_show_the_newest_benchmark_of_each_device(home: Home) -> None:
    from readtrack.cli.results import app as results

    for day, device, name, p50 in (
        (1, "cpu", "EPYC", 9e6),
        (2, "cpu", "EPYC", 4e6),
        (3, "cuda:0", "H100", 1e5),
    ):
        folder = make_run(home.runs, f"2026010{day}-000000-flash-{day}", measurement("tiled", p50))
        events = EventWriter(folder, first_seq=2)
        events.emit("environment", device=device, device_name=name)
        events.emit("end", outcome="completed", detail="")
        events.close()

    shown = CliRunner().invoke(results, ["flashattention"], catch_exceptions=False).stdout
    assert "cpu (EPYC)" in shown
    assert "cuda:0 (H100)" in shown
    assert "4 ms" in shown
    assert "100 µs" in shown
    assert "9 ms" not in shown
    runs = json.loads(
        CliRunner().invoke(results, ["flashattention", "--json"], catch_exceptions=False).stdout
    )
    assert [len(run["measurements"]) for run in runs] == [1, 1, 0]


def test_a_benchmark_of_edited_code_is_labelled_and_gives_way_to_one_of_the_shipped_code(home: Home) -> None:
    from readtrack.cli.results import app as results

    def shown(*more: str) -> str:
        return CliRunner().invoke(results, ["flashattention", *more], catch_exceptions=False).stdout

    def run(day: int, p50: float, edited: str) -> None:
        folder = make_run(home.runs, f"2026010{day}-000000-flash-{day}", measurement("tiled", p50))
        job = Job.read(folder)
        Job(**{**asdict(job), "edited": edited}).write(folder)
        events = EventWriter(folder, first_seq=2)
        events.emit("environment", device="cpu", device_name="EPYC")
        events.emit("end", outcome="completed", detail="")
        events.close()

    run(2, 9e6, "model.py +1 −1")
    table = shown().split("benchmark", 1)[1]
    assert "cpu (EPYC), edited: model.py +1 −1" in " ".join(table.split())
    assert "9 ms" in table
    run(1, 4e6, "")
    table = shown().split("benchmark", 1)[1]
    assert "edited" not in table
    assert "4 ms" in table
    assert "9 ms" not in table
    told = json.loads(shown("--json"))
    assert [(one["edited"], len(one["measurements"])) for one in told] == [("model.py +1 −1", 0), ("", 1)]


@pytest.fixture
def benchmarked(home: Home) -> Home:
    """A run with two sizes and variants whose requirements are missing here."""
    rows = []
    for tokens in (512, 4096):
        axes = {"tokens": tokens, "dim": 64, "causal": tokens == 512}
        rows += [
            measurement("equation 1", 4e6 * tokens, axes=axes, role="naive", flags=["contended"]),
            measurement("tiled, as the paper has it", 2e6 * tokens, axes=axes, vs_naive_sure=True),
            measurement("kernel", 0, axes=axes, t_ns=None, skipped="needs cuda"),
            measurement("another kernel", 0, axes=axes, role="compiled", t_ns=None, skipped="needs cuda"),
        ]
    folder = make_run(home.runs, "20260101-000000-flashattention-aaaa", *rows)
    events = EventWriter(folder, first_seq=20)
    events.emit("environment", device="cpu", device_name="A Processor with a rather Long Name, 64 Cores")
    events.emit("end", outcome="completed", detail="")
    events.close()
    return home


@pytest.mark.parametrize("columns", [80, 120])
def test_a_benchmark_fits_the_terminal(
    benchmarked: Home, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from readtrack.cli import terminal
    from readtrack.cli.results import app as results

    monkeypatch.setattr(terminal, "width", lambda: columns)
    lines = CliRunner().invoke(results, ["flashattention"], catch_exceptions=False).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    (at,) = [index for index, line in enumerate(lines) if line.startswith("attention, tokens 512, causal")]
    naive, paper = lines[at + 1], lines[at + 2]
    assert [naive.split()[0], *naive.split()[2:7]] == ["equation", "naive", "2.05", "s", "60", "%"]
    for part in ("tiled, as the paper has it", "paper", "1.02 s", "2.00×", "0.90×", "60 %"):
        assert part in paper
    assert lines[at + 3] == "attention, tokens 4096, not causal"
    assert ("contended" in naive) == (columns == 120)
    shown = "\n".join(lines)
    # Facts common to all rows are printed once.
    for once in ("needs cuda: kernel; another kernel", "dim 64", "float32", "forward", "contended: 2 of 4"):
        assert shown.count(once) == 1
    assert "kernel" not in "".join(lines[at:])


def test_the_profile_takes_the_newest_run_of_each_paper(home: Home) -> None:
    make_run(home.runs, "20260101-000000-a-aaaa", measurement("ours", 1.0, vs_strong=4.0), paper="a")
    make_run(home.runs, "20260102-000000-a-bbbb", measurement("ours", 1.0, vs_strong=0.5), paper="a")
    make_run(home.runs, "20260102-000000-b-bbbb", measurement("ours", 1.0, vs_strong=1.5), paper="b")
    make_run(home.runs, "20260103-000000-b-cccc", paper="b")
    said = compare("--profile")
    assert "50% of 2 cases are at least 1× as fast as their strongest rival." in said
    assert "100% of 2 cases are at least 0.5× as fast as their strongest rival." in said
    found = json.loads(compare("--profile", "--json"))
    assert found["shares"]["1.25"] == 0.5
    assert [(case["paper"], case["speed"]) for case in found["cases"]] == [("a", 0.5), ("b", 1.5)]


def test_a_profile_without_runs_and_a_compare_without_a_second_run_are_refused(home: Home) -> None:
    with pytest.raises(NotAvailableError):
        compare("--profile")
    assert CliRunner().invoke(app, ["one"]).exit_code == 2
