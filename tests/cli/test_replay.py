"""A card made in one home is replayed in another, and with a changed line of the paper."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from readtrack.home import Home

Cli = Callable[..., subprocess.CompletedProcess[str]]
TOYS = Path(__file__).parents[1] / "toys"


@pytest.fixture(autouse=True)
def light(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TOYS / "light"))


@pytest.fixture
def card(cli: Cli, home: Home, tmp_path: Path) -> Path:
    assert cli("run", "toy_ok", "--seed", "7", "--only", "experiment").returncode == 0
    (run,) = home.runs.iterdir()
    done = cli("report", "--card", run.name, "--output", str(tmp_path / "cards"))
    assert (done.returncode, done.stderr) == (0, "")
    page, text = map(Path, done.stdout.splitlines())
    assert (page.suffix, text.suffix) == (".html", ".md")
    return page


def test_another_home_gives_the_same_output(cli: Cli, card: Path, tmp_path: Path) -> None:
    elsewhere = {"READTRACK_HOME": str(tmp_path / "elsewhere"), "OMP_NUM_THREADS": "2"}
    done = cli("replay", str(card), environment=elsewhere)
    assert done.returncode == 0
    first, *_, last = done.stdout.splitlines()
    assert first == "SAME       falls: held; last loss 0.2 and 0.2"
    assert last == "1 SAME"
    assert "code       the same" in done.stdout
    assert "readtrack run toy_ok --seed 7 --budget quick --only experiment" in done.stderr


@pytest.mark.slow
def test_a_changed_line_is_found(cli: Cli, card: Path, home: Home) -> None:
    home.ensure(home.plugins)
    text = (TOYS / "toy_ok.py").read_text()
    line = next(at for at, one in enumerate(text.splitlines(), start=1) if "1 / steps" in one)
    (home.plugins / "toy_ok.py").write_text(text.replace('"last loss": 1 / steps', '"last loss": 3 / steps'))
    done = cli("replay", str(card.with_suffix(".md")), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "DIFFERENT"
    assert found["claims"][0]["why"] == f"the code differs: toy_ok.py, line {line}"
    assert (found["claims"][0]["there"], found["claims"][0]["here"]) == ("held", "missed")


def test_a_card_of_a_paper_that_is_not_here(cli: Cli, card: Path) -> None:
    card.write_text(card.read_text().replace('"paper": "toy_ok"', '"paper": "nobody"'))
    done = cli("replay", str(card))
    assert done.returncode == 2
    assert "nobody" in done.stderr
    assert cli("replay", "nothing.html").returncode == 2
