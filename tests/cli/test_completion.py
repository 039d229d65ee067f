"""Completions of a partly typed command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readtrack.cli.completion import app
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row


def words(*typed: str) -> list[str]:
    done = CliRunner().invoke(app, ["words", "--", *typed], catch_exceptions=False)
    return done.stdout.split()


def test_commands_then_options_and_papers(home: Home) -> None:
    papers = set(Library.open(home).catalog.papers)
    assert {"run", "list", "completion"} <= set(words())
    assert set(words("unknown")) == set(words())
    assert {"--budget", "--device", "--break"} <= set(words("run"))
    assert set(Library.open(home).runnable()) <= set(words("run"))
    assert papers <= set(words("show"))
    assert {*papers, "reading", "skipped"} <= set(words("mark", "adam"))
    assert {"list", "check", "new"} <= set(words("plugins"))
    (home.runs / "20260101-000000-adam-aaaa").mkdir(parents=True)
    assert "20260101-000000-adam-aaaa" in words("compare")


def test_options_and_arguments_have_their_own_values(home: Home) -> None:
    library = Library.open(home)
    assert words("run", "adam", "--budget") == ["smoke", "quick", "full"]
    assert words("export", "--format") == ["markdown", "bibtex", "json", "csv"]
    assert words("run", "adam", "--seed") == []
    assert set(library.runnable()) <= set(words("plugins", "check", "adam"))
    assert "fashion-mnist" in words("data", "get")
    assert "adam" not in words("plugins", "new")
    assert "adam" in words("link", "a row")
    done = CliRunner().invoke(app, ["words", "--", "remove"], catch_exceptions=False)
    row = next(item for _, item in library.catalog.walk() if isinstance(item, Row))
    assert row.text in done.stdout.splitlines()
    done = CliRunner().invoke(app, ["words", "--", "list", "--section"], catch_exceptions=False)
    assert done.stdout.splitlines() == [section.title for section in library.catalog.sections]


def test_a_break_is_completed_from_the_paper_that_was_typed(home: Home) -> None:
    typed = ["run", "weak_to_strong", "--device", "cpu", "--break"]
    done = CliRunner().invoke(app, ["words", "--", *typed], catch_exceptions=False)
    assert "no pre-training" in done.stdout.splitlines()
    assert words("run", "--break") == []


def test_bash_completes_words_with_spaces_and_quotes(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here to ask")
    program = tmp_path / "readtrack"
    program.write_text("#!/bin/sh\nprintf '%s\\n' 'no velocity' \"nobody's\" other --yes\n")
    program.chmod(0o755)
    script = CliRunner().invoke(app, ["bash"], catch_exceptions=False).stdout
    for typed, offered in (
        ("", ["no velocity", "nobody's", "other"]),
        ("'no v", ["no velocity"]),
        ("--y", ["--yes"]),
    ):
        line = f"COMP_WORDS=(readtrack run adam --break {shlex.quote(typed)}); COMP_CWORD=4; _readtrack"
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{line}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert [shlex.split(one)[0] for one in done.stdout.splitlines()] == offered


def test_fish_completes_words_with_spaces_and_files(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("there is no fish here to ask")
    program = tmp_path / "readtrack"
    program.write_text(
        "#!/bin/sh\n[ \"$4\" = import ] || printf '%s\\n' 'no velocity' other\nprintf '%s\\n' --yes\n"
    )
    program.chmod(0o755)
    (tmp_path / "mine.md").touch()
    script = CliRunner().invoke(app, ["fish"], catch_exceptions=False).stdout
    for line, offered in (
        ("readtrack run ", ["no velocity", "other"]),
        ("readtrack run no", ["no velocity"]),
        ("readtrack run --y", ["--yes"]),
        ("readtrack import mi", ["mine.md"]),
    ):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"{script}\ncomplete -C {shlex.quote(line)}"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert [one.split("\t")[0] for one in done.stdout.splitlines()] == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_accept_the_scripts(shell: str) -> None:
    script = CliRunner().invoke(app, [shell], catch_exceptions=False).stdout
    assert "readtrack completion words" in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to ask")
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)
