"""Checkpoints of attempts and loops, from which a stopped run can be resumed.

A resumed run starts its experiment from the beginning. A saved attempt returns its result at once. A loop
that passes its state to `steps` starts at the step of its last checkpoint. Both emit their events again.
Everything else is recomputed from the same seeds.

The files are pickles in the home's cache, which is neither merged, imported nor sent anywhere.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import re
import shutil
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import readtrack
from readtrack.home import Home, replacing
from readtrack.text import one_line

if TYPE_CHECKING:
    import torch

    from readtrack.runs.events import EventWriter

T = TypeVar("T")
Note = tuple[str, dict[str, Any], bytes]  # an event, its fields, and the content of an artifact's file

EVERY = 60.0  # seconds between two checkpoints of a loop
_WORTH = 1.0  # seconds; shorter attempts are recomputed
_AGAIN = (
    "metric",
    "artifact",
    "log",
    "axes",
    "headline",
    "meaning",
    "warning",
)  # events that are emitted again


def folder(home: Home, run_id: str) -> Path:
    """The folder of a run's checkpoints. Raises ValueError for an invalid run id."""
    if not re.fullmatch(r"\w[\w.-]*", run_id):
        raise ValueError(f"{run_id!r} is not a run id")
    return home.cache / "checkpoints" / run_id


@dataclass(slots=True)
class _Scope:
    """The experiment, or an attempt within it.

    counts  how often each name of an attempt or loop was used within it
    drawn   generators made within it, by stream and number of requests
    notes   events emitted within it
    """

    key: str
    counts: Counter[str] = field(default_factory=Counter)
    drawn: dict[str, weakref.ref[torch.Generator]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run. Without a folder nothing is saved.

    every     seconds between two checkpoints of a loop
    artifact  called with the path of each artifact that is listed again
    """

    def __init__(
        self,
        folder: Path | None,
        events: EventWriter,
        run_folder: Path,
        *,
        every: float = EVERY,
        artifact: Callable[[str], None] = lambda path: None,
    ) -> None:
        self._folder = folder
        self._events = events
        self._run_folder = run_folder
        self._artifact = artifact
        self._every = every
        self._worth = min(_WORTH, every)
        self._scopes = [_Scope("")]
        if folder is not None:
            events.heard = self._hear

    def cell(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make`, or the saved one. It must depend only on seeds and `name`."""
        if self._folder is None:
            return make()
        key = self._key(name)
        if (kept := self._load(key)) is not None:
            self._again(kept)
            found: T = kept["result"]
            return found
        start = time.monotonic()
        self._scopes.append(_Scope(key))
        try:
            result = make()
        finally:
            scope = self._scopes.pop()
            self._scopes[-1].notes += scope.notes
        if time.monotonic() - start >= self._worth and self._save(key, {"result": result}, scope.notes):
            for loop in self._folder.glob(f"{_digest(key)}-*.pt"):
                loop.unlink()
        return result

    def drew(self, stream: str, generator: torch.Generator) -> None:
        """Include the state of this generator in checkpoints from now on."""
        if self._folder is not None:
            self._scopes[-1].drawn[self._key(f"stream {stream}")] = weakref.ref(generator)

    def loop(self, label: str, state: Sequence[Any]) -> Loop:
        """Begin a loop over steps whose whole state is `state`; () for a loop without checkpoints."""
        if self._folder is None or not state:
            return Loop()
        for one in state:
            _taken(one)  # raises TypeError now instead of minutes later
        key = self._key(label)
        scope = self._scopes[-1]
        first = len(scope.notes)
        loop = Loop(self._every, self._worth)
        if (kept := self._load(key)) is not None:
            for one, was in zip(state, kept["state"], strict=True):
                _put_back(one, was)
            self._again(kept)
            loop.start = loop.saved = kept["step"]

        def save(step: int) -> None:
            taken = {"step": step, "state": [_taken(one) for one in state]}
            self._save(key, taken, scope.notes[first:])

        loop.save = save
        return loop

    def discard(self) -> None:
        """Delete all checkpoints, because the run is complete."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _key(self, name: str) -> str:
        scope = self._scopes[-1]
        scope.counts[name] += 1
        return f"{scope.key}\0{name}\0{scope.counts[name]}"

    def _path(self, key: str) -> Path:
        """The file name of a loop within an attempt begins with the attempt's file name."""
        assert self._folder is not None
        scope = self._scopes[-1].key
        return self._folder / f"{_digest(scope) + '-' if scope else ''}{_digest(key)}.pt"

    def _hear(self, event: str, fields: dict[str, Any]) -> None:
        if event in _AGAIN:
            content = (self._run_folder / fields["path"]).read_bytes() if event == "artifact" else b""
            self._scopes[-1].notes.append((event, fields, content))

    def _again(self, kept: dict[str, Any]) -> None:
        for event, fields, content in kept["notes"]:
            if event == "artifact":
                path = self._run_folder / fields["path"]
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                self._artifact(path.name)
            self._events.emit(event, **fields)
        _set_random(kept["random"], self._generators())

    def _generators(self) -> dict[str, torch.Generator]:
        refs = ((key, ref()) for scope in self._scopes for key, ref in scope.drawn.items())
        return {key: one for key, one in refs if one is not None}

    def _save(self, key: str, what: dict[str, Any], notes: list[Note]) -> bool:
        import torch

        path = self._path(key)
        kept = {**what, "notes": notes, "random": _random(self._generators()), "key": key}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                torch.save(kept, part)
        except (pickle.PicklingError, AttributeError, TypeError, OSError, RuntimeError) as error:
            # The result has a local class, or the disk is full. The run continues without the checkpoint.
            self._events.emit("log", text=f"no checkpoint of {_shown(key)}: {one_line(str(error))[:200]}")
            return False
        return True

    def _load(self, key: str) -> dict[str, Any] | None:
        import torch

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            kept: dict[str, Any] = torch.load(path, weights_only=False)
        except Exception as error:  # whatever the damage, recompute
            self._events.emit(
                "log", text=f"the checkpoint of {_shown(key)} is damaged ({type(error).__name__})"
            )
            return None
        return kept


@dataclass(slots=True)
class Loop:
    """A loop over steps, with its first remaining step and its checkpoints (by default none)."""

    every: float = 0.0
    worth: float = 0.0
    start: int = 0
    saved: int = 0  # step of the last checkpoint
    save: Callable[[int], None] | None = None
    at: float = field(default_factory=time.monotonic)

    def reached(self, step: int, total: int, *, stopping: bool = False) -> None:
        """Save the state before `step` when a checkpoint is due.

        The last step is not skipped when a finished loop is resumed, so that variables set in its body are
        set again.
        """
        if self.save is None or step == self.saved or not 0 < step < total:
            return
        since = time.monotonic() - self.at
        if since >= self.every or (since >= self.worth and (stopping or step == total - 1)):
            self.save(step)
            self.saved, self.at = step, time.monotonic()


def _taken(one: Any) -> Any:
    """The state of an object that a loop passes to `steps`. Raises TypeError if it has none."""
    import torch

    if hasattr(one, "state_dict") and hasattr(one, "load_state_dict"):
        return one.state_dict()
    if isinstance(one, torch.Tensor):
        return one.detach()
    if isinstance(one, random.Random):
        return one.getstate()
    if isinstance(one, list | dict):
        return one
    raise TypeError(
        f"steps(state=...): {type(one).__name__} has no state to save. Pass modules, optimisers, "
        "schedules, tensors, lists, dictionaries and random.Random. Torch's generators are always saved."
    )


def _put_back(one: Any, was: Any) -> None:
    import torch

    if isinstance(one, torch.Tensor):
        with torch.no_grad():
            one.copy_(was)
    elif isinstance(one, random.Random):
        one.setstate(was)
    elif isinstance(one, list):
        one[:] = was
    elif isinstance(one, dict):
        one.clear()
        one.update(was)
    else:
        one.load_state_dict(was)


def _random(generators: Mapping[str, torch.Generator]) -> dict[str, Any]:
    """The state of all random number generators: Python's, torch's, numpy's, and `generators`."""
    import torch

    found = {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "generators": {key: one.get_state() for key, one in generators.items()},
    }
    if "numpy" in sys.modules:
        found["numpy"] = sys.modules["numpy"].random.get_state()
    return found


def _set_random(was: dict[str, Any], generators: Mapping[str, torch.Generator]) -> None:
    import torch

    random.setstate(was["python"])
    torch.set_rng_state(was["torch"])
    if was["cuda"]:
        torch.cuda.set_rng_state_all(was["cuda"])
    if "numpy" in was:
        import numpy as np

        np.random.set_state(was["numpy"])
    for key in generators.keys() & was["generators"].keys():
        generators[key].set_state(was["generators"][key])


def _digest(key: str) -> str:
    """A hash that includes the versions of readtrack and torch, so other versions do not read the file."""
    import torch

    facts = f"{readtrack.__version__}\0{torch.__version__}\0{key}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _shown(key: str) -> str:
    return one_line(key.replace("\0", " "))
