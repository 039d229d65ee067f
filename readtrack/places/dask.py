"""A Dask scheduler: a run is one task, and requests to an agent go to all workers at once."""

from __future__ import annotations

import time
from typing import Any

import distributed

from readtrack.places import agent, answers, folders, shepherd
from readtrack.places.errors import Refused, Unreachable
from readtrack.places.place import Place

_PATIENCE = 15  # seconds for the scheduler to answer
_TICK = 0.01  # seconds

_COMING = ("released", "waiting", "no-worker", "queued", "processing")  # states of an unfinished task


class DaskLink:
    """A connection to a Dask scheduler.

    Raises Unreachable if there is none, Refused if it has no workers or they run another version of
    readtrack.
    """

    def __init__(self, place: Place) -> None:
        self._home = place.home
        try:
            self._client = distributed.Client(place.scheduler, timeout=_PATIENCE, set_as_default=False)
            greetings = self._client.run(_answer, self._home, {"do": "hello"}, b"")
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"no scheduler answers at {place.scheduler}") from error
        except TypeError as error:  # Dask's error for missing certificates
            if not place.scheduler.startswith("tls://"):
                raise
            raise Refused(
                f"{place.scheduler} needs this machine's certificate. Set "
                "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY "
                "(see README, Another machine)."
            ) from error
        if not greetings:
            self.close()
            raise Refused(f"the scheduler at {place.scheduler} has no workers.")
        try:
            self.hello = [answers.check("hello", said) for said, _ in greetings.values()].pop()
        except Refused:
            self.close()
            raise

    def call(self, request: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        if request["do"] == "hello":
            return self.hello, b""
        try:
            if request["do"] == "start":
                return self._start(request), b""
            # Ask the scheduler before the workers. In the other order, a run that begins and ends in between
            # would be missed.
            states = self._client.run_on_scheduler(
                _states, keys=[_key(run) for run in request.get("runs", ())]
            )
            # Each worker answers for the files that it sees; workers that share a disk give the same answer.
            said = self._client.run(_answer, self._home, request, payload)
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"the scheduler does not respond: {error}") from error
        if not said:
            raise Unreachable("the scheduler has no workers now")
        fields, data = _joined(request, list(said.values()), states)
        return answers.check(request["do"], fields), data

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a run. The task is named after the run, so a repeated request gets the existing task."""
        key = _key(request["job"]["run_id"])
        future = self._client.submit(_tend, self._home, request, key=key, retries=0, pure=False)
        distributed.fire_and_forget(future)
        # Until the scheduler knows the task, requests would be answered as if there were no such run.
        deadline = time.monotonic() + _PATIENCE
        while not future.done() and not self._client.run_on_scheduler(_states, keys=[key]):
            if time.monotonic() > deadline:
                raise Unreachable("the scheduler rejected the run")
            time.sleep(_TICK)
        return {"started": True}

    def close(self) -> None:
        self._client.close(timeout=5)


def _key(run_id: str) -> str:
    return f"readtrack-{run_id}"


def _states(keys: list[str], dask_scheduler: Any = None) -> dict[str, str]:
    """Runs on the scheduler."""
    tasks = ((key, dask_scheduler.tasks.get(key)) for key in keys)
    return {key: task.state for key, task in tasks if task is not None}


def _answer(home: str, request: dict[str, Any], payload: bytes) -> agent.Answer:
    """Runs on a worker."""
    try:
        return agent.answer(folders.root(home), {**request, "wait": 0}, payload)
    except (OSError, ValueError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}, b""


def _tend(home: str, request: dict[str, Any]) -> None:
    """Runs on a worker, where the task is the shepherd."""
    root = folders.root(home)
    shepherd.tend(agent.prepare(root, request))


def _joined(request: dict[str, Any], said: list[agent.Answer], states: dict[str, str]) -> agent.Answer:
    """Combine the answers of all workers."""
    good = [each for each in said if "error" not in each[0]]
    if not good:
        raise Refused(said[0][0]["error"])
    if request["do"] == "has":
        return {"has": all(each["has"] for each, _ in good)}, b""
    if request["do"] != "read":
        # The list of files comes from the worker with most of them, a part of a file from any worker that has
        # it.
        return max(good, key=lambda each: (len(each[0].get("files", ())), len(each[1])))
    frames: dict[str, tuple[dict[str, Any], bytes]] = {}
    for each, data in good:
        at = 0
        for frame in each["frames"]:
            mine, at = data[at : at + frame["n"]], at + frame["n"]
            state = states.get(_key(frame["run"]), "")
            waiting = state in _COMING and not frame["attempt"]
            frame = {**frame, "alive": frame["alive"] or state in _COMING, "why": "queued" if waiting else ""}
            known = frames.get(frame["run"])
            if known is None or (frame["attempt"], len(mine)) > (known[0]["attempt"], len(known[1])):
                frames[frame["run"]] = (frame, mine)
    joined = [(f, mine) for f, mine in frames.values() if mine or not f["alive"] or f["attempt"]]
    return {"frames": [frame for frame, _ in joined]}, b"".join(mine for _, mine in joined)
