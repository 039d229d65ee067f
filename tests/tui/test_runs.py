"""Runs in the app: real child processes with toy plugins (and the stub of torch), and recorded runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import DEADLINE, message, start, status, until

from readtrack.home import Home
from readtrack.library import Library
from readtrack.runs import launcher, store
from readtrack.runs.job import new_job
from readtrack.runs.queue import Queue
from readtrack.runs.record import Record
from readtrack.tui import news
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.controllers import runs as controllers_runs
from readtrack.tui.run_follower import RunFollower
from readtrack.tui.screens.ask import ChoiceDialog


@pytest.fixture
def app(toy_app: ReadtrackApp) -> ReadtrackApp:
    return toy_app


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_r_runs_the_paper_and_its_result_stays(
    app: ReadtrackApp,
    home: Home,
    screen_text: Callable[[ReadtrackApp], str],
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONPATH")  # the real torch, which the benchmark needs
    async with app.run_test(size=size) as pilot:
        await start(pilot, app, "toy_ok")
        assert app.following is not None
        assert "toy_ok" in screen_text(app)
        await until(pilot, lambda: app.following is None, "the end of the run")
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        assert app.main.checklist.verdicts == {"toy_ok": "held"}
        text = screen_text(app)
        assert "✓ completed" in text
        assert "✓ held  falls" in text
        await pilot.press("escape", "enter")
        await pilot.pause()
        assert "✓ held" in screen_text(app)  # in the paper's results
    again = ReadtrackApp(Library.open(home, app.library.catalog.path))
    async with again.run_test(size=(160, 50)) as pilot:
        await until(pilot, lambda: again.main.checklist.verdicts, "the results after a restart")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: again.main.on_run, "the past run")
        assert "✓ held  falls" in screen_text(again)


async def test_reading_continues_during_a_run(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        await until(pilot, lambda: app.following and app.following.record.phase == "train", "training")
        await pilot.press("escape", "j")
        await pilot.pause()
        assert "Title of toy_fail" in screen_text(app)
        await pilot.press("2", "/", *"toy_f", "enter")
        assert app.library.state("toy_fail") == "reading"
        app.main.clear_message()
        assert "▶ toy_hang  train" in status(app)
        await pilot.press("v")
        assert not app.main.on_run
        assert "toy_fail has not been run yet. Press r to run it." in status(app)
        await pilot.press("V")
        await pilot.pause()
        assert app.main.on_run
        assert app.entry is not None
        assert app.entry.subject == "toy_hang"
        await pilot.press("v", "v")
        assert app.main.on_run
        app.main.clear_message()
        await until(pilot, lambda: "c stop" not in status(app), "the strip to go while the run is looked at")


async def test_a_message_fades_and_is_not_shown_for_another_run(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        await pilot.press("c")
        await until(pilot, lambda: "■ cancelled" in status(app), "the end of the run")
        await pilot.press("r")
        assert status(app) == ""
        # Long enough for the key itself to reach the screen on a busy machine.
        monkeypatch.setattr("readtrack.tui.screens.library._MESSAGE_SECONDS", 1.5)
        monkeypatch.setattr("readtrack.tui.screens.library._FADING_SECONDS", 0.05)
        await pilot.press("c")
        assert "asked" in status(app)
        await until(pilot, lambda: "asked" not in status(app), "the words to go")


async def test_a_queue_outlives_the_app_and_waits_for_the_reader(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    home.ensure()
    Queue(home).change(lambda jobs: [*jobs, new_job("toy_ok", budget="smoke", seed=7)])
    async with app.run_test() as pilot:
        await until(pilot, lambda: "1 queued run from an earlier session" in status(app), "the queue")
        assert app.following is None
        await pilot.press("C")
        await pilot.pause()
        assert "toy_ok  about 5.0 s · smoke · seed 7" in screen_text(app)
        app.runs.begin()  # as the end of another run does
        await until(pilot, lambda: app.following is not None, "the first of it")
        await pilot.pause()
        assert "The queue is empty." in screen_text(app)
        assert app.following is not None
        assert (app.following.record.paper, app.following.record.job.seed) == ("toy_ok", 7)
        assert not Queue(home).jobs()


async def test_queued_runs_start_one_after_the_other(app: ReadtrackApp, home: Home) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        first = app.following
        await pilot.press("escape")
        await start(pilot, app, "toy_noise", seed=1)
        await start(pilot, app, "toy_ok", seed=2)
        assert app.following is first
        assert "toy_ok runs after toy_hang and 1 more" in status(app)
        assert [job.paper for job in app.runs.waiting] == ["toy_noise", "toy_ok"]
        await pilot.press("C", "J", "escape")
        await pilot.pause()
        assert [job.paper for job in app.runs.waiting] == ["toy_ok", "toy_noise"]
        assert [job.paper for job in Queue(home).jobs()] == ["toy_ok", "toy_noise"]  # it outlives the app
        await pilot.press("C", "d", "X", "x")
        await pilot.pause()
        assert len(app.runs.waiting) == 1
        await pilot.press("X", "d", "escape")
        await pilot.pause()
        assert not app.runs.waiting
        await start(pilot, app, "toy_ok", seed=3)
        await until(pilot, lambda: first and first.record.phase == "train", "training")
        await pilot.press("c")
        await until(pilot, lambda: app.following is not first and app.following, "the next one")
        assert app.following is not None
        assert app.following.record.paper == "toy_ok"
        await until(pilot, lambda: app.following is None, "the end of the run")
        assert {run.paper: run.outcome for run in app.library.results()} == {
            "toy_hang": "cancelled",
            "toy_ok": "completed",
        }


async def test_a_paper_without_plugin_is_not_run(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "unwritten")
        await pilot.press("r", "R")
        assert app.following is None
        assert "`readtrack plugins new unwritten`" in message(app)


async def test_cancel_escalates_and_shows_its_level(
    app: ReadtrackApp, home: Home, dies: Callable[[int], bool]
) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "stubborn"})
        await until(pilot, lambda: app.following and app.following.record.logs, "the plugin's child")
        assert app.following is not None
        folder = app.following.folder
        child = int(app.following.record.logs[0].split()[1])
        said = []
        while app.following is not None:
            await pilot.press("c")
            said.append(status(app).split()[1])
        # The run may die before it has to be killed; each press escalates one level.
        rungs = ["asked", "interrupted", "terminated", "killed"]
        assert said[:2] == rungs[:2]
        assert [word for word in dict.fromkeys(said) if word in rungs] == rungs[: len(set(said) & set(rungs))]
        await until(pilot, lambda: app.following is None, "the end of the run")
        assert store.load(folder).outcome == "cancelled"
        assert dies(child)
        await pilot.press("c", "c")
        assert "Nothing is running" in status(app)


async def test_a_failure_gives_the_event_the_reason_and_the_next_step(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await start(pilot, app, "toy_fail", settings={})
        await until(pilot, lambda: app.following is None, "the end of the run")
        text = screen_text(app)
        assert "! failed after" in text
        assert "Could not finish the training." in text
        assert "Next step: see the Log tab" in text
        await pilot.press("[")
        await pilot.pause()
        assert "Traceback" in screen_text(app)


@pytest.mark.parametrize(("answer", "outcome"), [("s", "cancelled"), ("k", None)])
async def test_quitting_asks_while_a_run_is_alive(
    app: ReadtrackApp,
    home: Home,
    screen_text: Callable[[ReadtrackApp], str],
    answer: str,
    outcome: str | None,
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        await until(pilot, lambda: app.following and app.following.record.phase == "train", "training")
        assert app.following is not None
        folder = app.following.folder
        await pilot.press("q")
        await pilot.pause()
        assert isinstance(app.screen, ChoiceDialog)
        assert "without the app; the next start shows it" in screen_text(app)
        await pilot.press("x")
        await pilot.pause()
        assert app.is_running
        await pilot.press("ctrl+q")
        await pilot.pause()
        await pilot.press(answer)
        await until(pilot, lambda: not app.is_running or app._exit, "the app to leave")
    loaded = store.load(folder)
    assert loaded.outcome == outcome
    if outcome is None:
        process = launcher.attach(folder)
        assert process is not None
        again = ReadtrackApp(Library.open(home, app.library.catalog.path))
        async with again.run_test() as pilot:
            await until(pilot, lambda: again.following is not None, "the run that is still alive")
            assert "A run of toy_hang is still in progress" in status(again)
            await pilot.press("c")
            await until(pilot, lambda: again.following is None, "the end of the run")
        assert store.load(folder).outcome == "cancelled"


async def test_a_run_whose_process_is_gone_is_buried_at_start(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded(until=4.0)
    os.utime(folder / "events.jsonl", (0, 0))  # long ago
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.library.results()[0].outcome, "the end in the record")
        await until(pilot, lambda: app.main._results, "the results")
        assert app.main.checklist.verdicts == {}  # no information about the paper
    assert store.load(folder).outcome == "interrupted"


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_a_past_run_opens_in_the_same_pages(
    home: Home,
    papers_yaml: Path,
    recorded: Callable[..., Path],
    screen_text: Callable[[ReadtrackApp], str],
    golden: Callable[[str, str], None],
    size: tuple[int, int],
) -> None:
    recorded()
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        app.main.checklist.go_to_subject("adam")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.main.on_run, "the past run")
        await pilot.pause()
        screens = [screen_text(app)]
        for key in ("]", "]", "]"):
            await pilot.press(key, "[", "]")
            await pilot.pause()
            if key == "]" and "filters" in screen_text(app):
                await until(pilot, lambda: "▀▀▀▀" in screen_text(app), "the picture")
            await until(pilot, lambda: app.main.run_view.page.whole, "the end of the page")
            screens.append(screen_text(app))
        await pilot.press("left", "right", "l", "h", "m", "m", "L", "L")
        await pilot.pause()
        golden(f"past-run-{size[0]}", ("\n" + "═" * size[0] + "\n").join(screens))


async def test_v_opens_the_newest_run_of_the_paper_under_the_cursor(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    recorded()
    newer = recorded(run_id="20260202-030405-adam-00ff").name
    other = recorded(run_id="20260301-030405-sgd-00ff")
    for name in ("events.jsonl", "result.json"):
        text = (other / name).read_text(encoding="utf-8")
        (other / name).write_text(text.replace('"paper": "adam"', '"paper": "sgd"'), encoding="utf-8")
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(160, 50)) as pilot:
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        app.main.checklist.go_to_subject("adam")
        for subject, run_id in (("adam", newer), ("sgd", other.name), ("adam", newer)):
            app.main.checklist.go_to_subject(subject)
            await pilot.pause()
            await pilot.press("v")
            await until(pilot, lambda: app.main.on_run, "the run")
            assert app.main.run_view.record is not None
            assert app.main.run_view.record.run_id == run_id
            await pilot.press("v")
            assert not app.main.on_run
            await pilot.press("escape")
        app.main.checklist.go_to_subject("hessian")
        await pilot.press("v")
        assert not app.main.on_run
        assert "hessian has not been run yet." in status(app)
        await pilot.press("{", "v")
        assert "Choose one paper" in status(app)
        await pilot.press("V")
        assert "Nothing is running." in status(app)


async def test_the_footer_names_the_keys_of_the_pane_that_they_go_to(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path], screen_text: Callable[[ReadtrackApp], str]
) -> None:
    recorded()
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        app.main.checklist.go_to_subject("adam")
        await pilot.press("v")
        await until(pilot, lambda: app.main.on_run, "the run")
        await pilot.pause()
        assert "] next tab" in screen_text(app).splitlines()[-1]
        await pilot.press("escape")
        await pilot.pause()
        assert app.main.on_run
        footer = screen_text(app).splitlines()[-1]
        assert "] next tab" not in footer
        assert "enter open" in footer


async def test_a_run_that_is_read_when_the_cursor_has_gone_on_is_not_shown(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    recorded()
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(160, 50)) as pilot:
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        app.main.checklist.go_to_subject("adam")
        app.main.action_switch_view()
        app.main.checklist.go_to_subject("hessian")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert not app.main.on_run


async def test_a_cancelled_run_does_not_hide_an_earlier_verdict(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    recorded()
    store.write_end_event(recorded(until=4.0, run_id="20260202-030405-adam-00ff"), "cancelled", "stopped")
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.main.checklist.verdicts, "the results")
        assert [one.outcome for one in app.main._results["adam"]] == ["cancelled", "completed"]
        assert app.main.checklist.verdicts == {"adam": "missed"}
        app.main.checklist.go_to_subject("adam")
        page = [line.content.plain for line in app.main._detail(100)]
        heads = [line.split()[:2] for line in page if "2026-" in line]
        assert heads == [["✗", "missed"], ["■", "cancelled"]]


@pytest.mark.parametrize("sizes", [((80, 24), (200, 50)), ((200, 50), (80, 24))])
async def test_a_live_run_has_the_whole_width_as_soon_as_the_terminal_has(
    home: Home,
    papers_yaml: Path,
    recorded: Callable[..., Path],
    screen_text: Callable[[ReadtrackApp], str],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    folder = recorded(until=6.0)
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=sizes[0]) as pilot:
        await pilot.pause()
        loaded = store.load(folder)
        app.main.show_run(loaded, folder)
        await pilot.pause()
        await pilot.resize_terminal(*sizes[1])
        app.main.run_changed(news.RunChanged(loaded, folder))  # a message arrives while the layout changes
        await pilot.pause()
        width, height = sizes[1]
        lines = screen_text(app).splitlines()
        assert len(lines) == height
        page = app.main.run_view.page
        assert page._built_for == page.scrollable_content_region.width
        for words in ("▶ not responding", "1.0 s left in this loop"):  # at the right edge of the pane
            line = next(line for line in lines if words in line)
            assert width - 8 <= len(line) <= width, line


async def test_a_truncated_line_is_marked(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path], screen_text: Callable[[ReadtrackApp], str]
) -> None:
    folder = recorded()
    loaded = store.load(folder)
    loaded.job = new_job("adam", budget="quick", only="experiment")
    for name in ("linear memory", "equal to the reference", "fewer accesses to memory", "as good a loss"):
        claim = {**loaded.claims[0]["claim"], "name": name}
        loaded.claims.append({**loaded.claims[0], "claim": claim})
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(60, 24)) as pilot:
        await pilot.pause()
        app.main.show_run(loaded, folder)
        app.say("a word " * 20)
        await pilot.pause()
        lines = screen_text(app).splitlines()
        cut = [line for line in lines if "linear memory" in line or "a word" in line]
        assert [line[-1] for line in cut] == ["…", "…"]
        assert all(len(line) <= 60 for line in lines)


async def test_a_click_on_a_tab_shows_it(
    home: Home, papers_yaml: Path, recorded: Callable[..., Path]
) -> None:
    folder = recorded()
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        app.main.show_run(store.load(folder), folder)
        await pilot.pause()
        for x, tab in ((14, 1), (26, 2), (3, 0), (50, 4)):
            await pilot.click("#run-tabs", offset=(x, 0))
            assert app.main.run_view.tab == tab


async def test_background_errors_are_reported(app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(app.library, "results", broken)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app._notifications, "the complaint")
        assert message(app).startswith("Could not look for runs.\nWhy: [Errno 13] Permission denied.")


async def test_no_more_than_two_looks_a_second_while_the_child_measures(
    recorded: Callable[..., Path],
) -> None:
    class Process:
        folder = recorded(until=8.6)
        stop_level = None
        attempt = 1
        contact = ""

        def poll(self) -> None:
            return None

    following = RunFollower(Process(), Record("x", "adam"))  # type: ignore[arg-type]
    assert following.period == 0.1
    assert await following.look()
    assert following.record.phase == "benchmark"
    assert following.period == 0.5
    assert not await following.look()  # nothing new to draw
    Process.stop_level = "asked"
    assert following.period == 0.1


async def test_a_run_is_polled_and_read_outside_the_app(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_apps_own: list[bool] = []
    poll = launcher.RunHandle.poll

    def noted(process: launcher.RunHandle) -> object:
        in_the_apps_own.append(threading.current_thread() is threading.main_thread())
        return poll(process)

    monkeypatch.setattr(launcher.RunHandle, "poll", noted)
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        await until(pilot, lambda: app.following and app.following.record.phase == "train", "training")
        await pilot.press("c")
        await until(pilot, lambda: app.following is None, "the end of the run")
    assert set(in_the_apps_own) == {False}


async def test_the_app_answers_while_the_end_of_a_run_is_written(recorded: Callable[..., Path]) -> None:
    writing, written = threading.Event(), threading.Event()

    class Process:
        folder = recorded(until=8.0)
        stop_level = "asked"
        attempt = 1
        contact = ""

        def poll(self) -> str:
            writing.set()
            assert written.wait(DEADLINE)
            return "cancelled"

        def cancel(self) -> str:
            raise AssertionError("there is nothing to stop any more")

    following = RunFollower(Process(), Record("x", "adam"))  # type: ignore[arg-type]
    look = asyncio.create_task(following.look())
    while not writing.is_set():
        await asyncio.sleep(0.01)
    assert following.cancel() == "asked"
    assert not look.done()
    written.set()
    assert await look
    assert following.record.outcome == "cancelled"


async def test_a_link_that_cannot_be_followed_is_reported_and_the_app_continues(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(process: launcher.RunHandle) -> None:
        raise RuntimeError("no such process table")

    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        assert app.following is not None
        process = app.following.process
        with monkeypatch.context() as patch:
            patch.setattr(launcher.RunHandle, "poll", broken)
            await until(pilot, lambda: app._notifications, "the complaint")
        assert app.following is None
        assert message(app).startswith("Could not follow the run.\nWhy: no such process table.")
        while process.poll() is None:
            process.cancel()
            await pilot.pause(0.02)


async def test_the_time_of_a_silent_run_is_drawn(
    app: ReadtrackApp, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Process:
        folder = recorded(until=6.0)
        run_id = folder.name
        stop_level = None
        attempt = 1
        contact = ""

        def poll(self) -> None:
            return None

        def detach(self) -> None:
            pass

    monkeypatch.setattr(controllers_runs, "_CLOCK", 0.05)
    async with app.run_test() as pilot:
        await pilot.pause()
        following = RunFollower(Process(), Record("x", "adam"))  # type: ignore[arg-type]
        following.catch_up()
        drawn: list[Record] = []
        monkeypatch.setattr(
            app, "post", lambda one: drawn.append(one.record) if isinstance(one, news.RunChanged) else None
        )
        app.runs.follow(following)
        await until(pilot, lambda: len(drawn) > 1, "the time")
        assert drawn[-1].state == "not responding"
        app.runs.alive = None


@pytest.mark.timing
async def test_nothing_is_drawn_while_nothing_changes(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "stubborn"})
        await until(pilot, lambda: app.following and app.following.record.logs, "the plugin's child")
        drawn = []
        post = app.post
        app.post = lambda one: (drawn.append(one) if isinstance(one, news.RunChanged) else None, post(one))  # type: ignore
        await pilot.pause(2.5)
        assert len(drawn) <= 4  # one heartbeat per second


async def test_a_second_press_does_not_queue_the_same_run_unseen(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await start(pilot, app, "toy_hang", settings={"how": "polite"})
        fields = {"budget": "smoke", "only": "experiment", "settings": {"how": "polite"}}
        again = new_job("toy_hang", **fields)
        app._start_job(again)
        assert "already running or queued" in status(app)
        assert not app.runs.waiting
        app._start_job(new_job("toy_hang", seed=1, **fields))
        assert [job.seed for job in app.runs.waiting] == [1]
        app._start_job(again)
        app._start_job(again)
        assert [job.seed for job in app.runs.waiting] == [1, 0]
        app.runs.clear()
        app.runs.cancel()
        await until(pilot, lambda: app.runs.alive is None, "the run to end")
