"""Devices (cpu, cuda, mps, xpu): list them, resolve names, synchronise.

torch is imported inside the functions, because only the worker and `readtrack devices` need it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack import interpreter
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import quoted

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"
_CPUINFO = Path("/proc/cpuinfo")
_CACHES = "/sys/devices/system/cpu/cpu0/cache"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that torch can use here. `name` is torch's ("cpu", "cuda:0", "mps")."""

    name: str
    description: str
    memory_bytes: int | None


def available() -> list[Device]:
    """The available devices, beginning with the one that "auto" selects. Raises NotAvailableError without
    PyTorch.
    """
    interpreter.import_torch()
    import torch

    found = []
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        if module.is_available():
            for index in range(module.device_count()):
                properties = module.get_device_properties(index)
                found.append(Device(f"{kind}:{index}", properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        found.append(Device("mps", f"{_cpu_model()} GPU (Metal)", None))
    found.sort(key=lambda device: ("cuda", "mps", "xpu").index(device.name.partition(":")[0]))
    return [*found, Device("cpu", _cpu_model(), _cpu_memory())]


def require(text: str) -> None:
    """Raises ReadtrackError for an unknown name, NotAvailableError for a device that this machine lacks.

    This is only a guess that does not import torch, because the import takes seconds. `resolve` is certain.
    """
    name = text.strip().lower()
    kind = name.partition(":")[0]
    if not re.fullmatch(r"auto|(cpu|mps)(:0)?|(cuda|xpu)(:\d+)?", name):
        raise ReadtrackError(f"{quoted(text)} is not a device. Devices are cpu, cuda, cuda:1, mps and xpu.")
    reason = ""
    if kind == "mps" and sys.platform != "darwin":
        reason = "mps exists only on Apple computers"
    elif kind in ("cuda", "xpu") and interpreter.is_own():
        reason = _without(kind)
    if reason:
        raise NotAvailableError(
            f"There is no device {quoted(text)} here: {reason}. `readtrack devices` lists the devices."
        )


def require_dtype(text: str) -> None:
    """Raises ReadtrackError for an unknown dtype. `resolve_dtype` checks whether a device supports it."""
    if text.strip().lower() not in ("auto", *DTYPES):
        raise ReadtrackError(f"There is no dtype {text!r}. Available: auto, {', '.join(DTYPES)}.")


def _without(kind: str) -> str:
    """Why the installed PyTorch cannot use devices of this kind, or ""."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        facts = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    built_for = dict(re.findall(r"^(__version__|cuda|hip|xpu)\b[^=\n]*= (.+)$", facts, re.MULTILINE))
    wanted = {"cuda": ("cuda", "hip"), "xpu": ("xpu",)}[kind]
    if all(built_for.get(name) == "None" for name in wanted):
        version = built_for.get("__version__", "?").strip("'")
        return f"this PyTorch, {version}, was built without {kind}"
    if kind == "cuda" and sys.platform == "linux" and built_for.get("hip") == "None" and not _has_driver():
        return "no NVIDIA driver is installed"
    return ""


def _has_driver() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def resolve(text: str) -> torch.device:
    """The device of this name; "auto" is the first of cuda, mps, xpu, cpu that exists.

    Raises NotAvailableError, which lists the available devices, if there is no such device.
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
        raise NotAvailableError(f"There is no device {text!r} here. Available: {', '.join(names)}.")
    return torch.device(name)


def resolve_dtype(text: str, device: torch.device) -> torch.dtype:
    """The dtype of this name; "auto" is the fastest dtype for benchmarks on the device.

    That is bfloat16 where matrix units support it (CUDA from compute capability 8.0, XPU), else float32. On a
    CPU without such units a bfloat16 matmul is some 70 times slower than float32.
    """
    import torch

    name = text.strip().lower()
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
        return torch.bfloat16 if device.type == "xpu" else torch.float32
    require_dtype(name)
    if name == "float64" and device.type == "mps":
        raise ReadtrackError("Metal has no float64. Use --dtype float32, or --device cpu.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device is done, on all streams."""
    import torch

    if device.type != "cpu":
        module = getattr(torch, device.type)
        if device.type == "mps":
            module.synchronize()
        else:
            module.synchronize(device)


def device_memory(device: torch.device) -> int | None:
    """Bytes that torch holds on the device; None for the CPU, and before the first use of the device."""
    import torch

    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        return int(module.memory_reserved(device)) if module.is_initialized() else None
    return None


def describe(device: torch.device) -> dict[str, Any]:
    """Facts about the machine that belong to a result."""
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
        facts["device_name"] = f"{_cpu_model()} GPU (Metal)"
    return facts


def physical_cores() -> int:
    """Physical cores in this process's affinity mask."""
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


@cache
def _cpu_model() -> str:
    """The processor's name; on ARM, where the kernel reports no names, its implementer and part numbers."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, dict[str, None]] = {}
    for name, _, value in (line.partition(":") for line in lines):
        found.setdefault(name.strip(), {})[" ".join(value.split())] = None
    if "CPU part" in found:
        makers, parts = (", ".join(found.get(name, ())) for name in ("CPU implementer", "CPU part"))
        return f"{platform.machine()} (implementer {makers}, part {parts})"
    return next(iter(found.get("model name", ())), platform.processor() or platform.machine())


def last_level_cache() -> int | None:
    """Bytes of the CPU's largest cache; None if unknown."""
    if sys.platform == "darwin":
        # The first is the L2 cache of the performance cores. Apple's processors report no L3 cache.
        names = ("hw.perflevel0.l2cachesize", "hw.l3cachesize", "hw.l2cachesize")
        return max((int(text) for name in names if (text := _sysctl(name)).isdecimal()), default=0) or None
    sizes = (path.read_text(encoding="ascii").strip() for path in Path(_CACHES).glob("index*/size"))
    return max(map(_bytes, sizes), default=None)


def _bytes(text: str) -> int:
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1)
    return int(text.rstrip("KMG")) * unit


def _sysctl(name: str) -> str:
    """The macOS setting of this name, or ""."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _cpu_memory() -> int | None:
    import psutil

    return int(psutil.virtual_memory().total)


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((word for word in text.split() if word.count(".") >= 1 and word[0].isdigit()), None)
