"""Measured peak rates of this machine, the denominator of every "% of ceiling".

`calibrate` runs in a child process (`python -m readtrack.bench.ceilings DEVICE`), so that the caller does not
import torch. The roofline model is due to Williams, Waterman & Patterson (2009), "Roofline: an insightful
visual performance model". A datasheet is no substitute, because boards with the same name differ by a factor
of up to 1.6.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from readtrack import devices, interpreter
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home, write_text
from readtrack.text import one_line

if TYPE_CHECKING:
    import torch

Bound = Literal["compute", "memory", "launch"]

_LASTS = timedelta(days=30)
_LAUNCH_BOUND = 3.0  # multiples of an empty operation's time
_BFLOAT16_PAYS = 1.5  # multiple of float32's rate
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The best rates measured on one device with one torch version and number of threads.

    flops        by dtype, flop/s of a square matrix multiplication
    copy, read   bytes/s beyond the cache. copy: b.copy_(a), counting both reads and writes. read: summing a
                 tensor
    cache_copy, cache_read   the best rates within the caches
    bandwidth    [bytes touched, bytes/s] from small to large, the better of copying and reading. Measured
                 over sizes because a virtual machine may have less last-level cache than the processor
                 reports
    in_place     the same for b.add_(a). Writing memory that was not read costs a read too, so an optimiser
                 attains a higher rate than a copy
    launch_ns    time of one operation on a single number
    contended    whether other programs delayed our threads, so that the rates may be far too low
    """

    device: str
    device_name: str
    torch: str
    threads: int | None
    at: str
    flops: dict[str, float] = field(default_factory=dict)
    copy: float
    read: float
    cache_copy: float
    cache_read: float
    bandwidth: list[list[float]]
    in_place: list[list[float]]
    launch_ns: float
    contended: bool = False

    @property
    def id(self) -> str:
        return content_id(asdict(self))

    def attainable_ns(
        self, dtype: str, flops: float, moved: float, *, touched: float, in_place: bool
    ) -> tuple[float, Bound]:
        """The least time that `flops` and `moved` bytes can take, and which of the two limits it.

        touched  bytes in use, which determine the bandwidth. Infinite if the caches are cold, fewer than
                 `moved` if memory is changed in place

        The time is infinite if no rate is known for the dtype.
        """
        compute = flops / self.flops[dtype] * 1e9 if dtype in self.flops else math.inf
        memory = moved / _rate_at(self.in_place if in_place else self.bandwidth, touched) * 1e9
        return max(compute, memory), "compute" if compute >= memory else "memory"

    def bound(self, decides: Bound, measured_ns: float) -> Bound:
        return "launch" if measured_ns < _LAUNCH_BOUND * self.launch_ns else decides

    @property
    def default_dtype(self) -> str:
        """bfloat16 if it is clearly faster than float32; on a CPU without support it is 70 times slower."""
        pays = self.flops.get("bfloat16", 0.0) >= _BFLOAT16_PAYS * self.flops.get("float32", math.inf)
        return "bfloat16" if pays else "float32"


def _rate_at(curve: list[list[float]], touched: float) -> float:
    """bytes/s for this many bytes, interpolated between the measured sizes on a log scale."""
    sizes = [math.log(size) for size, _ in curve]
    # A rate attained with more bytes is attainable with fewer.
    rates = list(accumulate((rate for _, rate in reversed(curve)), max))[::-1]
    wanted = math.log(max(touched, 1.0))
    for (low, high), (left, right) in zip(pairwise(sizes), pairwise(rates), strict=True):
        if wanted < high:
            share = max(0.0, (wanted - low) / (high - low))
            return left + share * (right - left)
    return rates[-1]


def content_id(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(home: Home, *, device_name: str, torch_version: str, threads: int | None) -> Ceilings | None:
    """The calibration for this device, torch version and thread count from the last 30 days, or None."""
    try:
        text = _file(home, device_name, torch_version, threads).read_text(encoding="utf-8")
        found = Ceilings(**json.loads(text))
        fresh = datetime.now(UTC) - datetime.fromisoformat(found.at) < _LASTS
    except (OSError, ValueError, TypeError):
        return None
    return found if fresh else None


def save(home: Home, ceilings: Ceilings) -> None:
    path = _file(home, ceilings.device_name, ceilings.torch, ceilings.threads)
    home.ensure(path.parent)
    write_text(path, json.dumps(asdict(ceilings), indent=2) + "\n")


def _file(home: Home, device_name: str, torch_version: str, threads: int | None) -> Path:
    return home.cache / "ceilings" / f"{content_id([device_name, torch_version, threads])}.json"


def calibrate(
    home: Home,
    *,
    device: str = "auto",
    threads: int | None = None,
    seconds: float = 14.0,
    timeout: float = 180.0,
) -> Ceilings:
    """Measure all ceilings of a device in a child process. Takes `seconds` plus the time to import torch.

    They are saved, unless they are `contended`. Raises NotAvailableError if there is no such device or no
    PyTorch, ReadtrackError if the child fails.
    """
    interpreter.require_torch()
    command = [interpreter.path(), "-m", "readtrack.bench.ceilings", device, "--seconds", str(seconds)]
    if threads is not None:
        command += ["--threads", str(threads)]
    environment = {**os.environ, "READTRACK_HOME": str(home.root), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=environment
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ReadtrackError(f"The calibration took longer than {timeout:.0f} s.") from error
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ReadtrackError(f"The calibration failed: {one_line(last)}") from error
    if "error" in answer:
        kind = NotAvailableError if answer["exit_code"] == NotAvailableError.exit_code else ReadtrackError
        raise kind(answer["error"])
    return Ceilings(**answer)


def measure(
    device: torch.device, *, dtypes: Sequence[str], seconds: float, check_cancelled: Callable[[], None]
) -> Ceilings:
    """Measure in this process with the current threads for about `seconds`, half of the time for matmul."""
    import torch

    from readtrack.bench.contention import ContentionMonitor

    facts = devices.describe(device)
    cache = cache_bytes(device)
    threads = torch.get_num_threads()
    watch = ContentionMonitor(threads)
    sizes = [cache // part for part in (256, 32, 8, 4, 2, 1)] + [4 * cache]
    share = seconds / 2 / (3 * len(sizes) + 1)
    copies, reads, updates = [], [], []
    for size in sizes:
        check_cancelled()
        copies.append(_copy_rate(device, size, share))
        reads.append(_read_rate(device, size, share))
        updates.append(_update_rate(device, size, share))
    flops = {}
    for name in dtypes:
        check_cancelled()
        rate = _matmul_rate(device, getattr(torch, name), seconds / 2 / len(dtypes))
        if rate is not None:
            flops[name] = rate
    return Ceilings(
        device=str(device),
        device_name=facts["device_name"],
        torch=facts["torch"],
        threads=threads if device.type == "cpu" else None,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        flops=flops,
        copy=copies[-1],
        read=reads[-1],
        cache_copy=max(copies),
        cache_read=max(reads),
        bandwidth=[[size, max(pair)] for size, *pair in zip(sizes, copies, reads, strict=True)],
        in_place=[[size, rate] for size, rate in zip(sizes, updates, strict=True)],
        launch_ns=_launch_ns(device, share),
        contended=device.type == "cpu" and watch.read().own_threads_delayed,
    )


def merged(old: Ceilings | None, new: Ceilings) -> Ceilings:
    """`new` with the rates that only `old` has, and the better rate where both have one."""
    if old is None:
        return new
    flops = {
        name: max(old.flops.get(name, 0.0), new.flops.get(name, 0.0)) for name in {**old.flops, **new.flops}
    }
    rates = {name: max(getattr(old, name), getattr(new, name)) for name in _RATES}
    return replace(
        new,
        flops=flops,
        bandwidth=_upper(old.bandwidth, new.bandwidth),
        in_place=_upper(old.in_place, new.in_place),
        launch_ns=min(old.launch_ns, new.launch_ns),
        **rates,
    )


def _upper(one: list[list[float]], other: list[list[float]]) -> list[list[float]]:
    return [[size, max(a, b)] for (size, a), (_, b) in zip(one, other, strict=True)]


_RATES = ("copy", "read", "cache_copy", "cache_read")


def cache_bytes(device: torch.device) -> int:
    """Size of the last-level cache; 32 MiB if unknown."""
    import torch

    if device.type == "cuda":
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        return int(size) or 32 * _MIB
    return (devices.last_level_cache() if device.type == "cpu" else None) or 32 * _MIB


def _best_ns(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The fastest call, because a ceiling is the attainable time, not the typical one."""
    import torch

    from readtrack.bench.sampling import Blocks, SampleSource, SamplingPlan
    from readtrack.bench.timers import CudaGraph, HostClock

    with torch.no_grad():
        source: SampleSource
        if device.type == "cuda":
            source = CudaGraph([call] * 20, device)  # without host overhead
        else:
            source = Blocks(HostClock([call], device))
        source.warm_up(SamplingPlan(seconds=seconds, warm_up=seconds / 4))
        best, spent = math.inf, 0.0
        while spent < 0.75 * seconds * 1e9:
            sample = source.take(1)[0]
            best, spent = min(best, sample), spent + sample * source.number
    return best


def _matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float | None:
    """Best flop/s for increasingly large square matrices. None if the device cannot multiply the dtype."""
    import torch

    sizes = (256, 512, 1024, 2048, 3072) if device.type == "cpu" else (1024, 2048, 4096, 8192)
    best: float | None = None
    for n in sizes:
        work = 2.0 * n**3
        if best is not None and work / best > seconds / 4:
            break
        try:
            a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            product = partial(torch.mm, a, b, out=torch.empty_like(a))
            nanoseconds = _best_ns(product, device, seconds / 5)
        except (RuntimeError, TypeError):
            return best
        best = max(best or 0.0, work / nanoseconds * 1e9)
    return best


def _copy_rate(device: torch.device, touched: int, seconds: float) -> float:
    import torch

    a, b = (torch.ones(touched // 8, device=device) for _ in range(2))
    return 2 * a.nbytes / _best_ns(lambda: b.copy_(a), device, seconds) * 1e9


def _read_rate(device: torch.device, touched: int, seconds: float) -> float:
    import torch

    a, out = torch.ones(touched // 4, device=device), torch.empty((), device=device)
    return a.nbytes / _best_ns(lambda: torch.sum(a, dim=0, out=out), device, seconds) * 1e9


def _update_rate(device: torch.device, touched: int, seconds: float) -> float:
    import torch

    a, b = (torch.ones(touched // 8, device=device) for _ in range(2))
    return 3 * a.nbytes / _best_ns(lambda: b.add_(a), device, seconds) * 1e9


def _launch_ns(device: torch.device, seconds: float) -> float:
    """Time of one operation on a single number with host overhead, measured in blocks of a millisecond."""
    import torch

    from readtrack.bench.sampling import Blocks, SamplingPlan
    from readtrack.bench.timers import HostClock

    one = torch.ones(1, device=device)
    source = Blocks(HostClock([lambda: one.add_(1)], device))
    source.warm_up(SamplingPlan(seconds=seconds, warm_up=seconds / 4))
    return min(source.take(max(1, int(0.75 * seconds * 1e3))))


def main(arguments: Sequence[str]) -> int:
    """Measure, save unless contended, and print one line of JSON with the ceilings or {"error": ...}."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m readtrack.bench.ceilings")
    parser.add_argument("device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=14.0)
    options = parser.parse_args(arguments)
    try:
        answer = asdict(_measured(options.device, options.threads, options.seconds))
    except ReadtrackError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _measured(name: str, threads: int | None, seconds: float) -> Ceilings:
    home = Home()
    device = devices.resolve(name)
    import torch

    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or devices.physical_cores()))
    dtypes = ("float32", "bfloat16", "float16") + (() if device.type == "mps" else ("float64",))
    with home.lock(lock_name(device), timeout=120):
        found = measure(device, dtypes=dtypes, seconds=seconds, check_cancelled=lambda: None)
    if not found.contended:
        save(home, found)
    return found


def lock_name(device: torch.device) -> str:
    """Name of the lock that allows one measurement at a time on a device, across processes."""
    return f"device-{str(device).replace(':', '-')}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
