"""A paper's own code: highlighted, beside its abstract, and the way to change it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from readtrack.errors import ReadtrackError
from readtrack.plugins.find import PluginRef
from readtrack.plugins.source import Place, files, is_own, own_copy, places
from readtrack.text import plain
from readtrack.tui.actions import bindings, shown_key
from readtrack.tui.actions import where as actions_where
from readtrack.tui.screens.dialog import Answering
from readtrack.tui.widgets import paper_page
from readtrack.tui.widgets.line_view import EMPTY, Line, LineView, join, text, wrapped

if TYPE_CHECKING:
    from readtrack.tui.app import ReadtrackApp

_LARGEST = 400_000  # characters of a file


class CodeScreen(Answering[None]):
    """Shows one file of the plugin at a time; enter, escape and q go back."""

    CSS_PATH: ClassVar = "code.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (150, "-wide")]  # noqa: RUF012 (Textual's own declaration)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("code"),
        Binding("escape,q", "dismiss", show=False),
    ]

    def __init__(self, plugin: PluginRef) -> None:
        super().__init__()
        self._title = Static(id="code-title", markup=False)
        self._hints = Static(id="code-hints", markup=False)
        self.code = LineView(self._lines, id="code")
        self.about = LineView(self._about, id="about")
        self._read(plugin)

    def _read(self, plugin: PluginRef) -> None:
        self.plugin = plugin
        self.files = files(plugin)
        self.places = places(self.files)
        self.shown = self.files[0]
        self._kept: tuple[Path, list[Content]] | None = None

    @property
    def readtrack_app(self) -> ReadtrackApp:
        return cast("ReadtrackApp", self.app)

    def compose(self) -> ComposeResult:
        yield self._title
        with Horizontal():
            yield self.code
            yield self.about
        yield self._hints

    def on_mount(self) -> None:
        self.code.focus()
        self.action_jump("implementation")

    def on_resize(self) -> None:
        self._refresh_lines()

    def _refresh_lines(self) -> None:
        name = self.shown.relative_to(self.files[0].parent)
        mine, several = is_own(self.plugin), len(self.files) > 1
        own = "your own copy: it is what runs" if mine else f"as it came ({self.plugin.origin})"
        number = f"  {self.files.index(self.shown) + 1} of {len(self.files)} files" if several else ""
        title = join(
            " ", (self.plugin.name, "bold $heading"), "  ", (str(name), "$link"), (number, "$muted"), "   ",
            (own, "bold $reading" if mine else "$muted"),
        )  # fmt: skip
        self._title.update(title.truncate(max(1, self.size.width), ellipsis=True))
        keys = [join((shown_key(one.keys[0]), "bold"), f" {one.label}") for one in actions_where("code")]
        self._hints.update(Content("   ").join([*keys, join(("esc", "bold"), " back")]))

    def _lines(self, width: int) -> list[Line]:
        if self._kept is None or self._kept[0] != self.shown:
            self._kept = self.shown, _highlighted(self.shown)
        room = len(str(len(self._kept[1])))
        marked = {place.line for place in self.places.values() if place.file == self.shown}
        return [
            Line(join((f" {number:>{room}} ", "$link bold" if number in marked else "$faint"), " ", line))
            for number, line in enumerate(self._kept[1], 1)
        ]

    def _about(self, width: int) -> list[Line]:
        library = self.readtrack_app.library
        paper = library.catalog.papers.get(self.plugin.name)
        if paper is None:
            return wrapped("No paper on the list has its name.", width, "$muted", indent=1)
        return paper_page.about_page(library, paper, width)

    def action_jump(self, hook: str) -> None:
        place = self.places.get(hook)
        if place is None:
            self.notify(f"{self.plugin.name} has no {hook} in these files.", markup=False)
            return
        self._show(place)

    def _show(self, place: Place) -> None:
        self.shown = place.file
        self._refresh_lines()
        self.code.rebuild(top=True)
        self.code.scroll_to_line(place.line - 2)

    def action_next_file(self, step: int) -> None:
        self._show(Place(self.files[(self.files.index(self.shown) + step) % len(self.files)], 1))

    def action_edit(self) -> None:
        """Open the reader's own copy in the editor, at the line in view; there is one from now on."""
        place = self.code.scroll_offset.y + 1
        inside = self.shown.relative_to(self.files[0].parent)
        try:
            main = own_copy(self.plugin, self.readtrack_app.library.home)
        except ReadtrackError as error:
            self.readtrack_app.notify_error(
                "make a copy to change", error, "`readtrack plugins path` lists the folders."
            )
            return
        path = main.parent / inside
        self.readtrack_app.notes.edit_file(path, place)
        self.readtrack_app.action_reload()
        self._read(self.readtrack_app.library.runnable()[self.plugin.name])
        self._show(Place(path if path in self.files else self.files[0], place))


def _highlighted(path: Path) -> list[Content]:
    """The file's lines; as they are where they cannot be told apart."""
    try:
        code = plain(path.read_text(encoding="utf-8", errors="replace"))[:_LARGEST].expandtabs(4)
    except OSError as error:
        return [text(f"cannot be read: {error.strerror}", "$bad")]
    from textual.highlight import highlight

    lines = highlight(code, language="python").split("\n", allow_blank=True)
    return [line.rstrip() for line in lines] or [EMPTY]
