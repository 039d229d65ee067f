"""The pages of a recorded run as text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from readtrack.present import claims, runs
from readtrack.runs.record import Progress, Record
from readtrack.runs.store import load
from readtrack.text import format_nanoseconds
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.widgets import bench_page, claims_page, picture, run_pages
from readtrack.tui.widgets.line_view import Line
from readtrack.tui.widgets.run_view import Growing
from readtrack.tui.widgets.targets import File


def plain(lines: list[Line]) -> str:
    return "\n".join(line.content.plain for line in lines)


@pytest.fixture
def folder(recorded: Callable[..., Path]) -> Path:
    return recorded()


@pytest.fixture
def record(folder: Path) -> Record:
    return load(folder)


@pytest.mark.parametrize("width", [76, 150])
def test_every_page_as_text(
    record: Record, folder: Path, golden: Callable[[str, str], None], width: int
) -> None:
    pages = {
        "Head": [
            Line(run_pages.title_line(record, "adam", width)),
            Line(run_pages.phase_line(record, width)),
            Line(run_pages.progress_line(record, width)),
        ],
        "Overview": run_pages.overview(record, width, 30, metric=0, log_scale=None),
        "Overview, other metric, logarithmic": run_pages.overview(
            record, width, 20, metric=1, log_scale=True
        ),
        "Claims": claims_page.page(record, width),
        "Benchmark": bench_page.benchmark(record, width),
        "Artifacts": run_pages.artifacts(
            record, folder, width, lambda path, columns: picture.load(path, columns)
        ),
        "Log": run_pages.log(record, folder, width),
    }
    golden(f"run-{width}", "\n\n".join(f"=== {name}\n{plain(lines)}" for name, lines in pages.items()))


@pytest.mark.parametrize("width", [20, 40, 76, 100, 160])
def test_no_line_is_wider_than_its_page(record: Record, folder: Path, width: int) -> None:
    for lines in (
        run_pages.overview(record, width, 24, metric=0, log_scale=None),
        claims_page.page(record, width),
        run_pages.artifacts(record, folder, width, lambda path, columns: picture.load(path, columns)),
        run_pages.log(record, folder, width),
    ):
        long = [line.content.plain for line in lines if line.content.cell_length > width]
        assert width < 76 or not long


def test_a_run_that_is_alive_shows_how_far_it_is(recorded: Callable[..., Path]) -> None:
    record = load(recorded(until=4.0))
    record.started = datetime.now(UTC).isoformat()  # otherwise its last event would be long ago
    assert run_pages.phase_line(record, 44).plain == " ✓ import   ▶ train   · evaluate   · benchmark"
    assert run_pages.phase_line(record, 80).plain.split("   ")[:3] == [
        " ✓ import 1.9 s",
        "▶ train 2.0 s",
        "· evaluate",
    ]
    assert "40/100  40%" in run_pages.progress_line(record, 80).plain
    strip = run_pages.strip(record, 80).plain
    assert strip.startswith("▶ adam  train 40%  3.0 s left in this loop")
    record.expected = record.elapsed + 48
    assert run_pages.strip(record, 80).plain.startswith("▶ adam  train 40%  about 48 s left")
    assert "about 48 s left" in run_pages.title_line(record, "adam", 80).plain
    record.expected = 1.0
    assert "longer than expected" in run_pages.title_line(record, "adam", 80).plain
    assert strip.endswith("V view   c stop")


@pytest.mark.parametrize("page", [claims_page.page, bench_page.benchmark])
def test_an_empty_page_gives_the_reason(page: Callable[[Record, int], list[Line]]) -> None:
    alive = Record("x", "adam")
    over = Record("x", "adam", outcome="failed")
    assert plain(page(alive, 60)) != plain(page(over, 60))
    assert plain(page(over, 60)).strip()


def test_pending_claims_stand_there_with_their_rules_and_turn_one_by_one(
    recorded: Callable[..., Path],
) -> None:
    heads, counts = [], []
    for number, until in enumerate((4.0, 7.25, 7.3)):
        record = load(recorded(until=until, run_id=f"20260102-030405-adam-000{number}"))
        lines = plain(claims_page.page(record, 100)).splitlines()
        heads.append([line.strip() for line in lines if line.startswith(" ") and line[1] != " "])
        counts.append(claims.counted(record))
        assert any("loss ratio ≤ 0.5" in line for line in lines)
        assert ("ours" in "".join(lines)) == (until > 4)
        assert "loss ratio ≤ 0.5" in plain(claims_page.short(record, 100)) or until > 7.25
    assert heads == [
        ["… pending  faster", "… pending  bias correction  identity"],
        ["… pending  faster", "≡ exact  bias correction  identity"],
        ["✗ missed  faster", "≡ exact  bias correction  identity"],
    ]
    assert counts == ["0/2", "1/2", "2"]


@pytest.mark.parametrize("width", [45, 78, 118])
def test_the_head_of_a_run_shows_that_its_code_is_edited(record: Record, width: int) -> None:
    assert record.job is not None
    record.job = replace(record.job, edited="model.py +1 −1")
    head = run_pages.title_line(record, record.paper, width).plain
    assert len(head) <= width
    assert f"{record.paper}  edited: model.py +1 −1" in head
    assert "✓" in head
    assert ("completed in" in head) == (width > 45)


def test_a_claim_that_the_run_did_not_reach_is_not_judged(recorded: Callable[..., Path]) -> None:
    record = load(recorded(until=4.0))
    record.outcome = "cancelled"
    text = plain(claims_page.page(record, 100))
    assert text.count("· not judged") == 2
    assert text.count("the run ended before the claim was judged") == 2
    assert "· loss ratio ≤ 0.5" in text
    assert claims.counted(record) == "2"


def test_the_bounds_of_one_metric_stand_together(record: Record) -> None:
    bounds = [{"metric": "loss", "op": op, "threshold": at} for op, at in ((">=", 0.4), ("<=", 0.6))]
    record.claims, record.outcome = [], None
    record.stated[0]["rule"] = [*bounds, {"metric": "accuracy", "op": ">", "threshold": 0.9}]
    assert "loss ≥ 0.4, ≤ 0.6; accuracy > 0.9" in plain(claims_page.short(record, 100))


def test_a_censored_value_is_marked(record: Record) -> None:
    record.claims[1] |= {"at_least": ["loss ratio"], "why": "the budget ended"}
    text = plain(claims_page.page(record, 100))
    assert "✗ loss ratio ≤ 0.5   (ours at least 0.7)" in text
    assert "why      the budget ended" in text


def test_a_long_log_is_wrapped_once_and_no_more_of_it_than_is_shown(
    record: Record, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    wrap = run_pages.wrapped

    def counted(value: str, *arguments: object, **options: object) -> list[Line]:
        calls.append(value)
        return wrap(value, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_pages, "wrapped", counted)
    record.logs = [f"entry {number} {'long ' * (number % 40)}" for number in range(1000)]
    (folder / "log.txt").write_text("".join(f"printed {number}\n" for number in range(2000)))
    first = run_pages.log(record, folder, 61)
    assert len(calls) < 802
    shown = [line for line in first if line.content.plain.strip()]
    assert len(first) == 400 + 2 + 400
    assert shown[-1].content.plain == " printed 1999"
    assert any(line.content.plain.startswith(" entry 999") for line in shown)
    calls.clear()
    record.logs = [*record.logs[1:], "one more"]
    assert " one more" in plain(run_pages.log(record, folder, 61))
    assert calls == ["one more"]


def test_a_plugin_names_the_axes(record: Record) -> None:
    record.apply({"event": "axes", "metric": "loss", "x": "epoch", "y": "nats \x1b[31mper symbol"})
    first = plain(run_pages.overview(record, 100, 60, metric=0, log_scale=None)).splitlines()[0]
    assert first.startswith(" loss over epoch  nats")


@pytest.mark.parametrize(("width", "beside"), [(60, 1), (100, 2), (150, 3)])
def test_all_curves_are_side_by_side(record: Record, width: int, beside: int) -> None:
    for name in ("second", "third"):
        record.curves[name] = {"": [(step, 1.0 / (1 + step)) for step in range(50)]}
    lines = run_pages.overview(record, width, 40, metric=0, log_scale=None, all_curves=True)
    shown = [line.content.plain for line in lines]
    assert all(line.content.cell_length <= width for line in lines)
    first = next(line for line in shown if " loss" in line)
    assert first.count(" over step") == min(beside, first.count(" over "))
    assert sum(f"{index} of 4" in "\n".join(shown) for index in range(1, 5)) == 4


def test_a_live_run_shows_its_speed_and_resources() -> None:
    live = Record("x", "adam")
    for t, done in ((1.0, 0), (2.0, 10), (3.0, 40)):
        live.apply({"event": "progress", "label": "training", "done": done, "total": 100, "t": t})
    live.apply({"event": "heartbeat", "rss": 300 << 20, "cpu": 0.98, "t": 3.1})
    assert runs.load(live) == "20 steps/s   CPU 98%   300.0 MiB"
    assert "40/100  40%   20 steps/s   CPU 98%" in run_pages.progress_line(live, 120).plain
    assert "steps/s" not in run_pages.progress_line(live, 80).plain
    live.apply({"event": "end", "outcome": "completed"})
    assert runs.load(live) == ""


def test_both_axes_are_named(record: Record) -> None:
    record.curves["peak bytes over tokens"] = {"naive": [(n, float(n * n)) for n in (512, 1024, 2048, 4096)]}
    lines = plain(run_pages.overview(record, 100, 60, metric=0, log_scale=None)).splitlines()
    assert lines[0].split("  ")[0] == " loss over step"
    lines = plain(run_pages.overview(record, 100, 60, metric=2, log_scale=None)).splitlines()
    over = next(index for index, line in enumerate(lines) if "peak bytes over tokens  3 of 3 · log x" in line)
    assert "step" not in lines[over]
    assert any(line.split() == ["512", "1024", "2048", "4096"] for line in lines[over:])
    assert any(line.split()[-3:] == ["262,144", "to", "16,777,216"] for line in lines[over:])


def test_the_curve_that_grows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("readtrack.tui.widgets.run_view.time.monotonic", lambda: clock[0])
    record, growing = Record("x", "adam"), Growing()

    def log(*names: str, after: float = 0.2) -> str:
        clock[0] += after
        for name in names:
            record.curves.setdefault(name, {}).setdefault("a", []).append((0, 0.0))
        growing.look(record)
        return growing.name

    assert log() == ""
    assert log("loss", "rate") == "loss"
    assert log("rate") == "loss"  # an evaluation between epochs does not switch the curve
    assert log("accuracy") == "loss"
    assert log("loss") == "loss"
    assert log("accuracy", after=4) == "accuracy"
    assert log("accuracy") == "accuracy"
    attached = Growing()
    attached.look(record)
    assert attached.name == ""
    record.curves["rate"]["a"].append((1, 0.0))
    attached.look(record)
    assert attached.name == "rate"


async def test_the_growing_curve_is_on_top_and_in_the_end_the_headline(
    app: ReadtrackApp, record: Record, folder: Path, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    record.outcome, record.headline_curve = None, "step size"
    record.curves["accuracy"] = {"adam": [(0, 0.5)]}
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.main.show_run(record, folder)
        await pilot.pause()
        assert "loss over step  1 of 3" in screen_text(app)
        record.curves["accuracy"]["adam"].append((1, 0.6))
        app.main.run_view.refresh_run()
        await pilot.pause()
        assert "accuracy over step  3 of 3" in screen_text(app)
        record.outcome = "completed"
        app.main.run_view.refresh_run()
        await pilot.pause()
        assert "step size over step  2 of 3" in screen_text(app)
        await pilot.press("m")
        await pilot.pause()
        assert "accuracy over step  3 of 3" in screen_text(app)
        await pilot.press("m")
        record.headline_curve = "no such curve"
        app.main.run_view.refresh_run()
        await pilot.pause()
        assert "loss over step  1 of 3" in screen_text(app)  # the reader's choice is kept


def test_errors_give_the_reason_and_the_next_step(record: Record) -> None:
    record.error = {
        "type": "ValueError",
        "message": "[bold]odd[/bold] \x1b[31mshape",
        "phase": "train",
        "where": "plugins/adam.py:12",
    }
    record.outcome = "failed"
    text = plain(run_pages.error_lines(record, 90))
    assert "Could not finish the training." in text
    assert "Why: ValueError: [bold]odd[/bold] shape (plugins/adam.py:12)" in text
    assert "Next step: see the Log tab" in text


@pytest.mark.parametrize(
    ("outcome", "error", "expected"),
    [
        (
            "failed",
            {"type": "ReadtrackError", "message": "No device 'cuda'.", "phase": "setup", "kind": "usage"},
            "Could not set up the run.|Why: No device 'cuda'.|Next step: press R to change the options.",
        ),
        (
            "out_of_memory",
            {"type": "MemoryError", "message": "", "phase": "train", "where": "adam.py:3"},
            "Could not finish the training.|Why: MemoryError (adam.py:3)|Next step: press R",
        ),
        ("crashed", None, "Could not finish the benchmark.|Why: SIGSEGV in C|Next step: see the Log tab"),
        ("cancelled", None, ""),
    ],
)
def test_the_words_for_each_way_to_fail(outcome: str, error: dict[str, str] | None, expected: str) -> None:
    record = Record("x", "adam", outcome=outcome, detail="SIGSEGV in C", phase="benchmark", error=error)  # type: ignore[arg-type]
    lines = [line.content.plain.strip() for line in run_pages.error_lines(record, 200)]
    wanted = expected.split("|") if expected else []
    assert len(lines) == len(wanted)
    assert all(line.startswith(want) for line, want in zip(lines, wanted, strict=True))


def styles_of(lines: list[Line], words: str) -> set[str]:
    """The styles of the first piece that contains `words`."""
    for line in lines:
        for span in line.content.spans:
            if words in line.content.plain[span.start : span.end]:
                return {str(one.style) for one in line.content.spans if one.start <= span.start < one.end}
    return set()


@pytest.mark.parametrize(
    ("measured", "green"),
    [
        ({"vs_strong_ci95": [1.2, 1.4], "vs_strong_sure": True}, True),
        ({"vs_strong_ci95": [0.95, 1.7], "vs_strong_sure": False}, False),
        ({"vs_strong_ci95": None, "vs_strong_sure": False, "flags": ["contended"]}, False),
        ({"vs_strong": 0.8, "vs_strong_ci95": [0.7, 0.9], "vs_strong_sure": True}, False),
        ({}, False),
    ],
)
def test_only_a_sure_speed_up_is_green(record: Record, measured: dict[str, object], green: bool) -> None:
    times = {"naive": 8.67e6, "strong": 6.7e6, "paper": 5.2e6}
    record.measurements = [
        {
            "case": "c",
            "axes": {"tokens": 512, "causal": False},
            "role": role,
            "variant": role,
            "t_ns": {"value": time, "p50": time, "ci95": [time * 0.9, time * 1.1]},
            "pct_ceiling": 3e8 / time,
            "closeness": 0.62,
            "vs_naive": times["naive"] / time,
            "vs_strong": times["strong"] / time,
            **(measured if role == "paper" else {}),
        }
        for role, time in times.items()
    ]
    lines = bench_page.benchmark(record, 130)
    text = plain(lines)
    row = next(line for line in text.splitlines() if "5.2 ms" in line)
    ratio = f"{record.measurements[-1]['vs_strong']:.2f}×"
    assert ratio in row
    assert "0.62" in row
    assert "causal no" in text
    assert ("$good" in styles_of(lines, ratio)) == green
    paper = [line for line in lines if "█" in line.content.plain and "paper" in line.content.plain]
    assert ("$good" in styles_of(paper, "██")) == green
    assert ("±" in text and "10%" in row) == (measured.get("flags") != ["contended"])


def test_a_narrow_table_wraps_names_and_keeps_figures_whole(record: Record) -> None:
    record.measurements = [
        {
            "case": "attention",
            "axes": {"tokens": tokens, "causal": tokens < 32, "spread of scores": tokens / 16},
            "role": role,
            "variant": variant,
            "t_ns": {"value": time, "p50": time, "ci95": [time * 0.97, time * 1.03]},
            "vs_naive": 306e3 / time,
            "vs_strong": 6.76e3 / time,
        }
        for tokens in (16, 32)
        for role, variant, time in (
            ("naive", "one query at a time", 306e3),
            ("strong", "torch SDPA", 6.76e3),
            ("paper", "equation 1", 17.7e3),
        )
    ]
    for width in (66, 78, 100):
        text = plain(bench_page.benchmark(record, width))
        for figure in ("306 µs", "6.76 µs", "17.7 µs", "45.27×", "17.29×", "0.38×", "3%"):
            assert figure in text
        assert "…" not in text
        for word in ("query", "torch", "SDPA"):
            assert word in text


CHANGES_NOTHING = {
    "columns": ["normalisation", "all weights + a vector", "one unit's weights × 3", "in use, not training"],
    "rows": [["none", "✗", "✗", "✓"], ["batch norm", "✗", "✓", "✗"]],
}


def test_a_narrow_table_of_a_run_keeps_its_headings(record: Record, folder: Path) -> None:
    folder.joinpath("artifacts").mkdir(exist_ok=True)
    folder.joinpath("artifacts", "t.json").write_text(json.dumps(CHANGES_NOTHING))
    record.artifacts = [{"name": "t", "path": "artifacts/t.json", "kind": "table"}]
    wide, narrow, thin = (
        [line.content.plain.strip() for line in run_pages.artifacts(record, folder, width, lambda *_: None)]
        for width in (90, 60, 40)
    )
    assert wide[1].split("  ") == CHANGES_NOTHING["columns"]
    assert [line.split() for line in narrow[1:4]] == [
        ["normalisation", "all", "weights", "+", "one", "unit's", "in", "use,", "not"],
        ["a", "vector", "weights", "×", "3", "training"],
        ["none", "✗", "✗", "✓"],
    ]
    # If a word would have to be broken, the table is transposed if that helps.
    assert [line.split() for line in (thin[1], thin[-1])] == [
        ["normalisation", "none", "batch"],
        ["in", "use,", "not", "training", "✓", "✗"],
    ]


def test_a_measurement_of_another_version_does_not_break_the_table(record: Record) -> None:
    record.measurements = [
        {},
        {"case": None, "axes": 3, "t_ns": "soon", "ok": [], "vs_naive": "much", "mem": 5},
        {"case": "c", "axes": {"n": True, "x": math.nan}, "t_ns": {"p50": 1.0}, "vs_naive": math.inf},
    ]
    record.stated = []
    record.claims = [{"claim": {"name": "old"}, "values": {}, "verdict": "settled", "ours": ""}]
    assert plain(bench_page.benchmark(record, 80))
    assert "another version" in plain(claims_page.page(record, 80))
    assert "· settled  old" in plain(claims_page.short(record, 80))


def test_only_images_and_sounds_can_be_opened(record: Record, folder: Path) -> None:
    import wave

    with wave.open(str(folder / "artifacts" / "said.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(2 * 24000))
    (folder / "artifacts" / "torn.wav").write_bytes(b"RIFF")
    (folder / "artifacts" / "x.desktop").write_text("[Desktop Entry]", encoding="utf-8")
    record.artifacts += [
        {"name": "said", "kind": "audio", "path": "artifacts/said.wav", "caption": "ten digits"},
        {"name": "torn", "kind": "audio", "path": "artifacts/torn.wav"},
        {"name": "trap", "kind": "image", "path": "artifacts/x.desktop"},
    ]
    lines = run_pages.artifacts(record, folder, 80, lambda path, columns: None)
    opened = [line.target.path.name for line in lines if isinstance(line.target, File)]
    assert opened == ["filters.png", "said.wav", "torn.wav"]
    assert "1.5 s of sound at 16,000 Hz (enter plays it)" in plain(lines)
    assert "cannot be read: " in plain(lines)
    again = run_pages.artifacts(record, folder, 80, lambda path, columns: None)
    assert plain(again) == plain(lines)
    (folder / "artifacts" / "sample.txt").write_text("written anew", encoding="utf-8")
    assert "written anew" in plain(run_pages.artifacts(record, folder, 80, lambda path, columns: None))


def test_an_artifact_outside_the_folder_is_not_read(record: Record, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    record.artifacts = [{"name": "x", "kind": "text", "path": str(tmp_path / "secret"), "caption": ""}]
    text = plain(run_pages.artifacts(record, folder, 80, lambda path, columns: None))
    assert "not shown" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "rows", [[[[2, 3], {"a": [1]}]], [["\x1b[31mred", True]], [[None, 1e400]], [], [["x" * 9999, 10**400]]]
)
def test_a_table_may_hold_anything(record: Record, folder: Path, rows: list[list[object]]) -> None:
    (folder / "artifacts" / "arms.json").write_text(json.dumps({"columns": ["shape", "more"], "rows": rows}))
    for width in (20, 80):
        text = plain(run_pages.artifacts(record, folder, width, lambda path, columns: None))
        assert "shape" in text
        assert "\x1b" not in text
    assert "[2, 3]" in text or not rows or rows[0][0] != [2, 3]


@pytest.mark.parametrize("body", ["[]", "{}", '{"columns": ["a"], "rows": [[1, 2]]}', "[" * 99999, "null"])
def test_a_malformed_table_is_a_line_of_text(record: Record, folder: Path, body: str) -> None:
    (folder / "artifacts" / "arms.json").write_text(body)
    assert "cannot be shown: " in plain(run_pages.artifacts(record, folder, 80, lambda path, columns: None))


async def test_a_page_that_cannot_be_drawn_shows_an_error_and_the_app_continues(
    app: ReadtrackApp,
    record: Record,
    folder: Path,
    screen_text: Callable[[ReadtrackApp], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record.progress = Progress("training", 1, 2, math.nan)  # readtrack itself writes no such event
    record.outcome = None

    def benchmark(record: Record, width: int) -> list[Line]:
        raise TypeError("no such measurement is written by readtrack")

    monkeypatch.setattr("readtrack.tui.widgets.bench_page.benchmark", benchmark)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        app.main.show_run(record, folder)
        await pilot.press("]", "]")
        await pilot.pause()
        assert "Could not draw this page." in screen_text(app)
        assert "Why: TypeError: " in screen_text(app)
        assert "cannot be drawn: ValueError" in screen_text(app)
        await pilot.press("[")
        await pilot.pause()
        assert "faster" in screen_text(app)


def test_an_image_is_drawn_with_coloured_half_blocks(folder: Path) -> None:
    lines = picture.load(folder / "artifacts" / "filters.png", 4)
    assert [line.plain for line in lines] == ["▀▀▀▀", "▀▀▀▀"]
    styles = [span.style for span in lines[0].spans]
    assert [(style.foreground.rgb, style.background.rgb) for style in styles] == [
        ((255, 0, 0),) * 2,
        ((0, 255, 0),) * 2,
        ((0, 0, 255),) * 2,
        ((255, 255, 255),) * 2,
    ]


def test_a_small_image_is_enlarged_by_a_whole_factor_and_a_large_one_fits(
    folder: Path, tmp_path: Path
) -> None:
    from PIL import Image

    assert {line.cell_length for line in picture.load(folder / "artifacts" / "filters.png", 80)} == {48}
    wide = tmp_path / "wide.png"
    Image.new("L", (500, 100), 128).save(wide)
    lines = picture.load(wide, 50)
    assert len(lines) == 5
    assert {line.cell_length for line in lines} == {50}


def test_without_half_blocks_there_is_a_ramp(folder: Path) -> None:
    lines = picture.load(folder / "artifacts" / "filters.png", 8, ascii_only=True)
    assert all(line.plain.isascii() for line in lines)
    assert len(set(lines[0].plain)) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n torn",
        b"GIF89a" + b"\0" * 20,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_a_damaged_image_is_a_line_of_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    assert picture.load(path, 40)[0].plain.startswith("cannot be shown: ")
    assert picture.load(tmp_path / "absent.png", 40)[0].plain.startswith("cannot be shown: ")


@pytest.mark.parametrize("format_", ["BMP", "GIF", "TIFF", "EPS"])
def test_only_png_is_decoded(tmp_path: Path, format_: str) -> None:
    from PIL import Image

    path = tmp_path / "x.png"
    Image.new("L", (8, 8), 128).save(path, format_)
    assert picture.load(path, 40)[0].plain.startswith("cannot be shown: ")


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "huge.png"
    Image.new("1", (8000, 8000)).save(path)
    assert "too large to show here: 8000 × 8000" in picture.load(path, 40)[0].plain


@pytest.mark.parametrize(
    ("value", "text"), [(840.0, "840 ns"), (1240.0, "1.24 µs"), (2.5e6, "2.5 ms"), (3.21e9, "3.21 s")]
)
def test_times_have_a_suitable_unit(value: float, text: str) -> None:
    assert format_nanoseconds(value) == text


def test_of_many_artifacts_the_first_are_read_and_the_rest_named(tmp_path: Path) -> None:
    record = Record(run_id="r", paper="p")
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text(f"inside {number};", encoding="utf-8")
        record.apply(
            {"event": "artifact", "name": f"text {number}", "kind": "text", "path": f"{number}.txt"}  # type: ignore[arg-type,typeddict-item]
        )
    shown = plain(run_pages.artifacts(record, tmp_path, 80, lambda path, columns: None))
    assert "inside 59;" in shown
    assert "inside 60;" not in shown
    assert "40 more in the run's folder" in shown
    assert "text 99  99.txt" in shown
