"""Shows a paper's code, highlighted and next to its abstract, and lets the reader edit a copy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from readtrack.errors import ReadtrackError
from readtrack.plugins.edits import of_plugin, summary
from readtrack.plugins.find import PluginRef, find
from readtrack.plugins.source import CodeLine, drop_unchanged_copy, files, is_own, own_copy, places, revert
from readtrack.present.actions import key
from readtrack.text import plain
from readtrack.tui.actions import bindings, bound
from readtrack.tui.screens.dialog import Answering
from readtrack.tui.widgets import paper_page
from readtrack.tui.widgets.key_hints import key_hints
from readtrack.tui.widgets.line_view import EMPTY, Line, Lines, LineView, join, text, wrapped

if TYPE_CHECKING:
    from readtrack.tui.controllers.notes import NotesController
    from readtrack.tui.shell import Shell

_LARGEST = 400_000  # characters of a file
_ORIGINS = {
    "user": "your own plugin",
    "path": "from READTRACK_PLUGIN_PATH",
    "installed": "installed",
    "shipped": "shipped with readtrack",
}


class CodeScreen(Answering[None]):
    """Shows one file of the plugin at a time. Enter, escape and q go back."""

    CSS_PATH: ClassVar = "code.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (150, "-wide")]  # noqa: RUF012 (Textual's own declaration)
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("code"),
        bound("help", "app.help"),
        Binding("escape,q", "dismiss", show=False),
    ]

    def __init__(self, plugin: PluginRef, notes: NotesController) -> None:
        super().__init__()
        self._notes = notes
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
        self.edits = of_plugin(plugin)
        self._kept: tuple[Path, list[Content]] | None = None

    @property
    def shell(self) -> Shell:
        return cast("Shell", self.app)

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
        several = len(self.files) > 1
        mine = is_own(self.plugin)
        own = (
            f"edited: {summary(self.plugin.name, self.edits)}" if self.edits else _ORIGINS[self.plugin.origin]
        )
        number = f"  {self.files.index(self.shown) + 1} of {len(self.files)} files" if several else ""
        title = join(
            " ", (self.plugin.name, "bold $heading"), "  ", (str(name), "$link"), (number, "$muted"), "   ",
            (own, "bold $reading" if mine else "$muted"),
        )  # fmt: skip
        self._title.update(title.truncate(max(1, self.size.width), ellipsis=True))
        self._hints.update(key_hints("code", self.size.width - 2))

    def _lines(self, width: int) -> list[Line]:
        if self._kept is None or self._kept[0] != self.shown:
            self._kept = self.shown, _highlighted(self.shown)
        room = len(str(len(self._kept[1])))
        marked = {place.line for place in self.places.values() if place.file == self.shown}
        return [
            Line(join((f" {number:>{room}} ", "$link bold" if number in marked else "$faint"), " ", line))
            for number, line in enumerate(self._kept[1], 1)
        ]

    def _about(self, width: int) -> Lines:
        library = self.shell.library
        paper = library.catalog.papers.get(self.plugin.name)
        if paper is None:
            return wrapped("No paper on the list has this plugin's name.", width, "$muted", indent=1)
        return paper_page.about_page(library, paper, width)

    def action_jump(self, hook: str) -> None:
        place = self.places.get(hook)
        if place is None:
            self.notify(f"These files do not define {hook} of {self.plugin.name}.", markup=False)
            return
        self._show(place)

    def _show(self, place: CodeLine) -> None:
        self.shown = place.file
        self._refresh_lines()
        self.code.rebuild(top=True)
        self.code.scroll_to_line(place.line - 2)

    def action_next_file(self, step: int) -> None:
        self._show(CodeLine(self.files[(self.files.index(self.shown) + step) % len(self.files)], 1))

    def action_edit(self) -> None:
        """Open the reader's copy in the editor at the visible line. An unchanged copy is deleted."""
        place = self.code.scroll_offset.y + 1
        inside = self.shown.relative_to(self.files[0].parent)
        try:
            main = own_copy(self.plugin, self.shell.library.home)
        except ReadtrackError as error:
            self.shell.fail(
                "make a copy to edit", error, "`readtrack plugins path` lists the plugin folders."
            )
            return
        path = main.parent / inside
        self._notes.edit_file(path, place)
        edited = find(self.shell.library.home).get(self.plugin.name)
        if edited is not None:
            drop_unchanged_copy(edited)
        self._read_again(inside, place)
        if self.edits:
            told = summary(self.plugin.name, self.edits)
            self._say(f"Your copy of {self.plugin.name} runs from now on ({told}).")
        elif not is_own(self.plugin):
            self._say("Nothing was changed, so no copy was kept.")

    def _read_again(self, inside: Path, line: int) -> None:
        self.shell.reload()
        found = self.shell.library.runnable().get(self.plugin.name)
        if found is None:  # its file was moved while this screen was open
            self.shell.say(f"The plugin {self.plugin.name} is no longer there.")
            self.dismiss()
            return
        self._read(found)
        path = self.files[0].parent / inside
        self._show(CodeLine(path if path in self.files else self.files[0], line))

    def action_edits(self) -> None:
        from readtrack.tui.screens.paged import Paged
        from readtrack.tui.widgets import edits_page

        if not self.edits:
            self.notify(f"This is the shipped code. Press {key('edit_code')} to edit a copy.", markup=False)
            return
        hint = "shipped code and your copy; esc closes"
        build = partial(edits_page.page, self.edits)
        self.app.push_screen(Paged(f"Your edits of {self.plugin.name}", build, hint, wide=True))

    def action_revert(self) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        if not is_own(self.plugin) or not self.plugin.shadows:
            self.notify("You have no copy to revert.", markup=False)
            return

        def chosen(answer: str | None) -> None:
            if answer == "u":
                self._revert()

        told = summary(self.plugin.name, self.edits) or "no changes"
        answers = [
            Choice("u", "revert", f"your copy ({told}) is moved to set-aside/plugins"),
            Choice("x", "keep it"),
        ]
        aside = self.shell.library.home.root / "set-aside" / "plugins"
        question = f"Run the shipped {self.plugin.name} again? Your copy moves to {aside}."
        self.app.push_screen(ChoiceDialog(question, answers), chosen)

    def _revert(self) -> None:
        inside = self.shown.relative_to(self.files[0].parent)
        try:
            kept = revert(self.plugin, self.shell.library.home)
        except ReadtrackError as error:
            self.shell.fail("revert the copy", error, "move it yourself.")
            return
        self._read_again(inside, self.code.scroll_offset.y + 1)
        self._say(f"The shipped {self.plugin.name} runs again. Your copy is now {kept}.")

    def _say(self, words: str) -> None:
        """Show the message here and on the status line of the screen below, whose own message came from
        reloading.
        """
        self.notify(words, markup=False)
        self.shell.say(words)


def _highlighted(path: Path) -> list[Content]:
    """The file's highlighted lines; plain lines if it cannot be highlighted."""
    try:
        code = plain(path.read_text(encoding="utf-8", errors="replace"))[:_LARGEST].expandtabs(4)
    except OSError as error:
        return [text(f"cannot be read: {error.strerror}", "$bad")]
    from textual.highlight import highlight

    lines = highlight(code, language="python").split("\n", allow_blank=True)
    return [line.rstrip() for line in lines] or [EMPTY]
