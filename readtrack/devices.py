"""cpu, cuda, mps, xpu: what there is, what a name means, and how to wait for it.

torch is imported inside the functions: only the worker and `readtrack devices` pay for it.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import ReadtrackError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that torch can use here. `name` is torch's ("cpu", "cuda:0", "mps")."""

    name: str
    description: str
    memory_bytes: int | None


def available() -> list[Device]:
    """The devices, the one that "auto" takes first."""
    import torch

    found = []
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        if module.is_available():
            for index in range(module.device_count()):
                properties = module.get_device_properties(index)
                found.append(Device(f"{kind}:{index}", properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        found.append(Device("mps", f"{platform.processor()} GPU (Metal)", None))
    found.sort(key=lambda device: ("cuda", "mps", "xpu").index(device.name.partition(":")[0]))
    return [*found, Device("cpu", _cpu_model(), _cpu_memory())]


def resolve(text: str) -> torch.device:
    """The device of this name; "auto" is the first of cuda, mps, xpu, cpu that exists.

    Raises ReadtrackError, which lists what there is, when it is not there.
    """
    import torch

    names = [device.name for device in available()]
    name = text.strip().lower()
    if name == "auto":
        return torch.device(names[0])
    if name in ("cuda", "xpu"):
        name += ":0"
    if name in ("cpu:0", "mps:0"):
        name = name[:3]
    if name not in names:
        raise ReadtrackError(f"There is no device {text!r} here. There is: {', '.join(names)}.")
    return torch.device(name)


def resolve_dtype(text: str, device: torch.device) -> torch.dtype:
    """The dtype of this name; "auto" is what benchmarks use on the device: bfloat16 where its matrix units
    compute in it (CUDA from compute capability 8.0, XPU), float32 elsewhere. On a CPU without such units a
    bfloat16 matmul is some 70 times slower than float32.
    """
    import torch

    name = text.strip().lower()
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
        return torch.bfloat16 if device.type == "xpu" else torch.float32
    if name not in DTYPES:
        raise ReadtrackError(f"There is no dtype {text!r}. There is: auto, {', '.join(DTYPES)}.")
    if name == "float64" and device.type == "mps":
        raise ReadtrackError("Metal has no float64. Use --dtype float32, or --device cpu.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def synchronize(device: torch.device) -> None:
    """Wait until everything that was queued on the device, on any stream, is done."""
    import torch

    if device.type != "cpu":
        module = getattr(torch, device.type)
        if device.type == "mps":
            module.synchronize()
        else:
            module.synchronize(device)


def device_memory(device: torch.device) -> int | None:
    """Bytes that torch holds on the device now; None for the CPU, and before the device was first used."""
    import torch

    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        return int(module.memory_reserved(device)) if module.is_initialized() else None
    return None


def describe(device: torch.device) -> dict[str, Any]:
    """What a result must say about where it was measured."""
    import torch

    facts: dict[str, Any] = {
        "device": str(device),
        "device_name": _cpu_model(),
        "cpu": _cpu_model(),
        "cores": physical_cores(),
        "threads": torch.get_num_threads(),
        "os": f"{platform.system()} {platform.release()}",
        "torch": str(torch.__version__),
    }
    if device.type in ("cuda", "xpu"):
        properties = getattr(torch, device.type).get_device_properties(device)
        facts["device_name"] = properties.name
        facts["device_memory_bytes"] = properties.total_memory
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts["compute_capability"] = f"{major}.{minor}"
        facts["cuda"] = torch.version.cuda or torch.version.hip
        facts["driver"] = _nvidia_driver()
    if device.type == "mps":
        facts["device_name"] = f"{platform.processor()} GPU (Metal)"
    return facts


def physical_cores() -> int:
    """Cores in this process's affinity mask, hardware threads of one core counted once."""
    if not hasattr(os, "sched_getaffinity"):
        import psutil

        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = Path(_TOPOLOGY.format(cpu))
        try:
            package = (topology / "physical_package_id").read_text().strip()
            cores.add((package, (topology / "core_id").read_text().strip()))
        except OSError:
            cores.add(("cpu", str(cpu)))
    return len(cores)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _cpu_memory() -> int | None:
    import psutil

    return int(psutil.virtual_memory().total)


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((word for word in text.split() if word.count(".") >= 1 and word[0].isdigit()), None)
