"""Complete measurements on this machine's CPU, and the handling of contention."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from torch import Tensor

from readtrack.bench import ceilings, contention, measure
from readtrack.bench.case import Budget, Case, Cost, Variant
from readtrack.bench.ceilings import Ceilings
from readtrack.bench.contention import ContentionMonitor, CpuContention
from readtrack.bench.measure import run_cases
from readtrack.bench.sampling import PLANS, Blocks, collect
from readtrack.devices import describe
from readtrack.home import Home
from readtrack.runs.events import encode

CPU = torch.device("cpu")
Row = dict[str, Any]


def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(64, 64, generator=generator), torch.randn(64, 64, generator=generator)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def five_times(a: Tensor, b: Tensor) -> Tensor:
    for _ in range(5):
        out = a @ b
    return out


def case_of(**fields: Any) -> Case:
    """A case in which `five_times` is naive, and a single product is both strong and the paper's variant."""
    cost = Cost(flops=2 * 64**3, bytes=3 * 4 * 64**2)
    return Case(
        **{
            "name": "matmul",
            "axes": {"n": 64},
            "inputs": inputs,
            "variants": [
                Variant(name="five", role="naive", call=five_times),
                Variant(name="torch.mm", role="strong", call=torch.mm),
                Variant(name="ours", role="paper", call=matmul),
                Variant(name="kernel", role="vendor", call=matmul, needs="needs triton"),
            ],
            "cost": {"forward": cost},
            **fields,
        }
    )


@pytest.fixture(autouse=True)
def brief(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use five rounds of milliseconds, as in a quick run, and do not measure ceilings.

    Tests marked `timing` use the full versions.
    """
    if request.node.get_closest_marker("timing"):
        return
    monkeypatch.setitem(
        PLANS, "quick", replace(PLANS["quick"], seconds=0.03, warm_up=0.001, sample_ns=20_000)
    )
    rates = dict.fromkeys(("copy", "read", "cache_copy", "cache_read"), 1e13)
    curve = [[1e4, 1e13], [1e8, 1e13]]
    fields = {"flops": {"float32": 1e14}, "bandwidth": curve, "in_place": curve, "launch_ns": 1000.0, **rates}

    def found(device: torch.device, **more: Any) -> Ceilings:
        about = describe(device)
        now = datetime.now(UTC).isoformat()
        return Ceilings(
            device="cpu",
            device_name=about["device_name"],
            torch=about["torch"],
            threads=torch.get_num_threads(),
            at=now,
            **fields,
        )

    monkeypatch.setattr(ceilings, "measure", found)


def events_of(*cases: Case, budget: Budget = "smoke", seed: int = 0) -> list[tuple[str, Row]]:
    events: list[tuple[str, Row]] = []
    run_cases(
        cases,
        device=CPU,
        dtype=torch.float32,
        budget=budget,
        seed=seed,
        emit=lambda event, **fields: events.append((event, fields)),
        check_cancelled=lambda: None,
    )
    return events


def rows_of(*cases: Case, budget: Budget = "smoke") -> list[Row]:
    """The measurements after the last round."""
    return last_round(events_of(*cases, budget=budget))


def last_round(events: list[tuple[str, Row]]) -> list[Row]:
    return [f for event, f in events if event == "measurement" and f["round"] == f["rounds"]]


@pytest.mark.timing
def test_a_measurement_contains_every_field() -> None:
    cost = {"forward": Cost(2 * 64**3, 3 * 4 * 64**2), "forward+backward": Cost(6 * 64**3, 6 * 4 * 64**2)}
    events = events_of(case_of(cost=cost), budget="quick")
    by_name = {event: fields for event, fields in events if event != "measurement"}
    machine, env, ceiling = (by_name[name] for name in ("machine", "env", "ceilings"))
    rows = last_round(events)
    assert [(r["variant"], r["mode"]) for r in rows] == [
        (variant, mode) for mode in cost for variant in ("five", "torch.mm", "ours", "kernel")
    ]
    for found in rows:
        json.loads(encode({"event": "measurement", **found}))
        assert (found["device_id"], found["env_id"]) == (machine["id"], env["id"])
        assert found["settings"]["threads"] == 1
        assert found["settings"]["input_sets"] == 2
        if found["skipped"]:
            assert (found["t_ns"], found["ok"], found["record"]) == (None, None, False)
            continue
        times = found["t_ns"]
        assert times["n"] >= 6
        assert times["min"] <= times["p20"] <= times["p50"] <= times["p80"]
        assert times["ci95"][0] <= times["p50"] <= times["ci95"][1]
        assert times["number"] * times["p50"] >= 0.5e6
        assert len(found["samples"]) == min(times["n"], len(found["samples"]))
        assert found["tflops"] == pytest.approx(found["flops"] / times["value"] / 1e3, rel=1e-3)
        assert found["gbps"] == pytest.approx(found["bytes"] / times["value"], rel=1e-3)
        assert found["ok"]["passed"]
        assert 0 < found["ok"]["max_rel"] < 1e-4
        assert found["mem"]["method"] == "profiler"
        assert found["mem"]["peak_bytes"] >= 4 * 64**2
        assert found["pct_ceiling"] > 1
        assert found["ceiling_id"] == ceiling["id"]
        assert found["bound"] in ("compute", "memory", "launch")
        assert found["first_call_s"] > 0
        assert found["quality"]["faults_per_call"] < 100
    five, strong, ours, _ = rows[:4]
    assert five["vs_naive"] == 1.0
    assert strong["vs_strong"] == 1.0
    assert ours["vs_naive"] > 2
    assert 0.3 < ours["vs_strong"] < 3


def test_the_first_calibration_is_kept_for_the_next_run(home: Home) -> None:
    first = rows_of(case_of(), budget="quick")
    kept = list((home.cache / "ceilings").glob("*.json"))
    assert json.loads(kept[0].read_text(encoding="utf-8"))["flops"].keys() == {"float32"}
    second = rows_of(case_of(), budget="smoke")
    assert first[0]["ceiling_id"] == second[0]["ceiling_id"] is not None


def test_a_smoke_run_neither_calibrates_nor_profiles(home: Home) -> None:
    found = rows_of(case_of())[0]
    assert (found["pct_ceiling"], found["bound"], found["ceiling_id"], found["mem"]) == (None,) * 4
    assert not (home.cache / "ceilings").exists()


@pytest.mark.timing
def test_a_smoke_run_takes_about_a_second() -> None:
    rows_of(case_of())
    start = time.process_time()
    rows_of(*(case_of(axes={"n": n}) for n in range(4)))
    assert time.process_time() - start < 1.0


def test_the_time_is_divided_among_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    def spy(sources: Any, plan: Any, *rest: Any) -> Any:
        plans.append(plan)
        return collect(sources, replace(plan, seconds=0.001, warm_up=0.0), *rest)

    monkeypatch.setattr(measure, "collect", spy)
    monkeypatch.setitem(PLANS, "quick", replace(PLANS["quick"], seconds=0.1))
    rows_of(case_of(), budget="quick")
    assert plans[0].seconds == PLANS["quick"].seconds
    plans.clear()
    rows_of(*(case_of(axes={"n": n}) for n in range(16)), budget="quick")
    # 16 cases with three runnable variants share two seconds per round.
    assert plans[0].seconds == pytest.approx(2 / 48)
    assert len(plans) == 5 * 16


def test_the_same_seed_gives_the_same_inputs() -> None:
    seen: list[float] = []

    def spying(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a[0, 0].item())
        return a @ b

    variants = [Variant(name="spy", role="naive", call=spying)]
    for seed in (0, 0, 1):
        seen.append(-1.0)
        events_of(case_of(variants=variants), seed=seed)
    runs = "".join(f"{value} " for value in seen).split("-1.0")[1:]
    firsts = [run.split()[0] for run in runs]
    assert firsts[0] == firsts[1] != firsts[2]


def test_a_run_can_be_stopped_between_two_blocks() -> None:
    calls = 0

    class Stopped(BaseException):
        pass

    def check_cancelled() -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise Stopped

    with pytest.raises(Stopped):
        run_cases(
            [case_of()],
            device=CPU,
            dtype=torch.float32,
            budget="quick",
            seed=0,
            emit=lambda event, **fields: None,
            check_cancelled=check_cancelled,
        )
    # The device's lock was released.
    assert rows_of(case_of())


def test_a_device_is_measured_by_one_process_at_a_time(home: Home) -> None:
    other = home.lock("device-cpu")
    other.acquire()
    asked = 0
    rows: list[Row] = []

    def check_cancelled() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            assert rows == []
            other.release()

    run_cases(
        [case_of()],
        device=CPU,
        dtype=torch.float32,
        budget="smoke",
        seed=0,
        emit=lambda event, **fields: rows.append(fields) if event == "measurement" else None,
        check_cancelled=check_cancelled,
    )
    assert rows[0]["quality"]["lock_wait_s"] >= 0.2
    assert not home.lock("device-cpu").is_locked


def test_a_variant_that_fails_while_it_is_timed_ends_only_itself() -> None:
    calls = 0

    def tires(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise RuntimeError("tired")
        return a @ b

    five, ours = rows_of(
        case_of(
            variants=[
                Variant(name="five", role="naive", call=five_times),
                Variant(name="ours", role="paper", call=tires),
            ]
        )
    )
    assert five["t_ns"] is not None
    assert ours["t_ns"] is None
    assert ours["ok"]["reason"] == "RuntimeError: tired"


def test_a_variant_that_fails_in_its_first_block_ends_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Any, plan: Any) -> None:
        raise RuntimeError("out of handles")

    monkeypatch.setattr(Blocks, "warm_up", fails)
    assert {r["ok"]["reason"] for r in rows_of(case_of()) if r["ok"]} == {"RuntimeError: out of handles"}


def test_a_step_is_measured_on_separate_inputs() -> None:
    def sgd(p: Tensor, g: Tensor) -> Tensor:
        return p.sub_(g, alpha=0.1)

    variants = [
        Variant(name="loop", role="naive", call=sgd),
        Variant(name="ours", role="paper", call=lambda p, g: p.add_(g, alpha=-0.1)),
    ]
    rows = rows_of(case_of(cost={"step": Cost(2 * 64**2, 12 * 64**2)}, variants=variants))
    assert [r["ok"]["passed"] for r in rows] == [True, True]
    assert all(r["t_ns"] for r in rows)


def test_fresh_inputs_are_made_outside_of_the_clock() -> None:
    def slowly(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        time.sleep(0.005)
        return inputs(generator)

    rows = rows_of(case_of(inputs=slowly, fresh=True))
    assert [row["t_ns"]["value"] < 1e6 for row in rows[:3]] == [True] * 3
    assert rows[0]["settings"]["input_sets"] is None


def test_a_state_is_timed_at_the_same_length_over_and_over() -> None:
    lengths: list[int] = []

    def grow(state: list[Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
        lengths.append(len(state))
        state.append(x)
        return torch.stack(state).sum(0), state

    case = case_of(
        inputs=lambda generator: ([torch.randn(8, generator=generator)], torch.randn(8, generator=generator)),
        variants=[Variant(name="list", role="naive", call=grow)],
        cost={"decode": Cost(8, 64)},
    )
    (row,) = rows_of(case)
    assert row["ok"]["passed"], row["ok"]
    assert row["t_ns"]["n"] >= 1
    assert lengths.count(1) > lengths.count(2) > 0
    assert set(lengths) == {1, 2}


def test_until_reports_its_cost_without_a_share_of_a_ceiling() -> None:
    def call(a: Tensor, b: Tensor) -> dict[str, float]:
        return {"reached": True, "evaluations": 12, "loss": 0.5}

    case = case_of(variants=[Variant(name="ours", role="paper", call=call)], cost={"until": None})
    (row,) = rows_of(case)
    assert (row["evaluations"], row["reported"]) == (12, {"evaluations": 12, "loss": 0.5})
    assert row["t_ns"]["value"] > 0
    assert [row[name] for name in ("flops", "bytes", "tflops", "gbps", "pct_ceiling")] == [None] * 5
    json.loads(encode({"event": "measurement", **row}))


# Contention


def quality(**fields: Any) -> CpuContention:
    return CpuContention(
        **{
            "cpu_util": 0.97,
            "waiting": 0.001,
            "others": 0.0,
            "steal": 0.0,
            "throttle": 0.0,
            "nivcsw": 1,
            "minor_faults": 0,
            "loadavg": 0.5,
            "own_threads_delayed": False,
            "contended": False,
            **fields,
        }
    )


def watching(monkeypatch: pytest.MonkeyPatch, *qualities: CpuContention, crowded: bool = False) -> list[int]:
    """Make the contention monitors report these values in order. Returns the numbers of threads that they
    were asked about.
    """
    asked: list[int] = []
    left = iter(qualities)

    class Fake:
        def __init__(self, threads: int) -> None:
            asked.append(threads)

        def read(self) -> CpuContention:
            return next(left)

    monkeypatch.setattr(measure, "ContentionMonitor", Fake)
    monkeypatch.setattr(measure, "_UNTIL_QUIET", 0.0)
    monkeypatch.setattr(measure, "probe", lambda threads: crowded)
    return asked


def test_a_quiet_run_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    watching(monkeypatch, *[quality()] * 5)
    for found in rows_of(case_of(), budget="quick")[:3]:
        assert found["flags"] == []
        assert found["record"]
        assert found["t_ns"]["value"] == found["t_ns"]["p50"]
        assert found["t_ns"]["drift"] >= 0
        low, high = found["vs_naive_ci95"] or (1, 1)
        assert low <= found["vs_naive"] <= high
        assert (found["vs_naive_ci95"] is None) == (found["role"] == "naive")
        assert (found["vs_strong_ci95"] is None) == (found["role"] == "strong")


def test_each_visit_emits_measurements_and_only_the_last_is_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    watching(monkeypatch, *[quality()] * 10)
    events = events_of(case_of(), case_of(axes={"n": 2}), budget="quick")
    rows = [row for event, row in events if event == "measurement" and row["variant"] == "ours"]
    # Every variant is measured once before any is measured again.
    assert [(row["round"], row["axes"]["n"]) for row in rows] == [
        (v, n) for v in range(1, 6) for n in (64, 2)
    ]
    assert [row["record"] for row in rows] == [False] * 8 + [True] * 2
    assert [bool(row["samples"]) for row in rows] == [False] * 8 + [True] * 2
    counts = [row["t_ns"]["n"] for row in rows[::2]]
    assert counts == sorted(set(counts))


def test_a_visit_that_was_disturbed_flags_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    watching(monkeypatch, quality(), quality(contended=True, others=2.0), *[quality()] * 3)
    found = rows_of(case_of(), budget="quick")[0]
    assert found["flags"] == ["contended"]
    assert not found["record"]
    assert found["quality"]["others"] == 2.0


def test_a_burst_costs_one_visit_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    # Long enough for the samples of an interval when other tests use the same processor.
    monkeypatch.setitem(PLANS, "quick", replace(PLANS["quick"], seconds=0.1))
    crowd = quality(contended=True, own_threads_delayed=True)
    asked = watching(monkeypatch, quality(), crowd, *[quality()] * 2, crowd, *[quality()] * 2)
    found = rows_of(case_of(), budget="quick")[0]
    assert asked == [2] * 7
    assert (found["settings"]["threads"], found["flags"], found["record"]) == (2, [], True)
    assert len(found["t_ns"]["medians"]) == 5  # samples of disturbed rounds are excluded


def test_many_bursts_are_not_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(measure, "_MOST_BURSTS", 1)
    crowd = quality(contended=True, own_threads_delayed=True)
    asked = watching(monkeypatch, quality(), crowd, quality(), crowd, *[quality()] * 4)
    found = rows_of(case_of(), budget="quick")[0]
    assert asked == [2, 2, 2, 2, 1, 1, 1]
    assert (found["settings"]["threads"], found["flags"]) == (1, ["contended"])


def test_samples_of_another_number_of_threads_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    crowd = quality(contended=True, own_threads_delayed=True)
    asked = watching(monkeypatch, quality(), crowd, crowd, *[quality()] * 4)
    rows = [row for event, row in events_of(case_of(), budget="quick") if event == "measurement"]
    assert asked == [2, 2, 2, 1, 1, 1, 1]
    ours = [row for row in rows if row["variant"] == "ours"]
    assert [row["settings"]["threads"] for row in ours] == [2, 1, 1, 1, 1]
    assert ours[-1]["flags"] == ["contended"]
    assert ours[-1]["t_ns"]["drift"] is not None  # over the four rounds with one thread


def test_slow_calls_are_sampled_only_in_the_first_visit() -> None:
    calls = []

    def slow(a: Tensor, b: Tensor) -> Tensor:
        calls.append(time.sleep(0.6))
        return a @ b

    case = case_of()
    case = replace(case, variants=[replace(v, call=slow) if v.name == "ours" else v for v in case.variants])
    found = rows_of(case, budget="quick")[2]
    assert (found["t_ns"]["n"], found["t_ns"]["ci95"], found["record"]) == (1, None, False)
    assert found["ok"]["passed"]
    assert len(calls) == 5  # three calls for checks, one for time, one for memory


def test_a_variant_that_goes_wrong_in_a_later_visit_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = watching(monkeypatch, *[quality()] * 5)

    def tired(a: Tensor, b: Tensor) -> Tensor:
        if len(visits) > 2:
            raise RuntimeError("worn out")
        return a @ b

    case = case_of()
    case = replace(case, variants=[replace(v, call=tired) if v.name == "ours" else v for v in case.variants])
    found = rows_of(case, budget="quick")[2]
    assert found["t_ns"] is None
    assert "worn out" in found["ok"]["reason"]


def test_a_time_without_an_interval_is_not_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    watching(monkeypatch, quality())
    monkeypatch.setitem(PLANS, "smoke", replace(PLANS["smoke"], min_samples=1, seconds=1e-9))
    found = rows_of(case_of())[0]
    assert found["t_ns"]["ci95"] is None
    assert not found["record"]


def test_a_contended_run_shows_the_minimum_and_is_not_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    watching(monkeypatch, quality(contended=True))
    for found in rows_of(case_of())[:3]:
        assert found["flags"] == ["contended"]
        assert not found["record"]
        assert found["t_ns"]["value"] == found["t_ns"]["min"]


def test_a_run_that_stays_contended_continues_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    asked = watching(monkeypatch, *[quality(contended=True)] * 2, quality(), quality())
    rows = rows_of(case_of(), case_of(axes={"n": 65}))
    assert asked == [2, 2, 1, 1]
    assert torch.get_num_threads() == 2
    for found in rows:
        assert found["settings"]["threads"] == 1
        assert found["skipped"] or found["flags"] == ["contended"]


def test_crowded_cores_are_noticed_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    asked = watching(monkeypatch, quality(), crowded=True)
    rows = rows_of(case_of())
    assert asked == [1]
    assert torch.get_num_threads() == 2
    assert {tuple(r["flags"]) for r in rows[:3]} == {("contended",)}


@pytest.mark.timing
def test_busy_loops_on_every_core_are_seen() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        watch = ContentionMonitor(1)
        end = time.perf_counter() + 1.0
        while time.perf_counter() < end:
            sum(range(1000))
        seen = watch.read()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert seen.contended
    assert seen.others > cores / 4
    if seen.waiting is not None:
        assert seen.own_threads_delayed
        assert seen.waiting > 0.05


def test_waiting_without_a_cause_is_not_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleeping process uses little of a core; only being ready without running counts as waiting."""
    readings = iter(
        [
            contention._Reading(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0),
            contention._Reading(10.0, 1.0, 0.01, 1.1, 0.0, 0.0, 5, 3),
        ]
    )
    monkeypatch.setattr(contention, "_read", lambda: next(readings))
    seen = ContentionMonitor(4).read()
    assert seen.cpu_util == pytest.approx(0.025)
    assert seen.waiting == pytest.approx(0.01 / 1.01)
    assert not seen.contended
