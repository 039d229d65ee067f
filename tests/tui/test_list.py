"""The list: moving, folding, filtering, following links, reloading."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events

from readtrack.home import Home
from readtrack.library import Library
from readtrack.present.wording import links, pieces
from readtrack.reading_list.load import load
from readtrack.tui.app import ReadtrackApp, run
from readtrack.tui.widgets.outline import outline, visible


def shown(app: ReadtrackApp) -> list[str]:
    return [line.content.plain.rstrip() for line in app.main.checklist.lines if line.target is not None]


def test_the_outline_is_the_readers_own_order(papers_yaml: Path) -> None:
    found = [(entry.kind, entry.depth, entry.text) for entry in outline(load(papers_yaml), ())]
    assert found == [
        ("title", 0, "My list"),
        ("note", 0, "protip: read the figures first"),
        ("section", 0, "Optimisers"),
        ("row", 0, "SGD - Adam [see blog](https://example.org/blog)"),
        ("paper", 1, "A Stochastic Approximation Method"),
        ("paper", 1, "Adam: A Method for Stochastic Optimization"),
        ("row", 0, "Hessian"),
        ("section", 0, "Attention"),
        ("note", 1, "the long road"),
        ("row", 0, "Transformer"),
        ("row", 1, "Flash [bold]not bold[/bold]"),
        ("note", 1, "(TODO: more)"),
        ("row", 1, "https://example.org/a-page"),
    ]


def test_matches_are_shown_in_their_context(papers_yaml: Path) -> None:
    entries = outline(load(papers_yaml), ())
    assert [entry.text for entry in visible(entries, {"flash"}, set())] == [
        "Attention",
        "Transformer",
        "Flash [bold]not bold[/bold]",
    ]
    assert visible(entries, set(), set()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("plain", []),
        ("[see blog](https://a.org/b_(c))", ["https://a.org/b_(c)"]),
        ("two https://a.org, and [x](http://b.org).", ["http://b.org", "https://a.org"]),
        ("[notebook](./local.ipynb)", []),
        ("javascript:alert(1) [x](javascript:alert(1))", []),
    ],
)
def test_links_in_a_rows_words(words: str, expected: list[str]) -> None:
    assert links(words) == expected


def test_markdown_links_are_shown_by_their_text() -> None:
    assert pieces("a [b](https://c.org) d") == [("a ", ""), ("b", "https://c.org"), (" d", "")]
    assert pieces("~~a [b](https://c.org)~~ ~ d~~") == [("a ", ""), ("b", "https://c.org"), (" ~ d~~", "")]
    assert pieces("") == [("", "")]


def test_a_row_of_unfinished_strikethroughs_is_read_quickly() -> None:
    start = time.process_time()
    row = "~~x " * 20_000
    assert pieces(row) == [(row, "")]
    assert time.process_time() - start < 2  # a pass for each prefix would take a minute


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_arrows_and_letters_move_alike(app: ReadtrackApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        places = []
        for keys in (
            ["j", "j"],
            ["k", "k"],
            ["down", "down"],
            ["up", "up"],
            ["G", "G"],
            ["g", "g"],
            ["end"],
            ["home"],
        ):
            await pilot.press(*keys)
            places.append(app.main.checklist.target)
        assert places == ["0/0/adam", "0/0", "0/0/adam", "0/0", "1/0/2", "0", "1/0/2", "0"]
        await pilot.press("pagedown", "ctrl+d", "ctrl+u", "pageup", "ctrl+f", "ctrl+b", "}", "}", "{", "{")
        assert app.main.checklist.target == "0"


@pytest.mark.parametrize("theme", ["ink", "paper"])
async def test_the_line_under_the_cursor_is_highlighted(app: ReadtrackApp, theme: str) -> None:
    async with app.run_test() as pilot:
        app.theme = theme
        await pilot.pause()
        await pilot.press("j", "j")
        await pilot.pause()
        page = app.main.checklist
        assert page.cursor is not None
        grounds = [
            {segment.style.bgcolor for segment in page.render_line(y) if segment.style is not None}
            for y in (page.cursor - 1, page.cursor, page.cursor + 1)
        ]
        assert grounds[0] == grounds[2]
        assert grounds[1].isdisjoint(grounds[0])
        assert len(grounds[1]) == 1  # across the whole width


async def test_a_verdict_in_the_list_has_its_colour(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.verdicts = {
            "adam": "held",
            "sgd": "failed",
            "attention": "completed",  # benchmark only
        }
        app.main.checklist.rebuild()
        contents = [line.content for line in app.main.checklist.lines]
        signs = {one.plain.strip()[-1:]: str(one.spans[-1].style) for one in contents if one.spans}
        assert (signs["✓"], signs["!"], signs["·"]) == ("$good", "$bad", "$muted")


async def test_the_details_follow_the_cursor(app: ReadtrackApp) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        await pilot.press("j", "j")
        await pilot.pause()
        assert any("Kingma" in line.content.plain for line in app.main.paper.lines)


async def test_on_a_narrow_screen_enter_shows_the_details_of_this_line(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for keys, expected in ((["j", "enter"], "Robbins"), (["escape", "j", "enter"], "Kingma")):
            await pilot.press(*keys)
            await pilot.pause()
            assert expected in screen_text(app)
            assert "Optimisers" not in screen_text(app)


async def test_a_row_is_called_by_its_words_not_by_its_markdown(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("2")
        assert "SGD - Adam see blog marked as reading." in str(app.main._status.render())


async def test_a_row_that_is_only_a_link_shows_its_papers_title(
    app: ReadtrackApp, papers_yaml: Path, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    link = "https://arxiv.org/abs/1412.6980"
    papers_yaml.write_text(
        papers_yaml.read_text().replace(
            'Hessian"\n        papers: [hessian]', f'{link}"\n        papers: [adam]'
        )
    )
    app.library.reload()
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.pause()
        left = "\n".join(line[:50] for line in screen_text(app).splitlines())
        assert "Adam: A Method for Stochastic" in left
        assert link not in left
        assert "https://example.org/a-page" in left  # this link is not a paper


async def test_folding_hides_and_unfolding_shows(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        whole = shown(app)
        await pilot.press("h")
        assert len(shown(app)) == len(whole) - 2
        assert shown(app)[1].startswith("▸●")
        assert "… 2" in shown(app)[1]
        await pilot.press("h")  # already folded: moves to the enclosing section
        assert app.main.checklist.target == "0"
        await pilot.press("left", "left")
        assert shown(app)[0].startswith("▸Optimisers  … 4")
        assert not any("▸" in line for line in shown(app)[1:])
        await pilot.press("right")
        await pilot.press("j", "l")
        assert shown(app) == whole


async def test_after_the_filter_the_cursor_is_on_what_hides_the_paper_that_was_found(
    app: ReadtrackApp,
) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("h", "h", "left")
        assert shown(app)[0].startswith("▸Optimisers")
        await pilot.press("/", *"kingma", "enter")
        assert app.entry is not None
        assert app.entry.subject == "adam"
        await pilot.press("escape")
        assert app.main.checklist.target == "0"


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_filter_as_you_type_and_escape_clears(app: ReadtrackApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        whole = shown(app)
        await pilot.press("/", *"kingma")
        await pilot.pause()
        assert [line.split()[1] for line in shown(app)] == ["adam"]
        assert "by Diederik P. Kingma" in shown(app)[0]
        context = [line.content for line in app.main.checklist.lines if line.target is None]
        assert [line.plain.split()[:2] for line in context] == [["Optimisers", "2/3"], ["●", "SGD"]]
        assert {str(span.style) for line in context for span in line.spans} == {"$muted"}
        assert app.entry is not None
        assert app.entry.subject == "adam"
        await pilot.press("enter")
        assert app.main.focused is app.main.checklist
        assert app.main.filter.display
        await pilot.press("escape")
        await pilot.pause()
        assert shown(app) == whole
        assert not app.main.filter.display
        await pilot.press("/", "/", "t", "n", "e", "escape", "escape")
        assert app.main.filter.value == ""
        assert shown(app) == whole


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_a_click_on_a_hint_is_its_key(app: ReadtrackApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("sgd")
        await pilot.pause()
        before = app.library.state("sgd")
        for label, changed in (("tick", True), ("undo", False)):
            footer = " " + str(app.main.query_one("#hints").render())
            await pilot.click("#hints", offset=(footer.index(label), 0))
            await pilot.pause()
            assert (app.library.state("sgd") != before) is changed
        await pilot.click("#hints", offset=(size[0] - 2, 0))  # next to the hints: no effect


async def test_an_empty_search_result_gives_a_suggestion(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("/", *"zzz")
        await pilot.pause()
        assert "No paper found. Try fewer or shorter words" in screen_text(app)
        await pilot.press("enter", "3", "r", "n")  # no line is selected: no effect


def type_fast(app: ReadtrackApp, *keys: str) -> None:
    """Send all keys at once, like a paste or a fast typist."""
    for key in keys:
        assert app._driver is not None
        character = {"slash": "/", "enter": "\r"}.get(key, key)
        app._driver.process_message(events.Key(key, character if len(character) == 1 else None))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("words", "expected"),
    [("flash", "flash"), ("mon", "sgd"), ("atention", "attention"), ("bert", "bert"), ("hessain", "hessian")],
)
async def test_enter_and_r_act_on_the_best_match(
    home: Home, papers_yaml: Path, words: str, expected: str, fast: bool
) -> None:
    bert = papers_yaml.read_text(encoding="utf-8").replace("papers:\n  sgd:", FACTS_OF_BERT + "  sgd:")
    papers_yaml.write_text(bert.replace('      - text: "Hessian"', ROW_OF_BERT), encoding="utf-8")
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test() as pilot:
        await pilot.pause()
        if fast:
            type_fast(app, "slash", *words, "enter", "r")
        else:
            await pilot.press("/", *words, "enter", "r")
        for _ in range(200):
            await pilot.pause(0.02)
            if app._notifications:
                break
        assert app.main.filter.value == words
        assert app.entry is not None
        assert app.entry.subject == expected
        said = list(app._notifications)[-1].message
        assert said.startswith(f"Could not run {expected}.\nWhy: it has no plugin yet")


ROW_OF_BERT = """\
      - text: "BERT (2018)"
        papers: [bert]
      - text: "Hessian\""""
FACTS_OF_BERT = """\
papers:
  bert:
    title: "BERT: Pre-training of Deep Bidirectional Transformers"
    authors: [Jacob Devlin]
    year: 2018
    sources:
      - arxiv: "1810.04805"
    problem: A language model reads in one direction.
    idea: Masked words are predicted from both sides.
    result: GLUE 80.5.
"""


async def test_matches_are_highlighted(app: ReadtrackApp) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        await pilot.press("/", *"attention")
        await pilot.pause()
        marked = {
            line.content.plain[span.start : span.end]
            for line in app.main.checklist.lines
            for span in line.content.spans
            if "$reading" in str(span.style)
        }
        assert marked == set()  # the row is called Transformer
        await pilot.press("backspace", *["backspace"] * 8, *"hess")
        await pilot.pause()
        assert [str(span.style) for line in app.main.checklist.lines for span in line.content.spans][-1]
        assert any(
            line.content.plain[span.start : span.end] == "Hess" and "$reading" in str(span.style)
            for line in app.main.checklist.lines
            for span in line.content.spans
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("state:foo", "There is no state 'foo'. Available: todo, reading, read, implemented, skipped."),
        ("tag:gpu", "There is no tag 'gpu'. No paper has a tag yet."),
    ],
)
async def test_an_unknown_state_or_tag_is_reported(
    app: ReadtrackApp, screen_text: Callable[[ReadtrackApp], str], words: str, said: str
) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        await pilot.press("j", "/")
        app.main.filter.value = words
        await pilot.pause()
        text = " ".join(screen_text(app).replace("▕", " ").split())
        assert said in text or " ".join(said.split()[:6]) in text
        await pilot.press("escape")
        assert app.main.checklist.target == "0/0/sgd"  # the cursor's earlier position


async def test_clearing_the_filter_draws_the_list_once(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("/", *"adam", "enter")
        await pilot.pause()
        built = []
        lines = app.main.checklist._lines
        monkeypatch.setattr(app.main.checklist, "_build", lambda width: built.append(width) or lines(width))
        await pilot.press("escape")
        await pilot.pause()
        assert len(built) == 1
        assert app.main.filter.value == ""


async def test_fast_typing_goes_to_the_filter_not_to_the_keys(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        for character in "/run":
            key = "slash" if character == "/" else character
            app._driver.process_message(events.Key(key, character))  # type: ignore[union-attr]
        await pilot.pause(0.2)
        assert app.main.filter.value == "run"
        assert app.following is None


async def test_the_state_filter_goes_round(app: ReadtrackApp) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        seen = []
        for _ in range(8):
            await pilot.press("f")
            await pilot.pause()
            seen.append(app.main.filter.value)
        assert seen[:7] == [
            *(f"state:{s}" for s in ("todo", "reading", "read", "implemented", "skipped")),
            "runnable",
            "",
        ]
        left = {"hessian", "attention", "flash", "row:https-example-org-a-page"}
        assert set(app.main.checklist.found or ()) == left


async def test_lineage_leads_to_papers_and_back(app: ReadtrackApp) -> None:
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.press("enter", "enter")
        assert app.entry is not None
        assert app.entry.subject == "sgd"
        await pilot.press("backspace")
        assert app.entry.subject == "adam"
        await pilot.press("backspace", "backspace")
        assert app.entry.subject == "adam"


async def test_reload_shows_changes_and_keeps_the_place(app: ReadtrackApp, papers_yaml: Path) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("hessian")
        await pilot.pause()
        text = papers_yaml.read_text(encoding="utf-8")
        papers_yaml.write_text(text.replace('"Hessian"', '"Hessian (at last)"'), encoding="utf-8")
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert any("Hessian (at last)" in line for line in shown(app))
        assert app.entry is not None
        assert app.entry.text == "Hessian (at last)"
        await pilot.press("ctrl+r")


async def test_a_list_broken_while_the_app_is_open_leaves_the_old_one(
    app: ReadtrackApp, papers_yaml: Path
) -> None:
    async with app.run_test() as pilot:
        await pilot.pause()
        whole = shown(app)
        papers_yaml.write_text("checklist: [", encoding="utf-8")
        await pilot.press("ctrl+r")
        await pilot.pause()
        message = next(iter(app._notifications)).message
        assert message.startswith("Could not read the list again.\nWhy: papers.yaml:")
        assert shown(app) == whole
        await pilot.press("j", "3")
        assert app.library.state("sgd") == "read"


def test_a_broken_list_at_start_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "papers.yaml"
    path.write_text("title: x\nchecklst: []\n", encoding="utf-8")
    assert run(papers_yaml=path) == 2
    said = capsys.readouterr().err
    assert said.startswith("Could not open the reading list.\nWhy: papers.yaml:2: ")
    assert "Traceback" not in said


async def test_an_empty_list_explains_how_to_begin(
    home: Home, papers_yaml: Path, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    papers_yaml.write_text("title: Nothing yet\nchecklist: []\npapers: {}\n", encoding="utf-8")
    app = ReadtrackApp(Library.open(home, papers_yaml))
    async with app.run_test() as pilot:
        await pilot.pause()
        assert "The list is empty. Press a to add a paper" in screen_text(app)
        await pilot.press("j", "3", "enter", "r", "n", "t", "s", "o", "p", "y", "}", "h", "l", "f", "escape")
        assert app.is_running


async def test_a_paper_that_is_not_on_the_list_is_not_todo(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home.ensure()
    home.papers_yaml.write_text(
        "title: Mine\nchecklist: [{section: A, rows: [{text: Adam, papers: [adam]}]}]\n"
    )
    home.ensure(home.plugins)
    (home.plugins / "adamw.py").touch()
    app = ReadtrackApp(Library.open(home))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("G")
        await pilot.pause()
        assert "Runnable, not on your list" in screen_text(app)
        assert "todo" not in "\n".join(screen_text(app).splitlines()[1:-2])
        await pilot.press("l", "j")
        await pilot.pause()
        shown = screen_text(app)
        (line,) = [line for line in shown.splitlines() if " adamw  " in line]
        assert "○" not in line.split("adamw")[0]
        await pilot.press("3")
        await pilot.pause()
        assert app.entry is not None
        assert app.library.shown_state(app.entry.subject) == "read"
        assert "● read" in screen_text(app)


async def test_plugins_that_no_row_names_are_at_the_end(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    (home.plugins / "mine.py").touch()
    (home.plugins / "attention.py").touch()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "Runnable, not on your list" in screen_text(app)
        await pilot.press("G", "l", "j")
        await pilot.pause()
        assert app.entry is not None
        assert (app.entry.plugin, app.entry.subject) == ("mine", "")
        assert "This plugin can run, but no paper on your list is linked to it." in screen_text(app)
        assert str(home.plugins / "mine.py")[:40] in screen_text(app)
        await pilot.press("3", "n", "escape", "t", "s", "o")
        assert not home.journal.exists()


async def test_an_unreadable_note_is_reported_on_the_page(
    app: ReadtrackApp, home: Home, screen_text: Callable[[ReadtrackApp], str]
) -> None:
    (home.notes / "adam.md").mkdir(parents=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        app.main.checklist.go_to_subject("adam")
        await pilot.pause()
        assert "Could not read the note" in screen_text(app)


async def test_a_step_draws_the_cursor_and_the_details_in_one_frame(
    app: ReadtrackApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.pause()
        built: list[int | None] = []
        rebuild = app.main.paper.rebuild

        def noted(*, target: object | None = None, top: bool = False) -> None:
            built.append(app.main.checklist.cursor)
            rebuild(target=target, top=top)

        monkeypatch.setattr(app.main.paper, "rebuild", noted)
        before = app.main.checklist.cursor
        app.main.checklist.action_down()
        assert built == [app.main.checklist.cursor] != [before]  # before any message was handled
        await pilot.pause()
        assert len(built) == 1
