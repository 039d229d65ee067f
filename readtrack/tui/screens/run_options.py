"""Dialog for a run with options: budget, part of the run, precision, device, place, seed, settings. Shows the
equivalent command.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, get_args

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from readtrack.bench.case import Budget
from readtrack.errors import ReadtrackError
from readtrack.plugins.find import PluginRef
from readtrack.runs import settings
from readtrack.tui.device_list import Devices
from readtrack.tui.screens.dialog import Dialog
from readtrack.tui.widgets.line_view import join, text

_BOTH = "both"
_HERE = "here"


@dataclass(frozen=True, slots=True)
class Options:
    """The chosen options; `fields` are the arguments of `new_job`."""

    device: str = "auto"
    dtype: str = "auto"
    budget: str = "quick"
    only: str = _BOTH
    seed: str = "0"
    settings: str = ""
    place: str = _HERE
    fields: Mapping[str, Any] = field(default_factory=dict)

    def checked(self) -> Options:
        """A copy with `fields` filled in. Raises a ReadtrackError that names the invalid option."""
        try:
            seed = int(self.seed)
        except ValueError as error:
            raise ReadtrackError(f"seed {self.seed!r} is not a whole number.") from error
        chosen = {
            "device": self.device.strip() or "auto",
            "dtype": self.dtype,
            "budget": self.budget,
            "only": None if self.only == _BOTH else self.only,
            "seed": seed,
            "settings": settings.parse(settings.words(self.settings)),
            "place": "" if self.place == _HERE else self.place,
        }
        return replace(self, fields=chosen)

    def command(self, paper: str) -> str:
        """The command for the same run."""
        words = ["readtrack", "run", paper]
        for name, value, usual in (
            ("device", self.device.strip(), "auto"),
            ("dtype", self.dtype, "auto"),
            ("budget", self.budget, "quick"),
            ("only", self.only, _BOTH),
            ("seed", self.seed.strip(), "0"),
        ):
            if value not in ("", usual):
                words += [f"--{name}", value]
        for pair in self._pairs():
            words += ["--set", pair]
        if self.place != _HERE:
            words += ["--on", self.place]
        return shlex.join(words)

    def _pairs(self) -> list[str]:
        try:
            return settings.words(self.settings)
        except ReadtrackError:
            return [self.settings]  # the closing quote has not been typed yet


class Selector(Widget, can_focus=True):
    """Selects one of a few words with the left and right arrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "turn(-1)", show=False),
        Binding("right,l,space", "turn(1)", show=False),
    ]
    value: reactive[str] = reactive("")

    class Changed(Message):
        """The selection changed."""

    def __init__(self, words: tuple[str, ...], value: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._words = words
        self.set_reactive(Selector.value, value if value in words else words[0])

    def offer(self, words: tuple[str, ...]) -> None:
        """Replace the words. The current selection is kept if it is among them."""
        self._words = words
        self.value = self.value if self.value in words else words[0]
        self.refresh()

    def render(self) -> Content:
        left, right = "‹›" if self.has_focus else "[]"
        chosen = join((f"{left}{self.value}{right}", "bold $heading"))
        parts = [chosen if word == self.value else join((f" {word} ", "$muted")) for word in self._words]
        line = Content(" ").join(parts)
        if line.cell_length <= self.size.width:
            return line
        place = self._words.index(self.value) + 1
        return join(chosen, (f"  {place} of {len(self._words)}", "$muted"))

    def action_turn(self, step: int) -> None:
        # No wrap-around, because one press too many at smoke would select full.
        place = self._words.index(self.value) + step
        self.value = self._words[min(max(place, 0), len(self._words) - 1)]
        self.post_message(self.Changed())


class RunOptions(Dialog[Options | None]):
    """Returns the options, or None on escape."""

    CSS_PATH: ClassVar = "run_options.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", show=False),
        Binding("enter", "start", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(
        self,
        paper: str,
        options: Options,
        devices: Devices | None,
        *,
        plugins: Mapping[str, PluginRef] = MappingProxyType({}),
        places: Sequence[str] = (),
    ) -> None:
        """devices: this machine's devices; None if they come later (`offer_devices`). plugins: source of the
        paper's settings. places: names of other machines.
        """
        super().__init__()
        self._paper = paper
        self._plugins = plugins
        # Created here, because enter may arrive before the widgets are composed.
        self._budget = Selector(get_args(Budget), options.budget, id="budget")
        self._only = Selector((_BOTH, "experiment", "benchmark"), options.only, id="only")
        dtypes = ("auto", "float32", "bfloat16", "float16", "float64")
        self._dtype = Selector(dtypes, options.dtype, id="dtype")
        self._descriptions = dict(devices or ())
        self._device = Selector(("auto", *(self._descriptions or ("cpu",))), options.device, id="device")
        self._about_device = Static("looking for other devices ...", classes="beside", markup=False)
        self._places = tuple(places)
        self._place = Selector((_HERE, *places), options.place, id="place")
        self._seed = Input(options.seed, id="seed")
        self._settings = Input(options.settings, id="settings")
        self._command = Static(id="command", markup=False)
        self._show_device()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Run {self._paper}", classes="question", markup=False)
            yield from _field("budget", self._budget)
            yield from _field("run", self._only)
            yield from _field("dtype", self._dtype)
            yield from _field("device", self._device, self._about_device)
            if self._places:
                yield from _field("where", self._place)
            yield from _field("seed", self._seed, _beside("a whole number"))
            yield from _field("settings", self._settings, _beside("name=value name=value"))
            yield self._command
            yield Static("enter runs, ↑ ↓ move, ← → change, esc goes back", classes="hint", markup=False)

    def on_mount(self) -> None:
        self._budget.focus()
        self._show_command()

    def _chosen(self) -> Options:
        return Options(
            self._device.value,
            self._dtype.value,
            self._budget.value,
            self._only.value,
            self._seed.value,
            self._settings.value,
            self._place.value,
        )

    def on_input_changed(self) -> None:
        self._show_command()

    def on_selector_changed(self) -> None:
        self._show_command()
        self._show_device()

    def offer_devices(self, devices: Devices) -> None:
        """Offer the available devices. "auto" means the first of them."""
        self._descriptions = dict(devices)
        self._device.offer(("auto", *self._descriptions))
        self._show_device()

    def _show_device(self) -> None:
        name = self._device.value
        if name == "auto":
            name = next(iter(self._descriptions), name)
        if name in self._descriptions:
            words = f"{name}: " if self._device.value == "auto" else ""
            self._about_device.update(text(f"{words}{self._descriptions[name]}"))

    def _show_command(self) -> None:
        command = self._chosen().command(self._paper)
        self._command.update(join(("$ ", "$faint"), (command, "$muted")))

    def action_start(self) -> None:
        try:
            options = self._chosen().checked()
            if options.only != "benchmark":  # a benchmark takes no settings; the run reports them
                settings.check(options.fields["settings"], self._paper, self._plugins)
        except ReadtrackError as error:
            self._command.update(text(str(error), "$bad"))
        else:
            self.dismiss(options)


def _field(label: str, widget: Widget, *beside: Widget) -> ComposeResult:
    with Horizontal(classes="field"):
        yield Static(label, classes="label", markup=False)
        yield widget
        yield from beside


def _beside(hint: str) -> Static:
    return Static(hint, classes="beside", markup=False)
