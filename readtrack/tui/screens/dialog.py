"""The base of all dialogs: one answer, and widgets that are there before they are drawn."""

from __future__ import annotations

from typing import Generic

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, Screen, ScreenResultType


class Answering(Screen[ScreenResultType], Generic[ScreenResultType]):
    """A screen that ends with an answer."""

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """The first answer counts: enter pressed twice must not close the screen below as well."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class Dialog(ModalScreen[ScreenResultType], Answering[ScreenResultType], Generic[ScreenResultType]):
    """A screen over the screen.

    Subclasses make their widgets in `__init__` and yield them in `compose`: keys and news may come between.
    """
