"""Base classes of all dialogs."""

from __future__ import annotations

from typing import Generic

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, Screen, ScreenResultType


class Answering(Screen[ScreenResultType], Generic[ScreenResultType]):
    """A screen that returns an answer."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Accept only the first answer. Pressing enter twice must not close the screen below as well."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Dialog(ModalScreen[ScreenResultType], Answering[ScreenResultType], Generic[ScreenResultType]):
    """A screen over another screen.

    Subclasses create their widgets in `__init__` and yield them in `compose`, because keys and messages may
    arrive in between.
    """
