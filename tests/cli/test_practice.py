"""`readtrack practice` as a reader types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice import sheet, skeleton

ENVIRONMENT = {"EDITOR": "true"}


@pytest.mark.slow
def test_from_skeleton_to_verdicts(cli, home: Home) -> None:
    opened = cli("practice", "adam", environment=ENVIRONMENT)
    assert opened.returncode == 0
    file = home.practice / "adam.py"
    assert opened.stdout == f"{file}\n"
    assert "1 step: " in opened.stderr
    empty = cli("practice", "adam", "--check")
    assert empty.returncode == 1
    assert "○ 1 step  not written yet" in empty.stdout

    solved = skeleton.text("Adam", sheet.sheets(find(home)["adam"]), solved=True)
    file.write_text(solved.replace("(1 - beta1**t)", "1"))
    wrong = cli("practice", "adam", "1", "--check")
    assert wrong.returncode == 1
    assert "✗ 1 step  wrong result, line " in wrong.stdout
    assert wrong.stdout.index("expected") < wrong.stdout.index("is missing")  # the hint comes last
    assert "0 of 1 pass" in wrong.stdout
    assert not list(home.runs.iterdir())

    file.write_text(solved)
    right = cli("practice", "adam", "1", "--check")
    assert right.returncode == 0
    assert "✓ 1 step  3 sets of inputs" in right.stdout
    assert "practice adam --prove" in right.stderr  # the run of a minute does not start automatically
    assert not list(home.runs.iterdir())
    listed = cli("practice", "adam", "--list")
    assert "✓ 1 step  2 tries" in listed.stdout


def test_hint_solution_skip_and_reset(cli, home: Home) -> None:
    assert "β₁" in cli("practice", "adam", "--hint").stdout
    assert cli("practice", "adam", "step", "--reset").returncode == 3
    cli("practice", "adam", environment=ENVIRONMENT)
    refused = cli("practice", "adam", "--solution", stdin="n\n")
    assert refused.returncode == 3
    assert refused.stdout.strip() == ""
    assert "+    m_hat = m / " in cli("practice", "adam", "--solution", stdin="y\n").stdout
    assert "empty again" in cli("practice", "adam", "step", "--reset").stdout
    assert len(list(Path(home.practice, "old").iterdir())) == 1
    assert "is skipped" in cli("practice", "adam", "--skip").stdout
    assert cli("practice", "adam", "--hint").returncode == 3
    assert "are skipped" in cli("practice", "adam", "--check").stderr
    assert cli("practice", "adam", "step", "--prove").returncode == 2


def test_a_paper_without_exercises_or_an_unknown_one(cli) -> None:
    assert cli("practice", "toy_ok").returncode == 3
    assert cli("practice", "nothing_such").returncode == 2
    assert cli("practice", "adam", "9").returncode == 2
    assert cli("practice", "adam", "--check").returncode == 3
