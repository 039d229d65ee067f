"""Makes the app's key bindings and footers from the table of actions."""

from __future__ import annotations

from collections.abc import Callable

from textual.binding import Binding, BindingType

from readtrack.home import Home
from readtrack.present.actions import ACTIONS, BY_ID, Action, Where, remap, where

# Names of action methods. While the reader types text, their keys type letters.
TYPING = {(one.call or one.id).removeprefix("app.") for one in ACTIONS if one.precedes_typing}
_MOST = 9  # actions in a footer


def bindings(place: Where) -> list[BindingType]:
    """The key bindings of one kind of widget, for its `BINDINGS`."""
    return [bound(one.id, one.call or one.id, priority=one.precedes_typing) for one in where(place)]


def bound(action_id: str, call: str, *, priority: bool = False) -> Binding:
    """Bind an action's keys to a method. The app's keymap can override the keys by the binding's id."""
    return Binding(",".join(BY_ID[action_id].default_keys), call, id=action_id, show=False, priority=priority)


def read_keys(home: Home) -> tuple[dict[str, str], list[str]]:
    """Read `keys.yaml`, change the actions' keys, and return Textual's keymap and the file's problems."""
    keys: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    if home.keys_yaml.exists():
        from readtrack.present import keymap

        keys, problems = keymap.read(home.keys_yaml)
    remap(keys)
    # Textual separates keys with commas.
    return {name: ",".join("comma" if one == "," else one for one in keys[name]) for name in keys}, problems


def hints(places: set[Where], applies: Callable[[str], bool]) -> list[Action]:
    """The actions in the footer of the widgets in `places`, most important first. `? help` is always
    included.
    """
    wanted = [
        one for one in ACTIONS if one.footer_rank is not None and one.where in places and applies(one.id)
    ]
    return sorted(wanted, key=lambda one: one.footer_rank or 0)[:_MOST]
