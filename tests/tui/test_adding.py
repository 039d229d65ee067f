"""Adding a paper, a PDF or a list, and the introduction for a new reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import status, until

from readtrack.errors import NotAvailableError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins.find import find
from readtrack.reading_list.load import load, shipped
from readtrack.sync import add as adding
from readtrack.tui import kept
from readtrack.tui.app import ReadtrackApp
from readtrack.tui.screens import ask
from readtrack.tui.screens.ask import ChoiceDialog, InputDialog

Screen = Callable[[ReadtrackApp], str]


@pytest.fixture
def newcomer(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    """The app of a reader who has kept the shipped list and done nothing else."""
    monkeypatch.chdir(tmp_path)
    kept.keep_chosen(home)
    return ReadtrackApp(Library.open(home))


@pytest.mark.parametrize("width", [60, 80, 120])
async def test_a_newcomer_reads_a_description_and_the_keys(
    newcomer: ReadtrackApp, screen_text: Screen, width: int
) -> None:
    async with newcomer.run_test(size=(width, 24)) as pilot:
        await pilot.pause()
        line = screen_text(newcomer).splitlines()[1]
        assert " of these papers can run" in line
        if width >= 80:
            assert "I " in line
            assert "…" not in line
        await pilot.press("j", "space")
        await pilot.pause()
        assert "of these papers can run" not in screen_text(newcomer)


async def test_a_reader_with_a_list_sees_no_message(app: ReadtrackApp, screen_text: Screen) -> None:
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert "of these papers can run" not in screen_text(app)


@pytest.mark.parametrize(("answer", "papers"), [("e", 0), ("c", None)])
async def test_a_list_of_the_reader(
    newcomer: ReadtrackApp, home: Home, answer: str, papers: int | None
) -> None:
    async with newcomer.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        before = len(newcomer.library.listed)
        await pilot.press("I")
        await pilot.pause()
        assert isinstance(newcomer.screen, ChoiceDialog)
        await pilot.press(answer)
        await pilot.pause()
        assert newcomer.library.list_path == home.papers_yaml != shipped()
        assert len(newcomer.library.listed) == (before if papers is None else papers)
        assert "Your list is" in status(newcomer)
        assert "adamw" in newcomer.library.catalog.papers
        assert not [state for _, state in newcomer.library.history()]


@pytest.mark.parametrize(("answer", "state"), [("k", "todo"), ("c", "todo"), ("m", "read")])
async def test_a_list_in_this_folder_counts_as_ticked_only_if_the_reader_confirms(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "      - text: Adam\n        done: true\n        papers: [adam]\n"
    (tmp_path / "papers.yaml").write_text(f"title: T\nchecklist:\n  - section: A\n    rows:\n{rows}")
    app = ReadtrackApp(Library.open(home))
    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), "the offer")
        await pilot.pause(2 * ask._PAUSE)
        await pilot.press(answer)
        await pilot.pause()
        assert app.library.is_readers == (answer != "k")
        assert app.library.state("adam") == state
        assert list(app.library.listed) == ["adam"]


async def test_a_adds_a_paper_and_goes_to_it(
    app: ReadtrackApp, papers_yaml: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = adding.GivenFacts("Mamba: Linear-Time Sequence Modeling", ("Albert Gu", "Tri Dao"), 2023)
    monkeypatch.setattr(adding, "_from_arxiv", lambda *_: facts)
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.press("a")
        await pilot.pause()
        assert isinstance(app.screen, InputDialog)
        await pilot.press(*"mambaa", "enter")
        await pilot.pause()
        assert isinstance(app.screen, InputDialog)  # it shows the problem and keeps the typed text
        await pilot.press(*["backspace"] * 6, *"2312.00752", "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "mamba" in app.library.catalog.papers
        assert app.entry is not None
        assert app.entry.subject == "mamba"
        assert "Added mamba" in status(app)


async def test_a_paper_that_cannot_be_added_is_reported(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise NotAvailableError("arXiv could not be asked.")

    monkeypatch.setattr(adding, "_from_arxiv", fails)
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.press("a", *"2101.00001", "enter")
        await until(pilot, lambda: app._notifications, "the error")
        assert "arXiv could not be asked" in list(app._notifications)[-1].message


async def test_attaching_a_pdf(app: ReadtrackApp, tmp_path: Path) -> None:
    pdf = tmp_path / "mine.pdf"
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("hessian")
        await pilot.press("A")
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, InputDialog)
        screen._input.value = str(pdf)
        await pilot.press("enter")
        await pilot.pause()
        assert app.screen is screen  # there is no such file
        pdf.write_bytes(b"%PDF-1.4\n" + b" " * 2000 + b"startxref\n0\n%%EOF\n")
        await pilot.press("enter")
        await pilot.pause()
        assert app.library.pdf("hessian") is not None
        assert "The PDF of hessian" in status(app)


# The choice of the list


@pytest.fixture
def first_start(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    """The app at its first start, without a home folder."""
    monkeypatch.chdir(tmp_path)
    return ReadtrackApp(Library.open(home))


@pytest.mark.parametrize("answer", ["k", "escape"])
async def test_the_first_start_offers_a_list_once(first_start: ReadtrackApp, home: Home, answer: str) -> None:
    async with first_start.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: isinstance(first_start.screen, ChoiceDialog), "the offer")
        await pilot.pause(2 * ask._PAUSE)
        await pilot.press(answer)
        await pilot.pause()
        assert first_start.library.list_path == shipped()
        assert not home.papers_yaml.exists()
    again = ReadtrackApp(Library.open(home))
    async with again.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert again.screen is again.main


async def test_a_reader_with_marks_gets_no_offer(first_start: ReadtrackApp, home: Home) -> None:
    Library.open(home).mark("adam", "read")
    first_start.library.reload()
    async with first_start.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert first_start.screen is first_start.main


@pytest.mark.parametrize("answer", ["e", "s"])
async def test_a_list_that_another_replaces_is_kept_and_comes_back(
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    screen_text: Screen,
    answer: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    home.ensure()
    mine = "title: Mine\nchecklist:\n  - section: A\n    rows:\n      - text: Adam\n        papers: [adam]\n"
    home.papers_yaml.write_text(mine)
    Library.open(home).mark("adam", "read")
    app = ReadtrackApp(Library.open(home))
    async with app.run_test(size=(160, 24)) as pilot:
        await pilot.press("I", answer)
        await pilot.pause()
        old = home.root / "set-aside" / "papers.yaml"
        assert old.read_text() == mine
        assert "I b brings back the previous list" in status(app)
        assert set(app.library.listed) == set(load(shipped()).listed() if answer == "s" else ())
        assert app.library.state("adam") == "read"  # states of papers are kept
        await pilot.press("I")
        await pilot.pause()
        assert "bring back" in screen_text(app)
        assert "Mine, 1 row, set aside on 20" in screen_text(app)
        await pilot.press("b")
        await pilot.pause()
        assert home.papers_yaml.read_text() == mine
        assert list(app.library.listed) == ["adam"]


async def test_one_of_several_lists_is_brought_back(home: Home, screen_text: Screen) -> None:
    home.ensure()
    text = 'title: "{}"\nchecklist: []\n'
    home.papers_yaml.write_text(text.format("First"))
    app = ReadtrackApp(Library.open(home))
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(2):
            await pilot.press("I", "e")
            await pilot.pause()
        await pilot.press("I", "b")
        await pilot.pause()
        shown = screen_text(app)
        assert shown.index("1  My papers, 0 rows") < shown.index("2  First, 0 rows")
        await pilot.press("2")
        await pilot.pause()
        assert home.papers_yaml.read_text() == text.format("First")
        assert len(list((home.root / "set-aside").iterdir())) == 2


async def test_a_listed_paper_is_shown_and_not_added_again(newcomer: ReadtrackApp, home: Home) -> None:
    async with newcomer.run_test(size=(120, 24)) as pilot:
        await pilot.press("I", "e", "a", *"adamw", "enter")
        await until(pilot, lambda: "adamw" in newcomer.library.listed, "the paper")
        await pilot.press("g", "a", *"adamw", "enter")
        await until(pilot, lambda: "is on your list already" in status(newcomer), "the answer")
        assert newcomer.entry is not None
        assert newcomer.entry.plugin == "adamw"


async def test_a_paper_known_by_its_title_shows_no_more_than_that(
    newcomer: ReadtrackApp, home: Home, screen_text: Screen
) -> None:
    async with newcomer.run_test(size=(120, 30)) as pilot:
        await pilot.press("I", "e", "a", *"A Study of Nothing", "enter")
        await until(pilot, lambda: "Added study_nothing" in status(newcomer), "the paper")
        assert "not known: authors, year" in status(newcomer)
        assert "fetches" not in status(newcomer)
        shown = screen_text(newcomer)
        assert "not known: authors, year" in shown
        for invented in ("unknown", "202", "arxiv.org"):
            assert invented not in shown
        await pilot.press("p")
        await pilot.pause()
        assert "has no link and no PDF. A attaches a PDF." in status(newcomer)


async def test_an_import_goes_into_an_empty_list(newcomer: ReadtrackApp, home: Home, tmp_path: Path) -> None:
    from readtrack.transfer.exporting import to_markdown
    from readtrack.transfer.importing import apply, plan

    async with newcomer.run_test(size=(120, 24)) as pilot:
        await pilot.press("I", "e")
        await pilot.pause()
    text = "---\ntags: [a]\n---\n# Reading\n\nTo myself.\n\n## Now\n- [x] BERT\n- [ ] GPT-2\n"
    (tmp_path / "mine.md").write_text(text)
    library = Library.open(home)
    apply(library, plan(library, tmp_path / "mine.md"), pdfs=False)
    library.reload()
    assert set(library.listed) == {"bert", "gpt2"}
    assert to_markdown(library) == text


# Runnable papers that are not on the list


@pytest.fixture
def empty(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadtrackApp:
    """The app with an empty list and the shipped plugins."""
    monkeypatch.setattr(Library, "_plugins", property(lambda library: find(library.home)))
    monkeypatch.chdir(tmp_path)
    home.ensure()
    home.papers_yaml.write_text('title: "My papers"\nchecklist: []\npapers: {}\n')
    return ReadtrackApp(Library.open(home))


async def test_shipped_papers_can_be_read_and_marked_off_the_list(
    empty: ReadtrackApp, screen_text: Screen
) -> None:
    async with empty.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        lines = screen_text(empty).splitlines()
        assert "1 ○ 0 todo" in lines[0]
        left = [line.split("▕")[0] for line in lines]
        section = next(line for line in left if "Runnable, not on your list" in line)
        assert section.split()[-1] == str(len(empty.library.runnable()))
        assert "○ adamw" not in screen_text(empty)  # folded
        empty.main.checklist.go_to_subject("adamw")
        await pilot.pause()
        shown = screen_text(empty)
        assert "Decoupled Weight Decay Regularization" in shown
        assert "Builds on" in shown
        assert "Not run yet. Press r to run it." in shown
        assert "put on my list" in shown
        await pilot.press("2")
        await pilot.pause()
        assert "adamw marked as reading" in status(empty)
        assert empty.library.state("adamw") == "reading"
        assert "0 reading" in screen_text(empty).splitlines()[0]
        await pilot.press("K")
        await pilot.pause()
        assert "+ puts it there" in status(empty)


async def test_a_key_puts_the_paper_on_the_list(empty: ReadtrackApp, screen_text: Screen) -> None:
    async with empty.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        empty.main.checklist.go_to_subject("adamw")
        await pilot.press("+")
        await empty.workers.wait_for_complete()
        await until(pilot, lambda: "Added adamw" in status(empty), "the paper")
        assert set(empty.library.listed) == {"adamw"}
        assert "1 ○ 1 todo" in screen_text(empty).splitlines()[0]
        empty.main.checklist.go_to_subject("adamw")
        await pilot.press("+")
        await pilot.pause()
        assert "on your list already" in status(empty)


# The last position in the list


async def test_the_app_reopens_where_it_was_left(app: ReadtrackApp, home: Home, papers_yaml: Path) -> None:
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("flash")
        await pilot.pause()
    again = ReadtrackApp(Library.open(home, papers_yaml))
    async with again.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert again.entry is not None
        assert again.entry.subject == "flash"
    # Rows have moved in the meantime.
    text = papers_yaml.read_text()
    papers_yaml.write_text(text.replace("checklist:\n", 'checklist:\n  - section: "New"\n', 1))
    moved = ReadtrackApp(Library.open(home, papers_yaml))
    async with moved.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert moved.entry is not None
        assert moved.entry.subject == "flash"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"rows": 3}',
        '{"rows": {"LIST": 7}}',
        '{"rows": {"LIST": ["nowhere", "none"]}}',
        '{"rows": {"LIST": ["title", ""]}}',
        '{"rows": {"LIST": [{}, []]}}',
        "[" * 30_000,
    ],
)
async def test_a_damaged_memory_is_ignored(
    app: ReadtrackApp, home: Home, papers_yaml: Path, text: str
) -> None:
    home.ensure(home.cache)
    file = home.cache / "app.json"
    file.write_text(text.replace("LIST", str(papers_yaml)))
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        assert app.entry is not None
        assert app.entry.kind == "row"
    assert kept.place(home, papers_yaml) is not None  # and it is valid again
