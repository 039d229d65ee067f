"""`Run.source`: images and texts by name, and checks of comparisons that train on them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from readtrack import data
from readtrack.checks.comparing import ShortRuns, check_judge_heard, check_no_leak
from readtrack.checks.experiment import run_experiment
from readtrack.checks.mutants import outcomes
from readtrack.data import sources
from readtrack.errors import ReadtrackError
from readtrack.plugin import Arm

from .toys import BREAK, LEAD, RATES, plugin

STEPS = 8


def images(run, part):
    """Digits as pixels (n, 64), labelled by whether they are below five."""
    x, labels = getattr(run.source("images").parts, part)
    return x.flatten(1), (labels < 5).long()


def text(run, part):
    """For each character, the four preceding ones as one-hot vectors, labelled by whether it is a vowel."""
    source = run.source("text", at_most=20_000)
    vowels = torch.tensor([letter in "aeiou" for letter in source.names])
    ids = torch.cat(getattr(source.parts, part))
    before = ids[:-1].unfold(0, 4, 1)[:-1]
    return F.one_hot(before, len(source.names)).flatten(1).float(), vowels[ids[5:]].long()


def comparison(read_part, run, flaw=""):
    """A linear classifier with all inputs, and one with the first tenth of them."""

    def train(at, share, rate):
        x, y = read_part(run, "judge" if flaw == "leak in training" else "train")
        model = nn.Linear(int(share * x.shape[1]), 2)
        optimizer, rows = torch.optim.SGD(model.parameters(), lr=rate), at.generator("rows")
        for step in at.steps(STEPS):
            some = torch.randint(len(x), (64,), generator=rows)
            at.descend(F.cross_entropy(logits(model, x[some]), y[some]), optimizer, step=step)
        with torch.no_grad():
            x, y = read_part(run, "judge" if flaw == "leak" else "choose")
            return F.cross_entropy(logits(model, x), y).item(), model

    def right(at, found):
        x, y = read_part(run, "judge")
        guessed = logits(found.chosen, x).argmax(1)
        return {"accuracy": (guessed == y).double().mean().item()}

    arms, breaks = {"all": Arm(1.0), "half": Arm(0.1)}, {BREAK.name: {"all": Arm(0.1)}}
    run.compare(LEAD, arms=arms, attempt=train, read=right, grid=RATES, breaks=breaks)


def logits(model, x):
    return model(x[:, : model.in_features])


@pytest.fixture(params=[images, text])
def kind(request):
    return request.param


def test_a_comparison_on_a_source_passes_the_checks(kind, tmp_path):
    runs = ShortRuns.of(plugin(partial(comparison, kind)), tmp_path)
    check_no_leak(runs)
    check_judge_heard(runs)


@pytest.mark.parametrize("flaw", ["leak", "leak in training"])
def test_a_leak_from_a_source_is_noticed(kind, flaw, tmp_path):
    runs = ShortRuns.of(plugin(partial(comparison, kind), flaw), tmp_path)
    with pytest.raises(AssertionError, match="the test data change"):
        check_no_leak(runs)


@pytest.mark.slow
def test_the_mistakes_about_parts_are_killed(kind, tmp_path):
    fates = {one.mutant: one.fate for one in outcomes(plugin(partial(comparison, kind)), tmp_path)}
    about = [says for says in fates if "the test data" in says]
    assert len(about) == 2
    assert all(fates[says] == "killed" for says in about)


def handed_out(tmp_path, *, seed=3, **given):
    """The result of `source` in a run with the settings `given`."""
    found = {}

    def experiment(run):
        found.update(images=run.source("images"), text=run.source("text", at_most=7_001))

    module = SimpleNamespace(__name__="readtrack.papers.toy", experiment=experiment)
    run_experiment(module, tmp_path / "run", budget="quick", seed=seed, **given)
    return found


def test_a_run_gets_the_parts_of_its_seed_whole_and_in_order(tmp_path):
    found = handed_out(tmp_path)
    expected = data.parts(*data.digits(), seed=3)
    for part in ("train", "choose", "judge"):
        for tensor, same in zip(getattr(found["images"].parts, part), getattr(expected, part), strict=True):
            assert torch.equal(tensor, same)
    ids, alphabet = data.characters(data.text()[:7_001])
    for pieces, same in zip(found["text"].parts, data.stretches(ids, 3), strict=True):
        assert all(torch.equal(*pair) for pair in zip(pieces, same, strict=True))
    assert found["text"].names == alphabet
    assert found["images"].names == "0123456789"
    assert (found["images"].name, found["text"].name) == ("digits", "prose")


def test_a_setting_names_another_source(tmp_path):
    code = handed_out(tmp_path, settings={"text": "code"})["text"]
    assert code.name == "code"
    assert set(code.names) == set(data.code()[:7_001])


def test_an_unknown_source_is_reported_with_the_known_ones(tmp_path):
    with pytest.raises(ReadtrackError, match="Shipped with readtrack: prose, code"):
        sources.load("text", "poems", 0)


def test_grey_images_are_shrunk_to_a_side_and_never_enlarged():
    found = sources.load("images", "digits", 0)
    assert torch.equal(found.grey(14).parts.judge[0][:, 0], found.parts.judge[0])
    colours = torch.rand(2, 3, 28, 20)
    small = found._replace(parts=data.Parts(*[(colours, torch.zeros(2))] * 3)).grey(14).parts.train[0]
    assert small.shape == (2, 1, 14, 14)
    torch.testing.assert_close(small[1, 0, 0, 0], colours[1, :, :2, :2].mean())


def test_tiles_are_black_ink_in_a_frame():
    ink = torch.zeros(2, 64)
    ink[1, 9] = 1
    found = data.tiles(ink)
    assert found.shape == (2, 1, 36, 36)
    assert (found[1, 0, 6:10, 6:10] == 0).all()
    assert found[1, 0].unique().tolist() == [0, pytest.approx(0.8), 1]
    assert data.tiles(torch.zeros(3, 1, 28, 28)).shape == (3, 1, 32, 32)


def test_a_paper_may_name_other_shares_and_another_default(tmp_path):
    found = {}

    def experiment(run):
        found.update(images=run.source("images", choose=0.1, judge=0.3), text=run.source("text", name="code"))

    module = SimpleNamespace(__name__="readtrack.papers.toy", experiment=experiment)
    run_experiment(module, tmp_path / "run", budget="quick", seed=3)
    expected = data.parts(*data.digits(), seed=3, choose=0.1, judge=0.3)
    assert torch.equal(found["images"].parts.judge[1], expected.judge[1])
    assert found["text"].name == "code"
