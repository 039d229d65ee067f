import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import torch

from readtrack.bench import ceilings
from readtrack.bench.ceilings import Ceilings
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home

CPU = torch.device("cpu")
MIB = 1 << 20


def example(**fields: Any) -> Ceilings:
    """Ceilings of 100 GFLOP/s, 100 GB/s up to 1 MiB, 10 GB/s beyond 4 MiB, and 2 µs per launch."""
    return Ceilings(
        **{
            "device": "cpu",
            "device_name": "Example CPU",
            "torch": "2.13.0",
            "threads": 4,
            "at": datetime.now(UTC).isoformat(),
            "flops": {"float32": 100e9, "bfloat16": 1e9},
            "copy": 10e9,
            "read": 9e9,
            "cache_copy": 100e9,
            "cache_read": 80e9,
            "in_place": [[MIB, 200e9], [64 * MIB, 15e9]],
            "bandwidth": [[MIB / 16, 80e9], [MIB, 100e9], [4 * MIB, 10e9], [64 * MIB, 9e9]],
            "launch_ns": 2_000.0,
            **fields,
        }
    )


def found(home: Home, **changes: Any) -> Ceilings | None:
    key = {"device_name": "Example CPU", "torch_version": "2.13.0", "threads": 4, **changes}
    return ceilings.load(home, **key)


def test_a_calibration_is_kept_by_device_torch_and_threads(home: Home) -> None:
    assert found(home) is None
    kept = example()
    ceilings.save(home, kept)
    assert found(home) == kept
    assert found(home, threads=1) is None
    assert found(home, torch_version="2.14.0") is None
    assert found(home, device_name="Another CPU") is None


def test_a_calibration_lasts_thirty_days(home: Home) -> None:
    for days, expected in ((29, True), (31, False)):
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        ceilings.save(home, example(at=at))
        assert (found(home) is not None) is expected


@pytest.mark.parametrize("text", ["", "{", "[]", '{"device": "cpu"}', '{"unknown": 1}'])
def test_a_broken_file_counts_as_none(home: Home, text: str) -> None:
    ceilings.save(home, example())
    [file] = (home.cache / "ceilings").iterdir()
    file.write_text(text, encoding="utf-8")
    assert found(home) is None


def test_the_roofline() -> None:
    here = example()
    least = partial(here.attainable_ns, touched=1e3, in_place=False)
    # 1 Gflop over few bytes: compute-bound, 10 ms at 100 GFLOP/s.
    assert least("float32", 1e9, 1e3) == (pytest.approx(10e6), "compute")
    assert least("bfloat16", 1e9, 1e3) == (pytest.approx(1e9), "compute")
    assert least("float16", 1e9, 1e3)[0] == math.inf
    # 90 MB and few flops: memory-bound, 10 ms at the memory's 9 GB/s.
    assert least("float32", 1e3, 90e6, touched=90e6) == (pytest.approx(10e6), "memory")
    # With warm caches, a small case is in the cache, and the better rate of a larger size applies to it.
    assert least("float32", 0, 1e4)[0] == pytest.approx(1e4 / 100e9 * 1e9)
    # With cold caches, everything comes from memory.
    assert least("float32", 0, 1e4, touched=math.inf)[0] == pytest.approx(1e4 / 9e9 * 1e9)
    # Between two sizes, the rate is interpolated.
    assert least("float32", 0, 1e4, touched=2 * MIB)[0] == pytest.approx(1e4 / 55e9 * 1e9)
    # An in-place step moves more bytes than it touches, and has its own rates.
    step = least("float32", 0, 1.5 * MIB, touched=MIB, in_place=True)
    assert step == (pytest.approx(1.5 * MIB / 200e9 * 1e9), "memory")


def test_a_time_near_the_empty_call_is_bound_by_the_launch() -> None:
    here = example()
    assert here.bound("memory", 5_000.0) == "launch"
    assert here.bound("memory", 7_000.0) == "memory"


@pytest.mark.parametrize(
    ("flops", "expected"),
    [
        ({"float32": 96e9, "bfloat16": 1.4e9}, "float32"),
        ({"float32": 96e9, "bfloat16": 110e9}, "float32"),
        ({"float32": 1e12, "bfloat16": 8e12}, "bfloat16"),
        ({"float32": 96e9}, "float32"),
        ({}, "float32"),
    ],
)
def test_the_default_dtype_follows_from_the_rates(flops: dict[str, float], expected: str) -> None:
    assert example(flops=flops).default_dtype == expected


def test_merging_keeps_the_best_of_both() -> None:
    old = example(flops={"float32": 90e9, "float64": 40e9}, copy=12e9, launch_ns=1_000.0)
    both = ceilings.merged(old, example(flops={"float32": 95e9}))
    assert both.flops == {"float32": 95e9, "float64": 40e9}
    assert (both.copy, both.launch_ns) == (12e9, 1_000.0)
    quicker = ceilings.merged(old, example(bandwidth=[[size, 2e10] for size, _ in old.bandwidth]))
    assert [rate for _, rate in quicker.bandwidth] == [80e9, 100e9, 20e9, 20e9]
    assert ceilings.merged(None, old) is old


def test_the_id_follows_the_content() -> None:
    here = example()
    assert here.id == replace(here).id
    assert here.id != replace(here, copy=11e9).id


def test_measuring_gives_rates_that_a_product_and_a_copy_confirm() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = ceilings.measure(CPU, dtypes=["float32"], seconds=0.5, check_cancelled=lambda: None)
    finally:
        torch.set_num_threads(threads)
    assert here.threads == 1
    assert here.flops.keys() == {"float32"}
    assert 1e9 < here.flops["float32"] < 1e12
    assert here.cache_copy >= 0.8 * here.copy > 1e8
    assert here.cache_read >= 0.8 * here.read > 1e8
    assert 100 < here.launch_ns < 1e6
    for curve in (here.bandwidth, here.in_place):
        assert [size for size, _ in curve] == sorted(size for size, _ in curve)
        assert curve[-1][1] < max(rate for _, rate in curve)


@pytest.mark.slow
def test_calibrating_happens_in_a_child_and_is_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    answer = ceilings.calibrate(home, device="cpu", seconds=0.3)
    assert answer.threads == 1
    assert set(answer.flops) == {"float32", "bfloat16", "float16", "float64"}
    key = {"device_name": answer.device_name, "torch_version": answer.torch, "threads": 1}
    assert ceilings.load(home, **key) == (None if answer.contended else answer)
    assert json.loads(json.dumps(asdict(answer)))["device"] == "cpu"


def test_an_unknown_device_is_one_line(home: Home) -> None:
    with pytest.raises(NotAvailableError, match="There is no device 'cuda:7' here"):
        ceilings.calibrate(home, device="cuda:7")


def test_a_child_that_dies_is_one_line(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    python = home.ensure() / "python"
    python.write_text("#!/bin/sh\necho \"No module named 'readtrack'\" >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv("READTRACK_PYTHON", str(python))
    with pytest.raises(ReadtrackError, match="calibration failed: No module named 'readtrack'"):
        ceilings.calibrate(home, device="cpu")


def test_asking_for_ceilings_imports_no_torch() -> None:
    code = "import sys, readtrack.bench.ceilings, readtrack.bench.compare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
