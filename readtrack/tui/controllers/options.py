"""Opens the dialog for a run with options, with the last choices and the available devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.tui.device_list import DeviceList

if TYPE_CHECKING:
    from readtrack.tui.screens.run_options import Options
    from readtrack.tui.shell import Shell


class OptionsController:
    """Calls `start` with the paper and the chosen options."""

    def __init__(self, shell: Shell, start: Callable[[str, Options], None]) -> None:
        self._shell = shell
        self._start = start
        self._last: Options | None = None
        self._devices = DeviceList()

    def ask(self, paper: str) -> None:
        from readtrack.places import place
        from readtrack.tui.screens.run_options import Options, RunOptions

        library = self._shell.library
        try:
            places = list(place.load(library.home))
        except ReadtrackError as error:
            self._shell.fail("read your places", error, "fix that line. Runs on this machine still start.")
            places = []

        def chosen(options: Options | None) -> None:
            if options is not None:
                self._last = options
                self._start(paper, options)

        dialog = RunOptions(
            paper,
            self._last or Options(),
            self._devices.found,
            plugins=library.runnable(),
            places=places,
        )
        self._shell.ask(dialog, chosen)
        if self._devices.found is None:
            offer = partial(self._shell.call_from_thread, dialog.offer_devices)
            self._shell.in_background("list the devices", lambda: offer(self._devices.ask()))

    def leave(self) -> None:
        self._devices.leave()
