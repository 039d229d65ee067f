"""A first hour in a real terminal: import two lists, run a paper, edit it, compare and revert."""

from __future__ import annotations

import difflib
import re
import shutil
import time
from pathlib import Path

import pytest
from terminals import COMMAND, Terminal, wait_for

from readtrack.home import Home
from readtrack.runs import store

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.skipif(not COMMAND.exists(), reason="readtrack is not installed beside this Python"),
]

MARKDOWN = """\
---
tags: [reading]
---

# Reading

Notes to myself.

## Now

- [x] BERT
- [ ] [Attention](https://arxiv.org/abs/1706.03762)
- [ ] RoFormer: Enhanced Transformer with Rotary Position Embedding
- [ ] GQA and my fish
- [ ] Whisper and my cat
- [ ] A talk by a friend
"""
ZOTERO = """\
@article{a, title={Adam: A Method for Stochastic Optimization}, author={Kingma, Diederik}, year={2014}}
@article{b, title={Decoupled Weight Decay}, year={2017}, eprint={1711.05101}, archiveprefix={arXiv}}
@misc{c, title={An Image is Worth 16x16 Words}, year={2020}}
@article{d, title={Long Short-Term Memory}, year={1997}, doi={10.1162/neco.1997.9.8.1735}}
@misc{e, title={Notes on Nothing in Particular}, year={2023}}
@article{f, title={Mamba and friends}, year={2023}}
@misc{g, title={Reformer and friends}, year={2020}}
@misc{h, title={Longformer and friends}, year={2020}}
@misc{i, title={More Notes on Nothing in Particular}, year={2024}}
@article{j, title={Layer Normalization}, year={2016}, eprint={1607.06450}, archiveprefix={arXiv}}
@misc{k, title={Deep Residual Learning}, eprint={1512.03385}, archiveprefix={arXiv}}
@misc{l, title={Generative Adversarial Nets}, eprint={1406.2661}, archiveprefix={arXiv}}
"""
# After this edit, scores depend on absolute positions, not only on distances.
EDITOR = """\
#!/bin/sh
for path; do :; done
sed -i 's/points \\* freqs_cis.to(points.dtype)/points * freqs_cis.to(points.dtype).real.exp()/' "$path"
"""


def import_list(terminal: Terminal, path: Path, *, rows: int, unsure: int) -> None:
    """Import a list by its path. For each unsure row, the first candidate is correct."""
    terminal.keys("C-o")
    terminal.wait_for("Import a list")
    terminal.keys(str(path), "Enter")
    terminal.wait_for("enter choose paper")
    for left in reversed(range(unsure)):
        terminal.keys("Enter")
        terminal.wait_for("enter links the row")
        terminal.keys("Enter")
        wait_for(lambda left=left: is_chosen(terminal.screen(), left), terminal.screen)
    terminal.keys("w")
    terminal.wait_for(f"Imported {rows} rows")


def is_chosen(screen: str, left: int) -> bool:
    """Whether the dialog was closed, and this number of unsure rows is left."""
    return "Which paper is this row?" not in screen and screen.count("  maybe ") == left


def run(terminal: Terminal, home: Home, count: int) -> str:
    """Run the selected paper's experiment at the smoke budget as run number `count`. Returns its page."""
    terminal.keys("R")
    terminal.wait_for("enter runs")
    if count == 1:  # the dialog remembers the last choices
        terminal.keys("Left")
        terminal.wait_for("‹smoke›")
        terminal.keys("Down", "Right")
    terminal.wait_for("--budget smoke --only experiment")
    terminal.keys("Enter")

    def ended() -> bool:
        runs = sorted(home.runs.glob("2*")) if home.runs.exists() else []
        return len(runs) == count and store.load(runs[-1]).outcome == "completed"

    wait_for(ended, terminal.screen)
    terminal.wait_for("scores under a shift")
    return terminal.wait_for("completed")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # only against a hang, because each wait has its own deadline
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_a_list_of_the_reader_and_a_visible_edit(
    terminal: Terminal, home: Home, tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "mine.md").write_text(MARKDOWN, encoding="utf-8")
    (tmp_path / "zotero.bib").write_text(ZOTERO, encoding="utf-8")
    editor = tmp_path / "editor"
    editor.write_text(EDITOR, encoding="utf-8")
    editor.chmod(0o755)

    terminal.start(size, EDITOR=str(editor), PYTHONPATH="")  # with torch
    terminal.wait_for("Which list do you want?")
    time.sleep(1)  # this dialog opens by itself, and takes no answer from a reader who is still typing
    terminal.keys("e")
    terminal.wait_for("The list is empty.")
    import_list(terminal, tmp_path / "mine.md", rows=6, unsure=2)
    import_list(terminal, tmp_path / "zotero.bib", rows=12, unsure=3)

    terminal.keys("/", "rotary", "Enter")
    terminal.wait_for("RoFormer")
    terminal.keys("3")
    terminal.wait_for("rope marked as read")
    page = run(terminal, home, 1)
    assert "≡ scores under a shift" in page
    assert "edited" not in page

    terminal.keys("i")
    terminal.wait_for("e edit your copy")
    terminal.keys("e")
    terminal.wait_for("edited: model.py +1 −1")
    terminal.keys("Escape")
    terminal.wait_for("r run")
    page = run(terminal, home, 2)
    assert "✗ scores under a shift" in page
    assert "edited: model.py +1 −1" in page

    terminal.keys("H")
    terminal.wait_for("2 runs")
    terminal.keys("Space", "j", "Space", "=")
    page = terminal.wait_for("Two runs of rope")
    assert "edited: model.py +1 −1" in page
    terminal.keys("E")
    page = terminal.wait_for("Code from a to b")
    assert "real.exp()" in page
    terminal.keys("Escape")
    terminal.wait_for("Two runs of rope")

    terminal.keys("Escape")
    terminal.wait_for("= compare")
    terminal.keys("Escape")
    terminal.wait_for("next tab")
    terminal.keys("i")
    terminal.wait_for("u revert")
    terminal.keys("u")
    terminal.wait_for("set-aside")
    terminal.keys("u")
    reverted = home.root / "set-aside" / "plugins" / "rope" / "model.py"
    wait_for(reverted.exists, terminal.screen)
    assert "real.exp()" in reverted.read_text()
    terminal.keys("Escape")
    # Escape directly followed by another key would be that key with Alt.
    wait_for(lambda: "u revert" not in terminal.screen(), terminal.screen)
    terminal.wait_for("The shipped rope runs again")
    for name in ("exported.md", "exported.bib"):
        terminal.keys("C-e")
        terminal.wait_for("Export your list to")
        terminal.keys("C-u")
        wait_for(lambda: "reading-list.md" not in terminal.screen(), terminal.screen)
        terminal.keys(str(tmp_path / name), "Enter")
        wait_for((tmp_path / name).exists, terminal.screen)
        wait_for(lambda: "Export your list to" not in terminal.screen(), terminal.screen)
    terminal.keys("q")
    terminal.wait_for("exit code 0")

    exported = (tmp_path / "exported.md").read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(MARKDOWN.splitlines(), exported) if line[0] in "+-"]
    row = "RoFormer: Enhanced Transformer with Rotary Position Embedding"
    assert [line for line in changes if line.startswith("-")] == [f"- - [ ] {row}"]
    assert f"+ - [x] {row}" in changes
    assert len([line for line in changes if line.startswith("+ - [ ] ")]) == 12
    bibtex = (tmp_path / "exported.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(\w+),", bibtex, re.MULTILINE)
    assert keys[:12] == list("abcdefghijkl")
    for entry in ZOTERO.splitlines():
        opening, *fields = re.findall(r"^@\w+\{\w+,|\w+=\{[^{}]*\}", entry)
        found = next(one for one in re.split(r"\n(?=@)", bibtex) if one.startswith(opening))
        assert all(field in found for field in fields if not field.startswith("title="))
        if opening in ("@article{a,", "@misc{e,", "@misc{i,"):  # complete, or without a known paper
            assert found.strip() == entry
        else:  # a stub gets the known title and authors
            assert "author = {" in found
