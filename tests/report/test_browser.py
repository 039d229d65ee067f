"""One page of each kind in Chromium: requests, console output, layout, behaviour and accessibility."""

from __future__ import annotations

import io
import shutil
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import poison
import pytest
from axe_playwright_python.sync_playwright import Axe
from pageread import Page, run
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from playwright.sync_api import Page as Tab

from readtrack.home import Home
from readtrack.library import Library
from readtrack.report.card import of_library
from readtrack.report.gather import of_reader
from readtrack.report.pages import write_card
from readtrack.report.site import build, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: `apt-get install chromium`")

# The browser may request only the files of a page.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
SLOW = 60_000.0  # milliseconds, enough for a busy machine
WIDTHS = (320, 800, 1600)
KINDS = (
    "index.html", "claims.html", "benchmarks.html", "lineage.html", "reading.html", "method.html",
    "papers/adam.html", "papers/bert.html", "card.html",
)  # fmt: skip
ADAM = "papers/adam.html"
SECONDS = {"a.wav": 0.5, "b.wav": 0.25}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a home with states, notes and runs, and a card."""
    home, folder = Home(tmp_path_factory.mktemp("browser") / "home"), tmp_path_factory.mktemp("site")
    home.ensure()
    run(home)
    library = Library.open(home)
    library.mark("adam", "read")
    library.mark("bert", "reading")
    library.save_note("adam", "# First\n\nRead **figure 1**.\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n")
    write(build(of_reader(library, private=True)), folder)
    made = of_library(library, next(home.runs.iterdir()), private=False)
    write_card(made, folder, "card")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        started.close()


@dataclass
class Heard:
    """Console messages, errors and requests of a page."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext) -> Tab:
        tab = context.new_page()
        tab.on("console", lambda message: self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("requestfailed", lambda request: self.said.append(f"failed: {request.url}"))
        tab.on("request", lambda request: self.asked.append(request.url))
        return tab


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tab(browser: Browser, heard: Heard) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1600, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(SLOW)
    yield heard.listen(context)
    context.close()
    assert heard.said == []
    assert [url for url in heard.asked if not url.startswith("file://")] == []


TOO_WIDE = """() => {
  const wide = document.documentElement.clientWidth, found = []
  if (document.scrollingElement.scrollWidth > wide) found.push("the page")
  for (const one of document.querySelectorAll("main *, nav, footer")) {
    const box = one.getBoundingClientRect(), cut = one.closest(".scroll, pre, svg, .sr")
    if (box.width && box.right > wide + 1 && !cut) found.push(one.outerHTML.slice(0, 120))
  }
  return found
}"""  # whether the page scrolls sideways, and elements that overflow without scrolling
LINKS = """() => [...document.querySelectorAll("a")].map(
  one => new URL(one.href.baseVal ?? one.href, document.baseURI).href
)"""
PLAY = """async () => {
  const found = {}
  for (const one of document.querySelectorAll("audio")) {
    one.muted = true
    await new Promise((done, fail) => {
      one.onended = done
      one.onerror = () => fail(one.error.message)
      one.play().catch(fail)
    })
    found[one.src.split("/").pop()] = [one.duration, one.currentTime]
  }
  return found
}"""
COLUMN = """(table, at) => [...table.querySelectorAll("tbody tr:not(.grp):not([hidden])")].map(
  row => row.cells[at].dataset.key ?? row.cells[at].textContent.trim().toLowerCase()
)"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_quiet_and_never_too_wide(tab: Tab, heard: Heard, site: Path, kind: str) -> None:
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.set_viewport_size({"width": WIDTHS[-1], "height": 900})
        tab.goto((site / kind).as_uri())
        grounds = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert grounds == {"light": "rgb(252, 252, 250)", "dark": "rgb(21, 23, 26)"}[scheme]
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            assert tab.evaluate(TOO_WIDE) == [], (scheme, width)
    assert heard.asked.count((site / kind).as_uri()) == 2


# The others take up to twelve seconds each.
QUICK = (ADAM, "reading.html", "card.html")


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in KINDS]
)
def test_axe_finds_no_serious_violation(browser: Browser, site: Path, kind: str) -> None:
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce")  # axe is a script
    context.set_default_timeout(SLOW)
    tab, found = context.new_page(), []
    for width, scheme in ((320, "dark"), (1600, "light")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.goto((site / kind).as_uri())
        for one in Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                found += [(width, scheme, one["id"], node["html"][:200]) for node in one["nodes"]]
    context.close()
    assert found == []


@cache
def ids(page: Path) -> frozenset[str]:
    return frozenset(Page(page.read_text()).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_every_link_resolves_as_the_browser_reads_it(tab: Tab, site: Path, kind: str) -> None:
    tab.goto((site / kind).as_uri())
    links: list[str] = tab.evaluate(LINKS)
    for link in dict.fromkeys(links):
        parts = urlsplit(link)
        if parts.scheme == "file":
            there = Path(unquote(parts.path))
            assert there.is_file(), link
            if parts.fragment:
                assert parts.fragment in ids(there), link
        else:
            assert parts.scheme in ("https", "http"), link
    assert kind == "card.html" or len(links) > 6


def test_a_link_leads_to_the_claim(tab: Tab, site: Path) -> None:
    tab.goto((site / "claims.html").as_uri())
    tab.locator("tr.row a").first.click()
    tab.wait_for_url("**/papers/*.html#c-*")
    assert tab.locator(":target").bounding_box()["y"] < 60  # type: ignore[index]


def test_sounds_decode_and_have_their_length(tab: Tab, site: Path) -> None:
    tab.goto((site / ADAM).as_uri())
    lengths: dict[str, list[float]] = tab.evaluate(PLAY)
    assert lengths.keys() == SECONDS.keys()
    for name, seconds in SECONDS.items():
        with wave.open(io.BytesIO((site / "media" / "adam" / name).read_bytes())) as file:
            assert file.getnframes() / file.getframerate() == seconds
        assert lengths[name] == pytest.approx([seconds, seconds], abs=0.01)


def test_pictures_are_shown(tab: Tab, heard: Heard, site: Path) -> None:
    tab.goto((site / ADAM).as_uri())
    for image in tab.locator("main img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("async one => { await one.decode(); return one.naturalWidth }") == 40
    boxes = tab.locator("svg image").evaluate_all("all => all.map(one => one.getBBox().width)")
    assert boxes[0] == pytest.approx(2 * boxes[1], rel=0.02)  # half a second and a quarter of a second
    files = {urlsplit(url).path.rpartition("/")[2] for url in heard.asked}
    assert files == {"adam.html", "p.png", "a-spectrogram.png", "b-spectrogram.png"}


def column(tab: Tab, table: str, at: int) -> list[str]:
    found: list[str] = tab.locator(table).evaluate(COLUMN, at)
    return found


@pytest.mark.parametrize(
    ("kind", "table", "head", "at", "numbers"),
    [
        ("index.html", "#papers", "Paper", 0, False),
        ("index.html", "#papers", "Year", 4, True),
        ("claims.html", "table.forests", "Found, required", 2, True),
        ("benchmarks.html", "table >> nth=-1", "Found", 1, True),
    ],
)
def test_a_table_sorts_both_ways(
    tab: Tab, site: Path, kind: str, table: str, head: str, at: int, numbers: bool
) -> None:
    tab.goto((site / kind).as_uri())
    before = column(tab, table, at)
    button = tab.locator(table).get_by_role("button", name=head, exact=True)
    for reverse, sort in ((False, "ascending"), (True, "descending")):
        button.focus()
        tab.keyboard.press("Enter")
        now = column(tab, table, at)
        values = [float(one or "nan") for one in now] if numbers else now
        assert values == sorted(values, reverse=reverse)
        assert sorted(now) == sorted(before)
        assert tab.locator(f"{table} >> th[aria-sort={sort}]").count() == 1
    assert len(set(before)) > 3


def test_the_list_is_searched(tab: Tab, site: Path) -> None:
    tab.goto((site / "index.html").as_uri())
    tab.get_by_label("Find").fill("bert 2018")
    assert tab.locator("#papers tbody tr:visible a").all_text_contents() == [
        "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
    ]
    assert tab.get_by_role("status").text_content() == "1 paper"
    tab.get_by_label("Find").fill("")
    assert tab.locator("#papers tbody tr:visible a").count() > 90


def test_everything_is_there_without_javascript(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 800, "height": 900})
    context.set_default_timeout(SLOW)
    tab = context.new_page()
    tab.goto((site / "index.html").as_uri())
    assert not tab.get_by_label("Find").is_visible()  # it would have no effect
    assert tab.locator("th button").count() == 0
    tab.get_by_role("link", name="Adam: A Method").click()
    tab.get_by_role("heading", name="Measured claims").wait_for()
    tab.wait_for_load_state()
    assert tab.locator("audio").count() == 2
    fold = tab.locator("article details", has_text="How it was checked").first
    fold.locator("summary").click()
    assert fold.locator("dl").is_visible()
    tab.goto((site / "claims.html").as_uri())
    weak = tab.locator("tr.row.v-weak:visible")
    assert weak.count() > 3
    tab.locator("#v-weak").uncheck()
    assert weak.count() == 0
    assert tab.locator("tr.row.v-reproduced:visible").count() > 3
    context.close()


def test_the_keyboard_reaches_the_content_first(tab: Tab, site: Path) -> None:
    tab.goto((site / ADAM).as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to content"
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home, folder = Home(tmp_path_factory.mktemp("hostile") / "home"), tmp_path_factory.mktemp("site")
    poison.fill(home)
    library = Library.open(home)
    write(build(of_reader(library, private=True)), folder)
    made = of_library(library, next(home.runs.glob("*adam*")), private=True)
    write_card(made, folder, "card")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "bert" not in kind] + ["papers/mine.html"])
def test_hostile_text_is_shown_and_has_no_effect(tab: Tab, hostile_site: Path, kind: str) -> None:
    tab.goto((hostile_site / kind).as_uri())
    for fold in tab.locator("details:not([open]) > summary").all()[:20]:
        fold.click()
    assert tab.evaluate("typeof pwned") == "undefined"
    assert poison.SHOWN in tab.locator("body").inner_text() or kind == "method.html"
    assert tab.locator("iframe, object, embed, link, base, [onload], [onerror], [onmouseover]").count() == 0
    assert tab.evaluate("[...document.links].every(one => /^(file|https?):$/.test(one.protocol))")
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate(TOO_WIDE) == [], width
