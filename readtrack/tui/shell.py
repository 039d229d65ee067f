"""The part of the app that controllers and screens use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.message import Message
    from textual.screen import Screen
    from textual.timer import Timer

    from readtrack.library import Library
    from readtrack.tui.widgets.outline import Entry

T = TypeVar("T")


class Shell(Protocol):
    """The app. Threads may use only `library` and `call_from_thread`."""

    library: Library

    @property
    def entry(self) -> Entry | None:
        """The selected line, which the details show and which keys act on."""

    def say(self, *parts: object) -> None:
        """Show a line above the footer for a few seconds."""

    def fail(self, what: str, why: object, next_step: str) -> None:
        """Report a failed action in three lines: what failed, why, and the next step."""

    def warn(self, message: str) -> None:
        """Show a message over the screen, without interpreting markup."""

    def ask(self, dialog: Screen[T], answered: Callable[[T | None], None] | None = None) -> None:
        """Open a screen over the others. `answered` gets its result."""

    def post(self, news: Message) -> None:
        """Send a message of `tui.news` to every open screen."""

    def in_background(self, what: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread and report exceptions. It replaces earlier work with the same name."""

    def reload(self) -> None:
        """Read the list again."""

    def show_paper(self, subject: str) -> None:
        """Go to a paper's details."""

    def open_address(self, address: str | Path) -> None:
        """Open a link or a file in the system's viewer."""

    # Textual's own

    @property
    def is_running(self) -> bool: ...

    def call_from_thread(self, callback: Callable[..., Any], *args: Any) -> Any: ...

    def run_worker(self, work: Any, *, group: str, exit_on_error: bool, thread: bool = False) -> object: ...

    def set_timer(self, delay: float, callback: Callable[[], object]) -> Timer: ...

    def copy_to_clipboard(self, text: str) -> None: ...

    def exit(self, result: int) -> None: ...

    def suspend(self) -> AbstractContextManager[None]: ...
