"""A run of 2,000 events during which processes are killed at random: every event is fetched exactly once.

The long version, a minute instead of six seconds: READTRACK_TORTURE=60 pytest tests/places/test_torture.py
"""

import json
import os
import random
import sys
import time

import psutil

from readtrack.places import code, process
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import store
from readtrack.runs.job import new_job

SECONDS = float(os.environ.get("READTRACK_TORTURE", "6"))
STEPS = 2000


def kept(far, run, folder):
    """A second name for the remote file, because the first is deleted once the run has been fetched."""
    (file,) = (far / "elsewhere" / "runs" / run.run_id / "attempts").glob("*/runs/*/events.jsonl")
    os.link(file, folder / run.run_id)
    return folder / run.run_id


def ends(data):
    return sum(json.loads(line)["event"] == "end" for line in data.splitlines())


def victims(port, home):
    """The processes of the connection: the local ssh, its remote session, the agent."""
    found = []
    for one in psutil.process_iter():
        try:
            line = " ".join(one.cmdline())
        except psutil.Error:
            continue
        agent = "readtrack.places.agent" in line and str(home) in line
        session = line.startswith("sshd:") and any(
            parent.cmdline()[-1:] == [port] for parent in one.parents() if parent.name() == "sshd"
        )
        if agent or session:
            found.append(one)
    return found


def test_fetched_events_match_the_sent_ones(home, sshd, tmp_path, wait):
    far = tmp_path / "far"
    place = Place(name="big", kind="ssh", host=sshd, python=sys.executable, home=str(far))
    packed = code.pack("toy_paced", find(home), {})
    paced = {"steps": str(STEPS), "seconds": str(SECONDS)}

    def start():
        run = process.start(new_job("toy_paced", only="experiment", settings=paced), home, place, packed)
        wait(lambda: store.load(run.folder).phase == "train", f"phase train ({run.contact})")
        return run, kept(far, run, tmp_path)

    chance = random.Random(11)
    spared, said = start()
    doomed, cut_off = start()
    config = str(tmp_path / "ssh" / "sshd_config")
    until, killed = time.monotonic() + SECONDS, []
    worker = psutil.Process(store.load(doomed.folder).hello["pid"])
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.2, 1.5))
        found = victims(config, far)
        if time.monotonic() > until - SECONDS / 2 and "shepherd" not in killed:
            worker.parent().kill()
            killed.append("shepherd")
        elif found:
            one = chance.choice(found)
            killed.append(one.name())
            one.kill()
    for run in (spared, doomed):
        # After many losses, connecting is tried once a minute.
        wait(run.poll, f"the end ({run.contact})", 60 + 2 * SECONDS)
    print(f"killed in {SECONDS:.0f} s: {len(killed)} ({', '.join(sorted(set(killed)))})")
    assert "shepherd" in killed
    assert len(killed) > 1

    assert spared.poll() == "completed"
    mirror = (spared.folder / "events.jsonl").read_bytes()
    assert mirror == said.read_bytes()
    assert ends(mirror) == 1
    assert len(store.load(spared.folder).curves["loss"]["paper"]) == STEPS

    # Without its shepherd a run is over: its events are here, with a single end.
    assert doomed.poll() == "interrupted"
    mirror = (doomed.folder / "events.jsonl").read_bytes()
    assert mirror.startswith(cut_off.read_bytes())
    assert ends(mirror) == 1
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    wait(lambda: not victims(config, far), "the last agent to leave")
