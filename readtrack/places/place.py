"""places.yaml: the reader's own names for other machines.

big:                       # readtrack run PAPER --on big
  kind: ssh
  host: gpu1               # any Host of ~/.ssh/config
  python: ~/envs/readtrack/bin/python
cluster:
  kind: slurm
  host: login              # left out: sbatch runs on this machine
  python: /shared/readtrack/bin/python
  home: /shared/me/readtrack
  minutes: 60
  parameters: {partition: gpu, gpus_per_node: 1}
pool:
  kind: dask
  scheduler: tls://10.0.0.5:8786
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from readtrack.errors import ReadtrackError
from readtrack.home import Home, write_text
from readtrack.reading_list.yaml_tree import Node, Problem, described, read
from readtrack.text import nearest, one_line, quoted

Kind = Literal["ssh", "slurm", "dask"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# A leading dash would make it an option of the ssh program.
_HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:@%\[\]-]*")
_KEYS: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {  # required, optional
    "ssh": (("host",), ("python", "home")),
    "slurm": ((), ("host", "python", "home", "minutes", "parameters")),
    "dask": (("scheduler",), ("home",)),
}


class PlacesError(ReadtrackError):
    """places.yaml is invalid: `places.yaml:3: problem; solution`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One machine, or several under one name.

    host       a host in the reader's ssh configuration; "" is this machine (SLURM only)
    python     the remote interpreter, in an environment with readtrack and PyTorch
    home       the remote folder for runs, "" for the default; on a cluster, one that all nodes share
    minutes    SLURM's time limit for a run
    parameters of submitit's executor, without the prefix `slurm_`
    scheduler  Dask's address
    """

    name: str
    kind: Kind
    host: str = ""
    python: str = "python3"
    home: str = ""
    minutes: int = 60
    parameters: dict[str, str] = field(default_factory=dict)
    scheduler: str = ""

    @property
    def where(self) -> str:
        return self.scheduler or self.host or "this machine"

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the scheduler, and it trusts everyone who does.

        Dask sends pickles both ways, so whoever can talk to the scheduler can run code on every client and
        worker.
        """
        transport, _, address = self.scheduler.rpartition("://")
        host = address.rpartition(":")[0] or address
        return bool(host) and transport not in ("tls", "wss") and not _is_loopback(host.strip("[]"))

    @property
    def machine(self) -> str:
        """A digest that identifies the machine. Its Python and its time limit may change."""
        parts = json.dumps([self.kind, self.host, self.home, self.scheduler])
        return hashlib.sha256(parts.encode()).hexdigest()


def file(home: Home) -> Path:
    return home.root / "places.yaml"


def load(home: Home) -> dict[str, Place]:
    """The places by name; none if there is no file. Raises PlacesError."""
    path = file(home)
    if not path.exists():
        return {}
    try:
        return _places(read(path))
    except Problem as problem:
        at = f"{path}:{problem.line}" if problem.line else str(path)
        raise PlacesError(f"{at}: {problem}") from None


def add(home: Home, name: str, fields: dict[str, str]) -> None:
    """Append a place to places.yaml, without changing the rest.

    Raises ReadtrackError if the place exists already, the fields are invalid, or the file cannot be written.
    """
    import yaml

    path = file(home)
    try:
        with home.lock("places"):
            if name in load(home):
                raise ReadtrackError(f"there is a place {name} already, in {path}.")
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            between = "" if before.endswith("\n") or not before else "\n"
            write_text(path, before + between + yaml.safe_dump({name: fields}, sort_keys=False))
            try:
                load(home)
            except ReadtrackError:
                if before:
                    write_text(path, before)
                else:
                    path.unlink()
                raise
    except OSError as error:  # includes the timeout of the lock
        raise ReadtrackError(
            f"The place {name} could not be written to {path}: {error.strerror or error}. "
            "Make room there, or set READTRACK_HOME to a writable folder."
        ) from error


def find(home: Home, name: str) -> Place:
    """The place of that name. Raises ReadtrackError if there is none."""
    places = load(home)
    if name not in places:
        known = nearest(name, places, "`readtrack places add` adds one") if places else "there are none yet: "
        hint = known if places else f"{known}`readtrack places add {name} --host HOST` adds one"
        raise ReadtrackError(f"there is no place {quoted(name)}; {hint}.")
    return places[name]


def _places(root: Node) -> dict[str, Place]:
    if root.value is None:
        return {}
    if not isinstance(root.value, dict):
        raise Problem(
            root.line, f"the file is {described(root)}; it must consist of names of places, each with 'kind:'"
        )
    return {name: _place(name, node) for name, node in root.value.items()}


def _place(name: str, node: Node) -> Place:
    if not _NAME.fullmatch(name):
        text = f"{quoted(name)} is not a valid name for a place; use letters, digits, '_', '-' and '.'"
        raise Problem(node.line, text)
    if not isinstance(node.value, dict):
        text = f"the place {name} is {described(node)}; it must have keys such as 'kind: ssh'"
        raise Problem(node.line, text)
    fields = dict(node.value)
    kind = _kind(name, node.line, fields.pop("kind", None))
    required, optional = _KEYS[kind]
    known = (*required, *optional)
    for key, item in fields.items():
        if key not in known:
            hint = nearest(key, known, f"a {kind} place may have {', '.join(known)}")
            raise Problem(item.line, f"unknown key {quoted(key)}; {hint}")
    for key in required:
        if key not in fields:
            raise Problem(node.line, f"the {kind} place {name} has no {key}; add '{key}: ...'")
    readers: dict[str, Callable[[Node], Any]] = {
        "minutes": _minutes,
        "parameters": _parameters,
        "host": _host,
    }
    found = {key: readers.get(key, partial(_text, what=key))(item) for key, item in fields.items()}
    return Place(name=name, kind=kind, **found)


def _kind(name: str, line: int, node: Node | None) -> Kind:
    if node is None:
        raise Problem(line, f"the place {name} has no kind; add 'kind: ssh', 'slurm' or 'dask'")
    text = _text(node, "kind")
    for kind in get_args(Kind):
        if kind == text:
            return cast(Kind, kind)
    raise Problem(
        node.line, f"unknown kind {quoted(text)}; {nearest(text, _KEYS, 'one of ssh, slurm, dask')}"
    )


def _host(node: Node) -> str:
    text = _text(node, "host")
    if not _HOST.fullmatch(text):
        raise Problem(node.line, f"{quoted(text)} is not the name of a host")
    return text


def _minutes(node: Node) -> int:
    text = _text(node, "minutes")
    if not (text.isascii() and text.isdigit() and int(text)):
        raise Problem(node.line, f"minutes is {quoted(text)}; it must be a whole number, such as 60")
    return int(text)


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(node: Node, what: str) -> str:
    if not isinstance(node.value, str) or not node.value.strip():
        raise Problem(node.line, f"{what} is {described(node)}; it must be text")
    return one_line(node.value).strip()


def _parameters(node: Node) -> dict[str, str]:
    if not isinstance(node.value, dict):
        raise Problem(node.line, f"parameters is {described(node)}; it must be a mapping: {{partition: gpu}}")
    return {name: _text(item, name) for name, item in node.value.items()}
