"""Settings of torch before a plugin's code runs: threads, seeds, the fastest dtype."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from readtrack import devices
from readtrack.bench import ceilings
from readtrack.bench.case import Budget
from readtrack.home import Home


def benchmark_threads(budget: Budget) -> int:

    return 1 if budget == "smoke" else devices.physical_cores()


def set_threads(count: int) -> None:
    """Set the number of threads. Experiments use one.

    For small networks one thread is as fast as several, gives the same numbers on any number of cores, and
    does not wait for a core that another program occupies (which can be a hundred times slower).
    """

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count)


def calibrated_dtype(device: torch.device) -> str:
    """The fastest dtype on this device from `readtrack calibrate`, or "auto" if that was not run."""

    threads = int(os.environ.get("OMP_NUM_THREADS") or devices.physical_cores())
    kept = ceilings.load(
        Home(),
        device_name=devices.describe(device)["device_name"],
        torch_version=str(torch.__version__),
        threads=threads if device.type == "cpu" else None,
    )
    return kept.default_dtype if kept and {"float32", "bfloat16"} <= set(kept.flops) else "auto"


def seed(seed: int) -> None:

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
