"""The worker with the real torch: seeds, threads, devices, measurements, memory errors."""

import pytest

from readtrack.devices import physical_cores


@pytest.fixture
def drawn(runs, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    return runs.run("toy_measured", only=None, seed=11)


@pytest.mark.slow
def test_a_seed_fixes_every_number_and_the_core_sets_the_rest(drawn, runs):
    assert drawn.outcome == "completed", drawn.error
    assert drawn.values["threads", ""] == 1
    assert drawn.values["float32", ""] == 1
    assert drawn.environment["device"] == "cpu"
    assert (drawn.environment["dtype"], drawn.environment["benchmark_dtype"]) == ("float32", "float32")

    cells = {(m["axes"]["size"], m["variant"]): m for m in drawn.measurements}
    assert len(cells) == 6
    assert cells[64, "plus"]["ok"]["passed"]
    assert cells[64, "plus"]["t_ns"]["p50"] > 0
    assert cells[128, "fast"]["skipped"] == "needs cuda"
    assert "benchmark" in [name for name, _ in drawn.phases]

    again = runs.run("toy_measured", seed=11)
    other = runs.run("toy_measured", seed=12, dtype="float64")
    for name in ("torch", "generator", "numpy", "random"):
        assert again.values[name, ""] == drawn.values[name, ""]
        assert other.values[name, ""] != drawn.values[name, ""]
    assert again.measurements == []
    assert other.values["float32", ""] == 0


def test_the_cpu_allocators_refusal_is_out_of_memory(runs):
    done = runs.run("toy_measured", settings={"too much": "yes"})
    assert done.outcome == "out_of_memory"
    assert "host memory" in done.detail
    assert done.error["type"] == "RuntimeError"


@pytest.mark.slow
def test_a_benchmark_alone_has_no_settings(runs):
    done = runs.run("toy_measured", only="benchmark", settings={"steps": "3"})
    assert done.outcome == "completed"
    assert done.values == {}
    assert len(done.measurements) == 6
    assert done.warnings == ["--set is for the experiment: the benchmark has no options."]


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["smoke", "quick"])
def test_the_stated_threads_are_used_in_the_measurement(runs, budget, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done = runs.run("toy_measured", only="benchmark", budget=budget)
    assert done.environment["threads"] == (1 if budget == "smoke" else physical_cores())
