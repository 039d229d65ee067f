"""Peak memory on this machine's CPU."""

import sys

import pytest
import torch
from torch import Tensor

from readtrack.bench import memory

CPU = torch.device("cpu")


def two_then_one() -> Tensor:
    """Two tensors of 16 MiB are alive at the same time."""
    one = torch.ones(4 << 20)
    two = one + 1
    del one
    return two * 2


def test_the_peak_counts_tensors_that_are_alive_together() -> None:
    two_then_one()
    found = memory.peak(two_then_one, CPU)
    assert found["method"] == "profiler"
    assert found["peak_bytes"] == pytest.approx(2 * (16 << 20), rel=0.01)
    if "rss_peak_bytes" in found:
        assert found["rss_peak_bytes"] == pytest.approx(2 * (16 << 20), rel=0.6)


@pytest.mark.skipif(sys.platform != "linux", reason="the resident memory's high water is Linux's")
def test_a_long_call_is_not_profiled() -> None:
    found = memory.peak(two_then_one, CPU, seconds=2.0)
    assert found["method"] == "rss"
    assert found["peak_bytes"] == pytest.approx(2 * (16 << 20), rel=0.6)
