"""Tests of all shipped exercises: plausible mistakes fail, and the message names them.

One of the plugin's checks (test_every_plugin) tests that the paper's own code passes and an empty body fails.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from readtrack.checks.practice import judging
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.plugins.load import load
from readtrack.practice import session, sheet, skeleton
from readtrack.practice.judge import Verdict
from readtrack.practice.mutants import PracticeMutant, mutants

SHIPPED = {name: plugin for name, plugin in find(Home()).items() if plugin.origin == "shipped"}
PRACTISED = sorted(name for name, plugin in SHIPPED.items() if sheet.has_exercises(plugin))
# Mistakes for functions with fewer than three automatic mutants: paper, exercise, original text, replacement.
WRITTEN = (
    ("sgd", "step", "w.add_(g, alpha=-lr)", "w.add_(w, alpha=-lr)"),
    ("sgd", "one vector", "tensor.detach().reshape(-1)", "-tensor.detach().reshape(-1)"),
    ("instancenorm", "through batch norm", "weight.repeat(batch)", "weight.repeat_interleave(batch)"),
    ("instancenorm", "through batch norm", "bias.repeat(batch)", "-bias.repeat(batch)"),
    ("guided_backprop", "average of maps", ".mean((2, 3))", ".amax((2, 3))"),
    ("rope", "attention", "q, k = self.turn(q, k, first", "q, v = self.turn(q, v, first"),
    ("rope", "attention", "(self.query, self.key, self.value)", "(self.key, self.query, self.value)"),
    ("transformer_xl", "shift", "padded[..., tokens:]", "padded[..., :-tokens]"),
    ("transformer_xl", "shift", "F.pad(scores, (1, 0))", "F.pad(scores, (0, 1))"),
    (
        "unet",
        "join",
        "(middle_of(beside, *below.shape[2:]), below)",
        "(below, middle_of(beside, *below.shape[2:]))",
    ),
    (
        "unet",
        "join",
        "(middle_of(beside, *below.shape[2:]), below)",
        "(beside[:, :, :below.shape[2], :below.shape[3]], below)",
    ),
    ("zfnet", "deconvnet ReLU", "signal.relu()", "signal * (x > 0)"),
    ("t5", "restore", "first_sentinel + 1", "first_sentinel"),
    ("t5", "restore", "spans.get(token, [token])", "spans.get(token, [])"),
    ("t5", "restore", "spans.get(token, [token])", "spans.get(token, [token])[::-1]"),
    ("t5", "restore", "for token in source", "for token in source[:-1]"),
    ("gpt2", "block", "x = x + self.attention", "x = self.attention"),
    ("gpt2", "block", "return x + self.feed_forward", "return self.feed_forward"),
    ("gpt2", "block", "self.norms[1](x)", "self.norms[0](x)"),
    ("bert", "masked head", "embedding, self.bias", "embedding"),
    ("bert", "masked head", "embedding, self.bias", "embedding, -self.bias"),
    ("sliding_window", "SwiGLU", "self.w3(x)", "self.w1(x)"),
    ("sliding_window", "SwiGLU", "F.silu(self.w1(x)) * self.w3(x)", "F.silu(self.w3(x)) * self.w1(x)"),
    ("gqa", "projections", "self.query(x)", "self.query(x) * 2"),
    ("gqa", "projections", "(self.key, self.value)", "(self.value, self.key)"),
    ("gan", "discriminator", "F.softplus(fake).mean()", "F.softplus(-fake).mean()"),
    ("gan", "non-saturating", "F.softplus(-fake).mean()", "F.softplus(-fake).sum()"),
    ("clip", "text tower", "ids.argmax(1)", "ids.argmin(1)"),
    ("clip", "text tower", "ids.argmax(1)", "ids.argmax(1) * 0 - 1"),
    ("clip", "text tower", "self.hidden(ids)[", "self.hidden(ids.flip(1))["),
    ("multimodal", "code", "torch.cat(hidden, 1)).tanh()", "torch.cat(hidden, 1)).tanh().tanh()"),
    ("multimodal", "code", "present.get(name), rows)", "present.get(name, 1 + 0 * rows), rows)"),
    ("sgd", "one vector", "torch.cat([tensor.detach()", "torch.cat([-tensor.detach()"),
    ("gist", "gist mask", "causal_mask(ids, gist) & ~", "~"),
    ("byt5", "gated GELU", "* self.up(x)", "* self.gate(x)"),
    ("deepdream", "energy", "features.square().mean(", "features.square().sum("),
    ("saliency", "gradient", "classes[:, None]).sum()", "classes[:, None]).mean()"),
    ("saliency", "gradient", "grad(scores, leaf)", "grad(2 * scores, leaf)"),
    ("grad_cam", "CAM", "maps, weight[classes])", "maps, weight[classes]).relu()"),
    ("grad_cam", "CAM", "maps, weight[classes])", "maps, weight[classes.flip(0)])"),
    ("lenet", "partial connections", "self.places, self.weight)", "self.places.flip(0), self.weight)"),
    ("lenet", "partial connections", "self.places, self.weight)", "self.places, 2 * self.weight)"),
    ("lenet", "sub-sampling", "left + right, self.weight", "(left + right) / 2, self.weight"),
    ("lenet", "sub-sampling", "left + right, self.weight", "-left - right, self.weight"),
    ("lenet", "loss", "logsumexp(1)).mean()", "logsumexp(1)).sum()"),
    (
        "alexnet",
        "features",
        "self.pool(self.norm(self.conv1(images)",
        "self.norm(self.pool(self.conv1(images)",
    ),
    ("vgg", "dense head", "w3[:, :, None, None], b3)", "w3[:, :, None, None])"),
    ("curriculum", "rare letters", ".log()[windows].mean(1)", ".log()[windows].sum(1)"),
    ("multimodal", "loss", "torch.stack(losses).sum()", "torch.stack(losses).mean()"),
    ("multimodal", "loss", "append(F.mse_loss(", "append(2 * F.mse_loss("),
    ("resnet", "features", "for stage in self.stages:", "for stage in self.stages[:-1]:"),
    ("byte_bpe", "cut a word", "min(possible, key", "max(possible, key"),
    ("byte_bpe", "cut a word", "self.merged[self.ranks[best]]", "self.ranks[best]"),
    ("integer_tokenization", "learn", '"[0-9]+"', '"[0-9]"'),
    ("integer_tokenization", "learn", '"[0-9]+"', '"[0-9a-z]+"'),
    ("integer_tokenization", "learn", '"\\n".join', '"".join'),
    ("integer_tokenization", "pieces", "encode(str(integer))", 'encode(" " + str(integer))'),
    ("integer_tokenization", "pieces", "encode(str(integer))", "encode(str(integer)[::-1])"),
    ("integer_tokenization", "pieces", "encode(str(integer))", "encode(str(integer))[:1]"),
    ("stable_diffusion", "cross-attention", "to_k(context), self.to_v(", "to_v(context), self.to_k("),
    ("persimmon", "skip zeros", "hidden[used] @ rows[used]", "hidden @ rows"),
    ("hessian", "product", "unflatten(v, fixed)", "unflatten(v / v.norm(), fixed)"),
    ("persimmon", "skip zeros", "hidden.nonzero(", "(hidden > 0).nonzero("),
    ("persimmon", "skip zeros", "hidden[used] @ rows[used]", "hidden.sum() * rows[used].sum(0)"),
)
WANTED = 3  # wrong answers per exercise that must get a hint


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop endless loops early, by CPU time instead of wall time."""
    monkeypatch.setattr(session, "SECONDS", 1.0)
    monkeypatch.setattr(session, "_WAIT", 60)


@pytest.mark.parametrize("name", PRACTISED)
def test_the_skeleton_contains_no_part_of_the_solution(name: str) -> None:
    found = sheet.sheets(SHIPPED[name])
    tree = ast.parse(skeleton.text(name, found))
    for one in found:
        node = sheet.definition(tree, one.qualname)
        assert node is not None
        assert skeleton.is_empty(node), one.name
        assert one.task.endswith("."), one.name
        assert all(hint.endswith(".") for hint in one.hints), one.name


@pytest.mark.parametrize("name", PRACTISED)
def test_the_rest_of_the_skeleton_does_not_repeat_the_solution(name: str) -> None:
    found = sheet.sheets(SHIPPED[name])
    text = " ".join(skeleton.text(name, found).split())
    for one in found:
        node = sheet.definition(sheet.parsed(one.file), one.qualname)
        own = list(_statements(node))
        shared = [statement for statement in own if " ".join(statement.split()) in text]
        # Two functions may begin with the same line.
        assert len(shared) <= 1, f"{one.name}: {shared}"
        assert 2 * len(shared) < max(2, len(own)), f"{one.name}: {shared}"


def _statements(node: ast.AST | None) -> Iterator[str]:
    """The function's simple statements that are long enough to reveal the answer."""
    for statement in ast.walk(ast.Module(getattr(node, "body", []), [])):
        told = isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)
        told = told or isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return)
        if told and len(text := ast.unparse(statement)) > 20:
            yield text


@pytest.mark.slow
@pytest.mark.parametrize("name", PRACTISED)
def test_mistakes_get_a_hint(name: str, tmp_path: Path) -> None:
    load(name, Home())
    found = sheet.sheets(SHIPPED[name])
    source = skeleton.text(name, found, solved=True)
    with judging(found, tmp_path) as judged:
        for one in found:
            mistakes = list(mutants(source, one.qualname))
            random.Random(0).shuffle(mistakes)
            for paper, exercise, there, instead in WRITTEN:
                if (paper, exercise) == (name, one.name):
                    assert source.count(there) == 1, there
                    changed = source.replace(there, instead)
                    mistakes.append(PracticeMutant(f"{instead} for {there}", lambda changed=changed: changed))
            hinted = _hinted(one.name, mistakes, judged)
            assert len(hinted) == WANTED, f"{name}, {one.name}: hints only for {hinted}"


def _hinted(
    name: str, mistakes: list[PracticeMutant], judged: Callable[[str, str], list[Verdict]]
) -> list[str]:
    """The first mistakes that get a hint."""
    hinted: list[str] = []
    for mistake in mistakes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                (verdict,) = judged(mistake.source(), name)
            except ReadtrackError:
                continue  # the mutated file cannot be imported
        if verdict.outcome == "wrong" and verdict.hint:
            hinted.append(mistake.says)
            assert verdict.report
        if len(hinted) == WANTED:
            break
    return hinted
