"""Correct and wrong answers to the exercises of the attention paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from readtrack.checks.practice import judged
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.plugins.load import load
from readtrack.practice import judge, session, sheet, skeleton
from readtrack.practice.judge import Verdict
from readtrack.present.practice import details

SHEETS = sheet.sheets(find(Home())["attention"])
SOLVED = skeleton.text("Attention", SHEETS, solved=True)
MERGE = "    return x.transpose(-3, -2).flatten(-2)\n"


@pytest.fixture(autouse=True)
def attention() -> None:
    load("attention", Home())


def answer(tmp_path: Path, body: str, name: str = "merge heads", replaces: str = MERGE) -> Verdict:
    assert replaces in SOLVED
    (verdict,) = judged(SHEETS, SOLVED.replace(replaces, body), tmp_path, name)
    return verdict


@pytest.mark.parametrize(
    ("body", "outcome", "says"),
    [
        ("    return x.flatten(-2)\n", "wrong", "the shape is 2×6, expected 3×4"),
        ("    return 2 * x.transpose(-3, -2).flatten(-2)\n", "wrong", "it is 2 times the expected result"),
        ("    x = x.transpose(-3, -2).flatten(-2)\n", "wrong", "a return is missing"),
        ("    return x.detach().transpose(-3, -2).flatten(-2)\n", "wrong", "no gradient reaches x"),
        (
            "    return x.transpose(-3, -2).flatten(-2).double()\n",
            "wrong",
            "for float32 inputs the dtype is float64",
        ),
        (
            "    y = x.transpose(-3, -2).flatten(-2) * 1\n    x.zero_()\n    return y\n",
            "wrong",
            "x was changed in place",
        ),
        ("    return []\n", "wrong", "an empty list, tuple or dictionary was returned instead of 1 value"),
        ("    return [x, x]\n", "wrong", "of 2 items was returned instead of one result"),
        ("    return x.transpose(-3, -2).flatten(-9)\n", "failed", "IndexError"),
        ("    return x.transpose(-3, -2).flatten(-2).to_sparse()\n", "failed", "return a dense one"),
        ("    return [0] * 10**11\n", "failed", "more memory than the 4 GiB"),
        ("    ...\n", "empty", ""),
        ("    raise NotImplementedError('later')\n", "empty", ""),
    ],
)
def test_errors_are_reported(tmp_path: Path, body: str, outcome: str, says: str) -> None:
    verdict = answer(tmp_path, body)
    assert verdict.outcome == outcome
    assert says in " ".join([verdict.hint, *verdict.report])
    assert verdict.line > 0


def test_an_error_of_readtrack_is_not_reported_as_the_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> str:
        raise ZeroDivisionError("by nothing")

    wrong = "    return 2 * x.transpose(-3, -2).flatten(-2)\n"
    monkeypatch.setattr(judge, "relation", broken)
    searched = answer(tmp_path, wrong)
    assert searched.outcome == "wrong"
    assert searched.report[-1]
    assert "a bug in readtrack: ZeroDivisionError: by nothing (test_session.py:" in searched.hint
    monkeypatch.setattr(judge, "right", broken)
    compared = answer(tmp_path, wrong)
    assert compared.outcome == "failed"
    assert "readtrack itself failed" in compared.report[0]
    assert "your code is not at fault" in compared.hint
    monkeypatch.undo()
    called = answer(tmp_path, "def merge_heads(other, x: Float", replaces="def merge_heads(x: Float")
    assert "missing 1 required positional argument" in called.report[0]


@pytest.mark.parametrize(
    ("paper", "name", "there", "instead", "says"),
    [
        (
            "batchnorm",
            "backward",
            "gradient * centred",
            "centred",
            "a factor is missing, in a step that uses",
        ),
        (
            "resnet",
            "block",
            "self.residual(x) + self.carried(x)",
            "self.carried(x)",
            "Did you forget to call a layer?",
        ),
    ],
)
def test_the_pass_or_the_layer_with_the_mistake_is_named(
    tmp_path: Path, paper: str, name: str, there: str, instead: str, says: str
) -> None:
    load(paper, Home())
    found = sheet.sheets(find(Home())[paper])
    source = skeleton.text(paper, found, solved=True)
    assert there in source
    (verdict,) = judged(found, source.replace(there, instead), tmp_path, name)
    assert verdict.outcome == "wrong"
    assert says in verdict.hint


def test_a_loop_without_end_is_stopped_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SECONDS", 0.3)
    verdict = answer(
        tmp_path,
        "    while True:\n        try:\n            x = x + 1\n        except Exception:\n            pass\n",
    )
    assert verdict.outcome == "slow"
    assert any("x = x + 1" in line or "while True" in line or "try" in line for line in verdict.report)


def test_the_first_failing_input_is_printed_with_expected_and_found(tmp_path: Path) -> None:
    verdict = answer(tmp_path, "    return x.transpose(-3, -2).flatten(-2) + 1\n")
    report = "\n".join(verdict.report)
    assert "merge_heads(x)   2 heads, 3 tokens" in report
    assert "x 2×3×2 float64" in report
    assert "expected" in report
    assert "found" in report


def test_the_hint_is_above_the_numbers() -> None:
    report = ["merge_heads(x)   2 heads, 3 tokens", "  x 2×3×2 float64"]
    event = {"event": "exercise", "name": "merge heads", "outcome": "wrong", "report": report}
    lines = [line.text.strip() for line in details({**event, "hint": "x was changed. it is wrong"})]
    assert lines == ["x was changed.", "It is wrong.", *(line.strip() for line in report)]


def test_the_correct_inputs_are_named(tmp_path: Path) -> None:
    verdict = answer(tmp_path, "", name="weights", replaces=".triu_(keys - queries + 1)")
    assert "causal" in verdict.hint
    assert "wrong on 4 of 10 inputs" in verdict.hint
    ignored = answer(tmp_path, "    if False:\n", name="weights", replaces="    if causal:\n")
    assert "causal is ignored" in ignored.hint


def test_a_file_that_cannot_be_imported_is_an_error_with_its_line(tmp_path: Path) -> None:
    for text, says in ((SOLVED + "\nx = (\n", "was never closed"), (SOLVED + "\nnothing\n", "NameError")):
        with pytest.raises(ReadtrackError, match=rf"practice\.py:\d+: .*{says}"):
            judged(SHEETS, text, tmp_path)


def test_the_readers_functions_take_the_papers_place_everywhere(tmp_path: Path) -> None:
    import torch

    from readtrack.papers.attention import MultiHeadAttention, merge_heads

    file = tmp_path / "practice.py"
    file.write_text(SOLVED.replace(MERGE, MERGE.replace("(-2)\n", "(-2) * 2\n")), encoding="utf-8")
    opened = session.Session(SHEETS, file, str(file))
    layer, x = MultiHeadAttention(4, 2), torch.randn(1, 3, 4)
    before = layer(x)
    places = opened.take_place(["merge heads", "multi-head"])
    assert torch.equal(layer(x), before)
    places.switch(True)
    assert torch.equal(layer(x), 2 * before)
    assert torch.equal(merge_heads(torch.ones(2, 1, 2)), torch.full((1, 4), 2.0))
    places.switch(False)
    assert torch.equal(layer(x), before)
    opened.close()
    assert torch.equal(layer(x), before)


def test_any_exercise_can_be_the_first(tmp_path: Path) -> None:
    empty = skeleton.text("Attention", SHEETS)
    forward = SOLVED[SOLVED.index("        context = x if context is None else context\n") :]
    written = empty[: empty.rindex("        raise NotImplementedError")] + forward
    verdicts = judged(SHEETS, written, tmp_path)
    assert [one.outcome for one in verdicts] == ["empty", "empty", "empty", "passed"]


def test_a_helper_method_and_super_work_in_the_readers_class(tmp_path: Path) -> None:
    forward = SOLVED[SOLVED.index("        context = x if context is None else context\n") :]
    body = (
        "        super().train(self.training)\n        return self.mine(x, context, mask, causal)\n\n"
        "    def mine(self, x, context, mask, causal):\n" + forward
    )
    assert answer(tmp_path, body, "multi-head", forward).outcome == "passed"
