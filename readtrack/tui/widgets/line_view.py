"""A scrolling page of lines, with a cursor that moves over the lines with a target."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from time import monotonic
from typing import ClassVar, NamedTuple, ParamSpec, TypeAlias, overload

from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.timer import Timer
from textual.visual import Visual

from readtrack.text import plain
from readtrack.tui.actions import bindings
from readtrack.tui.widgets import contents

_P = ParamSpec("_P")


class Line(NamedTuple):
    """One line of the screen. `target` is the value for enter; the cursor skips lines with None."""

    content: Content
    target: object | None = None


class LazyLine:
    """A line that is drawn when it becomes visible, because few of many thousands ever do."""

    __slots__ = ("_content", "_draw", "target")

    def __init__(self, draw: Callable[[], Content], target: object | None = None) -> None:
        self._draw = draw
        self._content: Content | None = None
        self.target = target

    @property
    def content(self) -> Content:
        if self._content is None:
            self._content = drawn_line(self._draw)
        return self._content

    def undrawn(self) -> LazyLine:
        """This line, to be drawn again."""
        return self if self._content is None else LazyLine(self._draw, self.target)


Lines: TypeAlias = Sequence[Line | LazyLine]
Build = Callable[[int], Lines]


class GradualLines(Sequence[Line | LazyLine]):
    """Lines that are made block by block, so that the start of a long page is shown before the rest is made.
    Taking the length, or iterating, makes all lines.

    made   the lines so far
    whole  whether all lines have been made
    """

    def __init__(self, blocks: Iterable[Lines]) -> None:
        self.made: list[Line | LazyLine] = []
        self.whole = False
        self._blocks = iter(blocks)

    def make_block(self) -> None:
        try:
            block = next(self._blocks, None)
        except Exception:
            self.whole = True  # a failed generator yields no more lines
            raise
        if block is None:
            self.whole = True
        else:
            self.made.extend(block)

    def all(self) -> list[Line | LazyLine]:
        while not self.whole:
            self.make_block()
        return self.made

    def __len__(self) -> int:
        return len(self.all())

    @overload
    def __getitem__(self, index: int) -> Line | LazyLine: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line | LazyLine]: ...
    def __getitem__(self, index: int | slice) -> Line | LazyLine | list[Line | LazyLine]:
        return self.all()[index]


def gradual(page: Callable[_P, Iterator[Lines]]) -> Callable[_P, GradualLines]:
    """Decorate a generator of blocks so that it returns a page."""

    @wraps(page)
    def made(*args: _P.args, **kwargs: _P.kwargs) -> GradualLines:
        return GradualLines(page(*args, **kwargs))

    return made


EMPTY = Content("")
BLANK = Line(EMPTY)
_TO_SPACES = str.maketrans("\n\t", "  ")
_LABEL = 12  # columns for "control", "shortcut", ...
_CONTEXT = 2  # lines kept in view beyond the cursor
_KEPT = 2000  # maximum number of cached lines
_QUIET = 0.1  # seconds without a key before the rest of a long page is made
_PATIENCE = 0.006  # seconds after which an incomplete page is drawn
_SLICE = 0.008  # seconds for making further lines between two frames


class LineView(ScrollView, can_focus=True, inherit_bindings=False):
    """Shows the lines that `build` makes for a width, and calls it again when the width changes."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("list")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"line-view--cursor"}
    DEFAULT_CSS = """
    LineView {
        overflow-y: scroll;
        scrollbar-size: 1 1;
        overflow-x: hidden;
        text-wrap: nowrap;
        &:focus > .line-view--cursor { background: $cursor; }
        & > .line-view--cursor { background: $cursor-blurred; }
    }
    """
    auto_links = False

    class Chosen(Message):
        """The reader pressed enter, or clicked the line under the cursor."""

        def __init__(self, page: LineView, target: object) -> None:
            self.page = page
            self.target = target
            super().__init__()

        @property
        def control(self) -> LineView:
            return self.page

    class Moved(Message):
        """The cursor moved to another target."""

        def __init__(self, page: LineView, target: object | None) -> None:
            self.page = page
            self.target = target
            super().__init__()

        @property
        def control(self) -> LineView:
            return self.page

    def __init__(self, build: Build | None = None, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._build: Build = build or (lambda width: [])
        self._built_for = 0
        self._pending: object | None = None  # a target to select as soon as there are lines
        self.lines: list[Line | LazyLine] = []  # the lines made so far
        self.cursor: int | None = None
        self._stops: list[int] = []
        self._page = GradualLines([])
        self._strips: dict[int, tuple[Content, tuple[object, ...], Strip]] = {}  # lines as last drawn
        self._rest: Timer | None = None  # runs until the page is complete

    # Content

    @property
    def target(self) -> object | None:
        """The target under the cursor, or the one to select as soon as there are lines."""
        if self._pending is not None:
            return self._pending
        return None if self.cursor is None else self.lines[self.cursor].target

    @property
    def whole(self) -> bool:
        """Whether all lines of the page have been made."""
        return self._rest is None

    def rebuild(self, *, target: object | None = None, top: bool = False) -> None:
        width = self.scrollable_content_region.width
        target = target or self._pending
        if width <= 0:
            self._built_for = 0  # not on the screen yet; built when first drawn
            self._pending = target
            return
        old = (self.lines, self.cursor, self.scroll_offset.y) if self._built_for == width else None
        self._take_lines(width, target, top, least=0 if top or old is None else len(self.lines))
        if old is not None and old[2] == self.scroll_offset.y:
            self._refresh_changed(*old[:2])
        else:
            self.refresh()

    def _take_lines(self, width: int, target: object | None, top: bool, least: int) -> None:
        """Make lines up to the end of the view, up to the target, and at least `least` lines."""
        before = self.target
        self._built_for, self._pending = width, None
        wanted = target if target is not None else before
        at = self.cursor or 0
        self._take_page(width)
        least = max(least, (0 if top else self.scroll_offset.y) + self._height)
        sought = wanted is not None and (target is not None or not top)
        found = self._stop_of(wanted)
        until = math.inf if sought else monotonic() + _PATIENCE
        while len(self.lines) < least or (sought and found is None):
            if monotonic() > until:
                break
            first = len(self._stops)
            if not self._make_block():
                break
            found = self._stop_of(wanted, first) if found is None else found
        self._set_length(width)
        if top:
            self.scroll_to(y=0, animate=False, immediate=True)
            self.cursor = found if target is not None else None
        elif found is None and self._stops and wanted is not None:
            self.cursor = self._stops[min(bisect_left(self._stops, at), len(self._stops) - 1)]
        else:
            self.cursor = found
        if target is not None and self.cursor is not None:
            self._reveal(self.cursor)
        if self.has_focus:
            self._pick_up()
        if self.target != before:
            self.post_message(self.Moved(self, self.target))
        if self._rest is not None:
            self._rest.stop()
        self._rest = None if self._page.whole else self.set_timer(_QUIET, self._go_on)
        if len(self.lines) < least and not self._page.whole:
            self.call_after_refresh(self._go_on)

    def _take_page(self, width: int) -> None:
        try:
            built = self._build(width)
        except Exception as error:
            built = undrawable(error, width)
        self._page = built if isinstance(built, GradualLines) else GradualLines([built])
        if self._page is not built:
            self._page.all()
        self.lines = self._page.made
        self._stops = [index for index, line in enumerate(self.lines) if line.target is not None]

    def _make_block(self) -> bool:
        """Make the next block, and return whether there was one. If drawing fails (data from plugins and
        files may be anything), the page shows the error.
        """
        if self._page.whole:
            return False
        first = len(self.lines)
        try:
            self._page.make_block()
        except Exception as error:
            self.lines += undrawable(error, self._built_for)
        self._stops += [at for at, line in enumerate(self.lines[first:], first) if line.target is not None]
        return True

    def _make(self, least: float) -> None:
        """Make at least `least` lines, if the page has that many."""
        if len(self.lines) < least and not self._page.whole:
            while len(self.lines) < least and self._make_block():
                pass
            self._set_length(self._built_for)

    def _go_on(self) -> None:
        """Make more of a long page: visible lines after each frame, the rest while no key is pressed."""
        first, bottom, now = len(self.lines), self.scroll_offset.y + self._height, monotonic()
        while monotonic() < now + (_PATIENCE if len(self.lines) < bottom else _SLICE):
            if not self._make_block():
                break
        if self._built_for > 0:
            self._set_length(self._built_for)
            for index in range(first, min(len(self.lines), bottom)):
                self._refresh_line(index)
        if self._rest is not None:
            self._rest.stop()
        self._rest = None if self._page.whole else self.set_timer(_SLICE, self._go_on)

    def _stop_of(self, target: object | None, first: int = 0) -> int | None:
        """The index of the line with this target, searched from stop number `first`."""
        stops = (at for at in self._stops[first:] if self.lines[at].target == target)
        return None if target is None else next(stops, None)

    def _refresh_changed(self, lines: Lines, cursor: int | None) -> None:
        """Redraw only visible lines that have changed."""
        top = self.scroll_offset.y
        changed = [index for index in range(top, top + self._height) if self._differs(index, lines, cursor)]
        for first, last in contents.consecutive(changed):  # one region of the screen for each
            self.refresh(Region(0, first - top, self.size.width, last - first + 1))

    def _differs(self, index: int, lines: Lines, cursor: int | None) -> bool:
        now = self.lines[index] if index < len(self.lines) else BLANK
        before = lines[index] if index < len(lines) else BLANK
        return (index == self.cursor) != (index == cursor) or not now.content.is_same(before.content)

    def _set_length(self, width: int) -> None:
        # The scroll bar is always shown, so the length never moves anything else. Setting `virtual_size`
        # itself would lay out the whole screen again, the most expensive part of moving through the list.
        self.set_reactive(LineView.virtual_size, Size(width, len(self.lines)))
        if self._page.whole or self.scroll_offset.y:  # drawing the bar is slow: wait for the final length
            # While everything is in view, the bar is blank and need not be redrawn for each length.
            self.vertical_scrollbar.window_virtual_size = max(len(self.lines), self._height)
        if self.scroll_offset.y > self.max_scroll_y:
            self._scroll(self.max_scroll_y)

    def go_to(self, target: object) -> bool:
        """Move the cursor to `target`, or return False if no line has it."""
        self._make(math.inf)
        found = self._stop_of(target)
        if found is not None:
            self._move_to(found)
        return found is not None

    @property
    def at_end(self) -> bool:
        return self.scroll_offset.y >= self.max_scroll_y

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._built_for:
            self.rebuild()
        if self.cursor is not None and self.has_focus and not self._in_view(self.cursor):
            self._reveal(self.cursor)

    # Drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        """The strips of this part of the page, `crop.width` columns each.

        Textual caches lines by their position on the screen and makes all of them again when the page
        scrolls. This cache keeps a line while it looks the same.
        """
        width, across = self.scrollable_content_region.width, self.region.width
        if width != self._built_for:  # drawn before `on_resize`; avoids an empty frame
            self._take_lines(width, self._pending, top=False, least=0)
        plain, filters, background = self.visual_style, self.get_line_filters(), self.background_colors[1]
        at_cursor = self._cursor_style()
        if len(self._strips) > _KEPT:
            self._strips.clear()
        drawn: list[Strip] = []
        for index in range(crop.y + self.scroll_offset.y, crop.bottom + self.scroll_offset.y):
            content = self._content(index)
            look = (width, across, at_cursor if index == self.cursor else plain, filters, background)
            kept = self._strips.get(index)
            if kept is None or kept[0] is not content or kept[1] != look:
                strip = self._strip(content, width, look[2]).adjust_cell_length(across, plain.rich_style)
                for filter_ in filters:
                    strip = strip.apply_filter(filter_, background)
                kept = self._strips[index] = content, look, strip
            drawn.append(kept[2].crop(crop.x, crop.right))
        return drawn

    def render_line(self, y: int) -> Strip:
        """One visible line. Textual reads its metadata to find the page position under the mouse."""
        index = y + self.scroll_offset.y
        style = self._cursor_style() if index == self.cursor else self.visual_style
        strip = self._strip(self._content(index), self.scrollable_content_region.width, style)
        return strip.apply_offsets(0, index)

    def _content(self, index: int) -> Content:
        """A line with the mouse selection highlighted."""
        content = self.lines[index].content if index < len(self.lines) else EMPTY
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(index)) is not None:
            start, end = span
            chosen = self.screen.get_visual_style("screen--selection")
            content = content.stylize(chosen, start, len(content) if end == -1 else end)
        return content

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def _cursor_style(self) -> Style:
        style = self.get_visual_style("line-view--cursor")
        if self.app.has_class("-no-colours"):
            style += Style(reverse=True) if self.has_focus else Style(underline=True)
        return style

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The text selected with the mouse, without the page's margin."""
        self._make(math.inf)
        chosen = selection.extract("\n".join(line.content.plain for line in self.lines))
        return "\n".join(line.strip() for line in chosen.splitlines()), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def _strip(self, content: Content, width: int, style: Style) -> Strip:
        if not content:
            return Strip.blank(width, style.rich_style)
        visual = content.truncate(width, ellipsis=True, pad=True)
        strips = Visual.to_strips(self, visual, width, 1, style)
        return strips[0] if strips else Strip.blank(width, style.rich_style)

    def on_focus(self) -> None:
        self._pick_up()
        self._refresh_line(self.cursor)

    def _pick_up(self) -> None:
        """If there is no cursor, put it on the first visible stop. Do not scroll, so that the page's head
        stays in view.
        """
        if self.cursor is None and self._stops:
            first = bisect_left(self._stops, self.scroll_offset.y)
            if first < len(self._stops) and self._in_view(self._stops[first]):
                self._put_cursor(self._stops[first])

    def on_blur(self) -> None:
        self._refresh_line(self.cursor)

    def _refresh_line(self, index: int | None) -> None:
        if index is not None:
            self.refresh(Region(0, index - self.scroll_offset.y, self.size.width, 1))

    # Moving

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def _in_view(self, index: int) -> bool:
        return self.scroll_offset.y <= index < self.scroll_offset.y + self._height

    def _move_to(self, index: int) -> None:
        self._reveal(index)
        self._put_cursor(index)

    def _put_cursor(self, index: int) -> None:
        before, self.cursor, self._pending = self.cursor, index, None
        self._refresh_line(before)
        self._refresh_line(index)
        if before is None or before != index:
            self.post_message(self.Moved(self, self.lines[index].target))

    def _reveal(self, index: int) -> None:
        top, height = self.scroll_offset.y, self._height
        context = min(_CONTEXT, (height - 1) // 2)
        # At the first stop, also show the lines above it, such as a heading.
        wanted_top = 0 if self._stops and index == self._stops[0] and index < height else index - context
        if wanted_top < top:
            self._scroll(wanted_top)
        elif index + context >= top + height:
            self._scroll(index + context - height + 1)

    def _scroll(self, y: int) -> None:
        self.scroll_to(y=max(0, min(y, self.max_scroll_y)), animate=False, immediate=True)

    def scroll_to_line(self, index: int) -> None:
        """Scroll a line to the top, or as far as the page's length allows."""
        self._scroll(index)

    def _step(self, direction: int) -> None:
        """Move to the next stop if it is in view or just outside; otherwise scroll towards it."""
        top, height = self.scroll_offset.y, self._height
        self._make(top + height + 1 + _CONTEXT)
        visible = range(top, top + height)
        start = self.cursor
        if start is None or start not in visible:
            start = top - 1 if direction > 0 else top + height
        place = bisect_right(self._stops, start) if direction > 0 else bisect_left(self._stops, start) - 1
        stop = self._stops[place] if 0 <= place < len(self._stops) else None
        if stop is not None and top - _CONTEXT <= stop < top + height + _CONTEXT:
            self._move_to(stop)
        else:
            self._scroll(top + direction)

    def _jump(self, lines: int) -> None:
        """Scroll by `lines` and move the cursor to the nearest stop."""
        target = (self.cursor if self.cursor is not None else self.scroll_offset.y) + lines
        self._make(self.scroll_offset.y + max(lines, 0) + self._height + _CONTEXT)
        self._scroll(self.scroll_offset.y + lines)
        if self.cursor is not None and self._stops:
            place = min(bisect_left(self._stops, target), len(self._stops) - 1)
            if lines < 0 and place > 0 and self._stops[place] > target:
                place -= 1
            self._move_to(self._stops[place])

    def action_down(self) -> None:
        self._step(1)

    def action_up(self) -> None:
        self._step(-1)

    def action_first(self) -> None:
        if self._stops and self.cursor is not None:
            self._move_to(self._stops[0])
        self._scroll(0)

    def action_last(self) -> None:
        self._make(math.inf)
        if self._stops and self.cursor is not None:
            self._move_to(self._stops[-1])
        self._scroll(self.max_scroll_y)

    def action_page_down(self) -> None:
        self._jump(self._height - 1)

    def action_page_up(self) -> None:
        self._jump(1 - self._height)

    def action_half_down(self) -> None:
        self._jump(self._height // 2)

    def action_half_up(self) -> None:
        self._jump(-(self._height // 2))

    def action_choose(self) -> None:
        if self.target is not None:
            self.post_message(self.Chosen(self, self.target))

    def on_click(self, event: events.Click) -> None:
        if self.screen.get_selected_text():
            return  # the mouse was dragged over text
        index = event.y + self.scroll_offset.y
        if index < len(self.lines) and self.lines[index].target is not None:
            if index == self.cursor:
                self.action_choose()
            else:
                self._move_to(index)


# Helpers for making lines. They take text from outside as data, without markup or control codes.


def text(value: object, style: str = "") -> Content:
    """Plain text on one line. Spaces are kept, because they separate the parts of a line."""
    return Content.styled(plain(str(value)).translate(_TO_SPACES), style)


def join(*parts: Content | tuple[object, str] | str) -> Content:
    """Join parts side by side; a tuple is (text, style)."""
    return contents.joined(text(*part) if isinstance(part, tuple) else part for part in parts)


def undrawable(error: Exception, width: int) -> list[Line]:
    """Lines with the error, shown in place of a page that could not be drawn."""
    why = f"{type(error).__name__}: {error}".rstrip(".")
    return [
        BLANK,
        *wrapped(text("Could not draw this page.", "bold $bad"), width, indent=1),
        *wrapped(f"Why: {why}.", width, indent=1),
        *wrapped("Next step: `readtrack show` and `readtrack results` print it as text.", width, indent=1),
    ]


def drawn_line(draw: Callable[[], Content]) -> Content:
    """The line that `draw` makes, or its error."""
    try:
        return draw()
    except Exception as error:
        return text(f"cannot be drawn: {type(error).__name__}: {error}", "$bad")


def wrapped(
    value: Content | str, width: int, style: str = "", *, indent: int = 0, target: object | None = None
) -> list[Line]:
    """Paragraphs wrapped to `width`, each line indented by `indent`."""
    return [Line(one, target) for one in contents.wrapped(value, max(8, width - indent), style, indent)]


def heading(words: str, more: str = "") -> Line:
    return Line(join(" ", (words, "bold $link"), "  ", (more, "$muted")).rstrip())


def labelled(label: str, value: Content | str, width: int, style: str = "") -> list[Line]:
    """`label` in its own column and the wrapped value next to it; nothing for an empty value."""
    if not value:
        return []
    lines = wrapped(value, width, style, indent=_LABEL)
    first = join((f"   {label}".ljust(_LABEL), "$muted"), lines[0].content.divide([_LABEL])[1])
    return [Line(first), *lines[1:]]


def pair(left: Content, right: Content, width: int) -> Content:
    """`left`, cut if necessary, and `right` at the right edge."""
    if not right:
        return left.truncate(width, ellipsis=True)
    room = max(0, width - right.cell_length - 1)
    return join(left.truncate(room, ellipsis=True, pad=True), " ", right)


def beside(left: list[Line], right: list[Line], left_width: int, gap: int = 3) -> list[Line]:
    """Two columns of lines. Only lines of the left column can be targets."""
    rows = max(len(left), len(right))
    left = left + [BLANK] * (rows - len(left))
    right = right + [BLANK] * (rows - len(right))
    return [
        Line(join(a.content.truncate(left_width, ellipsis=True, pad=True), " " * gap, b.content), a.target)
        for a, b in zip(left, right, strict=True)
    ]
