"""Texts for measurements, alone and in tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from readtrack.text import format_bytes, format_nanoseconds, format_number, one_line

Event = Mapping[str, Any]
_RIVALS = {"naive": ("naive",), "strong": ("naive", "strong", "compiled")}

FLAGS = {
    "contended": "other programs used the processor: these are the shortest times, and ratios are uncertain",
    "page-faults": "page faults occurred during the measurement",
    "host-bound": "the host could not feed the device fast enough",
    "over-ceiling": "faster than the device's measured peak: suspicious",
    "review": "ten times as fast as the strongest baseline: suspicious",
}


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed-up over a rival.

    half: half of the interval ("±3%"); sure: whether the interval excludes 1.
    """

    ratio: float
    half: str
    sure: bool

    @property
    def faster(self) -> bool:
        return self.sure and self.ratio > 1

    @property
    def text(self) -> str:
        return f"{self.ratio:.2f}×" if self.ratio < 99.5 else f"{self.ratio:.0f}×"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantView:
    """A variant of a case. All texts are safe to print, and "" if not available.

    axes     the point of the case, as text: `{"tokens": "1024", "causal": "yes"}`
    time     the representative time; `nanoseconds` is the same as a number, or None
    half     half of the median's interval ("±2%"); "" if the minimum is shown
    missing  why there is no time
    skipped  whether it cannot run here at all (or did not pass its check)
    """

    case: str
    axes: Mapping[str, str]
    places: Mapping[str, float]
    mode: str
    dtype: str
    device: str
    name: str
    role: str
    time: str
    nanoseconds: float | None
    half: str
    missing: str
    skipped: bool
    naive: Speed | None
    strong: Speed | None
    memory: str
    ceiling: float | None
    bound: str
    closeness: float | None
    gflops: float | None
    gbps: float | None
    flags: tuple[str, ...]
    last_round: bool

    @property
    def faster(self) -> bool:
        """Whether it is significantly faster than a rival."""
        return any(speed is not None and speed.faster for speed in (self.naive, self.strong))

    @property
    def point(self) -> str:
        """The measured point, the same for all variants: `attention, tokens 1024, forward, float32`."""
        return ", ".join(filter(None, [self.case, *axis_words(self.axes), self.mode, self.dtype]))

    def line(self) -> str:
        """All details besides the time, on one line."""
        naive, strong = (
            f"{speed.text} {speed.half}".rstrip() if speed else "" for speed in (self.naive, self.strong)
        )
        said = (
            self.half,
            naive and f"{naive} against naive",
            strong and f"{strong} against the strongest rival",
            "" if self.ceiling is None else f"{self.ceiling:.0f} % of ceiling",
            self.remarks() if self.time else f"{'skipped' if self.skipped else 'no time'}: {self.missing}",
        )
        return ", ".join(filter(None, said))

    def remarks(self) -> str:
        """The bottleneck, the memory, and the flags."""
        limit = f"{self.bound}-bound" if self.ceiling is not None and self.bound else ""
        return ", ".join(filter(None, [limit, self.memory and f"peak {self.memory}", *self.flags]))


def axis_words(axes: Mapping[str, str]) -> list[str]:
    """`tokens 1024`; `causal` or `not causal`."""
    spelled = {"yes": "{}", "no": "not {}"}
    return [spelled.get(value, f"{{}} {value}").format(name) for name, value in axes.items()]


def measured(event: Event) -> VariantView:
    """The view of a `measurement` event."""
    axes, times, check = (_mapping(event, name) for name in ("axes", "t_ns", "ok"))
    role, flags = _text(event, "role"), tuple(one_line(str(flag)) for flag in _list(event, "flags"))
    value = _number(times, "value")
    value = value if value is not None else _number(times, "p50")
    skipped = _text(event, "skipped")
    why = skipped or _text(check, "reason") or "differs from the reference"
    peak, rate = _number(_mapping(event, "mem"), "peak_bytes"), _number(event, "tflops")
    contended = "contended" in flags
    return VariantView(
        case=_text(event, "case"),
        axes={one_line(str(name)): _word(place) for name, place in axes.items()},
        places={name: number for name in axes if (number := _number(axes, name)) is not None},
        mode=_text(event, "mode"),
        dtype=_text(event, "dtype"),
        device=_text(event, "device"),
        name=_text(event, "variant"),
        role=role,
        time="" if value is None else format_nanoseconds(value),
        nanoseconds=value,
        half="" if contended else _half(times.get("ci95")),
        missing="" if value is not None else why,
        skipped=bool(skipped),
        naive=_speed(event, "naive", role, contended),
        strong=_speed(event, "strong", role, contended),
        memory="" if peak is None else format_bytes(peak),
        ceiling=_number(event, "pct_ceiling"),
        bound=_text(event, "bound"),
        closeness=_number(event, "closeness"),
        gflops=None if rate is None else rate * 1e3,
        gbps=_number(event, "gbps"),
        flags=flags,
        last_round=event.get("round") == event.get("rounds"),
    )


def absent(rows: Sequence[VariantView]) -> tuple[list[VariantView], dict[str, list[str]]]:
    """The rows of variants that can run here, and the names of all other variants by reason."""
    reasons: dict[str, set[str]] = {}
    for row in rows:
        reasons.setdefault(row.name, set()).add(row.missing if row.skipped else "")
    gone = {name: next(iter(why)) for name, why in reasons.items() if len(why) == 1 and why != {""}}
    found: dict[str, list[str]] = {}
    for name, why in gone.items():
        found.setdefault(why, []).append(name)
    return [row for row in rows if row.name not in gone], found


def common_axes(rows: Sequence[VariantView]) -> dict[str, str]:
    """The axes with the same value in all rows, which need no column."""
    if len(rows) < 2:
        return {}
    shared = set.intersection(*(set(row.axes.items()) for row in rows))
    return {name: value for name, value in rows[0].axes.items() if (name, value) in shared}


def _speed(event: Event, rival: str, role: str, contended: bool) -> Speed | None:
    """The speed-up over a rival, never sure if other programs ran. None for the rival itself."""
    ratio = _number(event, f"vs_{rival}")
    if ratio is None or role in _RIVALS[rival]:
        return None
    half = "" if contended else _half(event.get(f"vs_{rival}_ci95"))
    return Speed(ratio, half, event.get(f"vs_{rival}_sure") is True and not contended)


def _half(interval: object) -> str:
    """Half of an interval, relative to its middle."""
    match interval:
        case [float() | int() as low, float() | int() as high] if low + high:
            return f"±{(high - low) / (high + low):.0%}"
    return ""


def _mapping(event: Event, name: str) -> Event:
    value = event.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(event: Event, name: str) -> Sequence[Any]:
    value = event.get(name)
    return value if isinstance(value, list) else ()


def _text(event: Event, name: str) -> str:
    value = event.get(name)
    return "" if value is None else one_line(str(value))


def _number(event: Event, name: str) -> float | None:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, float) else "" if value is None else one_line(str(value))
