"""`readtrack verify` on a cluster of four workers prints the same as on this machine alone."""

import json
import subprocess
import sys

import pytest

PLUGIN = """
import random

from readtrack.plugin import Bound, Claim, Figure, hookimpl

CLAIM = Claim(
    name="lower",
    sentence="The mean of the draws is lower than the control's.",
    paper=Figure("lower"),
    rule=(Bound("gap", "<=", {bound}),),
)


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    draw = random.Random(run.seed * 7919 + {number})
    gap = sum(draw.gauss(-0.1, 1.0) for _ in range(100)) / 100
    run.metric("gap", gap)
    run.claim(CLAIM, {{"gap": gap}})


@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [4], indirect=True)
def test_the_table_of_four_workers_is_the_table_of_one_process(home, scheduler, tmp_path, monkeypatch):
    own = tmp_path / "papers"
    own.mkdir()
    names = [f"toy_draws_{number}" for number in range(3)]
    for number, name in enumerate(names):
        (own / f"{name}.py").write_text(PLUGIN.format(number=number, bound=(0.1, -0.1, 0.3)[number]))
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(own))
    home.ensure()
    (home.root / "places.yaml").write_text(
        f"pool: {{kind: dask, scheduler: '{scheduler[0]}', home: {tmp_path / 'far'}}}\n"
    )

    def verify(output, *more):
        done = subprocess.run(
            [sys.executable, "-m", "readtrack", "verify", *names, "--output", str(tmp_path / output), *more],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / output / "verdicts.json").read_text()), done.stderr

    here, _ = verify("here")
    there, said = verify("there", "--on", "pool", "--jobs", "4")
    assert "taken from" not in said  # every run was made there
    assert len(here["claims"]) == 3
    for claim in (*here["claims"], *there["claims"]):
        assert len(claim.pop("runs")) == len(claim.pop("seconds")) == len(claim["seeds"])
    assert there["claims"] == here["claims"]
    assert there["headline"] == here["headline"]
    assert len({claim["verdict"] for claim in here["claims"]}) > 1
    assert len(list(home.runs.glob("*/place.json"))) == said.count(": started")
