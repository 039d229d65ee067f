"""The input of the list's filter."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input


class Filter(Input):
    """Calls `done` on enter. Keys typed right after enter may still arrive here; they are passed on to the
    app, so that `/bert`, enter, `r` runs the paper at any typing speed.
    """

    # Textual's input lays out the whole screen for each letter, as if its size could change.
    virtual_size = Reactive(Size(0, 0), layout=False)

    def __init__(self, done: Callable[[], None], *, placeholder: str, id: str) -> None:  # noqa: A002
        super().__init__(placeholder=placeholder, id=id)
        self._done = done

    def on_key(self, event: events.Key) -> None:
        typing = self.screen.focused is self
        if typing and event.key != "enter":
            return
        event.stop()
        event.prevent_default()
        if typing:
            self._done()
        else:
            self.app.post_message(events.Key(event.key, event.character))
