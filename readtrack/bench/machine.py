"""The machine and software used for a measurement, each with an id derived from its content.

Two measurements are on the same device if and only if their `device_id` is the same.
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from typing import Any

import psutil
import torch

from readtrack import __version__, devices
from readtrack.bench.ceilings import cache_bytes, content_id

_VARIABLES = ("CUDA_", "CUBLAS_", "GOMP_", "KMP_", "MALLOC_", "MKL_", "OMP_", "PYTORCH_", "TORCH_", "TRITON_")


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware: `{"id", "kind", "device_name", ...}`."""
    known = devices.describe(device)
    facts: dict[str, Any] = {
        "kind": device.type,
        "architecture": platform.machine(),
        "cores_logical": psutil.cpu_count(),
        # Round to GiB, because the kernel's share varies and the id must not change with it.
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "cache_bytes": cache_bytes(device),
        **{
            name: known[name]
            for name in ("device_name", "cpu", "cores", "device_memory_bytes", "compute_capability")
            if name in known
        },
    }
    if device.type == "cuda":
        facts |= _board(str(getattr(torch.cuda.get_device_properties(device), "uuid", "")))
    return {"id": content_id(facts), **facts}


def environment(device: torch.device) -> dict[str, Any]:
    """The software and the environment variables that affect it: `{"id", "torch", ...}`."""
    known = devices.describe(device)
    facts: dict[str, Any] = {
        "readtrack": __version__,
        "python": platform.python_version(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)},
        **{name: known[name] for name in ("os", "torch", "cuda", "driver") if name in known},
    }
    return {"id": content_id(facts), **facts}


@cache
def _board(uuid: str) -> dict[str, Any]:
    """Power cap and highest clock, which differ between boards with the same name."""
    query = ["nvidia-smi", "--query-gpu=power.limit,clocks.max.sm", "--format=csv,noheader,nounits"]
    if uuid:
        query.append(f"--id={uuid if uuid.startswith('GPU-') else f'GPU-{uuid}'}")
    try:
        line = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        power, clock = line.splitlines()[0].split(",")
        return {"power_cap_w": float(power), "clock_max_mhz": float(clock)}
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}  # the tool is missing, or the board does not report them
