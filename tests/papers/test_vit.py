"""ViT compared with transformers', its positions, its attention maps, and the control arms."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close
from transformers import ViTConfig, ViTForImageClassification

from readtrack.checks.constants import digest
from readtrack.papers import vit
from readtrack.papers.vit import (
    HUGE,
    LARGE,
    Block,
    ConvNet,
    Positions2D,
    ViT,
    attention_distance,
    from_released,
    patches,
    rollout,
)
from readtrack.papers.vit.benchmark import encoded

its = importlib.import_module("readtrack.papers.vit.experiment")

TINY = {"side": 12, "patch": 4, "model": 24, "heads": 3, "layers": 2, "hidden": 20, "classes": 5}


def reference() -> ViTForImageClassification:
    config = ViTConfig(
        image_size=12,
        patch_size=4,
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=20,
        num_labels=5,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    theirs = ViTForImageClassification(config).double().eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return theirs


@pytest.mark.parametrize("size", [(12, 12), (12, 20), (8, 16)])
def test_released_weights_see_as_in_transformers(assert_parity, size):
    """Compares outputs and all gradients, also at other sizes, for which positions are interpolated in the
    same way.
    """
    theirs, ours = reference(), ViT(**TINY).double()
    weights = dict(theirs.named_parameters())
    assert from_released(weights).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w, x: functional_call(ours, from_released(w), (x,)),
        lambda w, x: functional_call(theirs, w, (x,), {"interpolate_pos_encoding": True}).logits,
        (torch.randn(2, 3, *size),),
        weights=weights,
        rtol=2e-5,  # the reference computes the softmax in single precision
        atol=2e-5,
    )


def test_attention_matches_transformers(assert_parity):
    theirs, ours = reference(), ViT(**TINY).double()
    ours.load_state_dict(from_released(theirs.state_dict()))
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    expected = theirs(x, output_attentions=True).attentions
    for mine, their in zip(ours.attentions(x), expected, strict=True):
        assert_close(mine, their.double(), rtol=1e-5, atol=1e-6)


def test_names_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"ViT has no parameter vit.pooler.dense.bias"):
        from_released({"vit.pooler.dense.bias": torch.zeros(1)})


def test_patches_match_a_strided_convolution(assert_parity):
    weight = torch.randn(7, 3, 4, 4)
    assert_parity(
        lambda x, w: patches(x, 4) @ w.flatten(1).T,
        lambda x, w: F.conv2d(x, w, stride=4).permute(0, 2, 3, 1),
        (torch.randn(2, 3, 8, 12), weight),
    )
    with pytest.raises(ValueError, match="8 × 10 pixels cannot be divided into patches"):
        patches(torch.zeros(1, 3, 8, 10), 4)


def test_sizes():
    with torch.device("meta"):
        sizes = [sum(w.numel() for w in ViT(**how).parameters()) for how in ({}, LARGE, HUGE)]
    assert sizes == [86_567_656, 304_326_632, 632_045_800]  # with 1,000 classes


def test_it_starts_as_the_paper_says():
    model = ViT(**(TINY | {"side": 160}))
    assert not model.head.weight.any()
    assert not model.token.any()
    assert model.positions.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model(torch.randn(1, 3, 160, 160)).any()


def learnt(**settings: object) -> ViT:
    model = ViT(**(TINY | settings)).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


def test_without_positions_patches_are_a_set():
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    upside_down = x.unflatten(2, (3, 4)).flip(2).flatten(2, 3)  # flips the rows of patches, not their pixels
    blind, seeing = learnt(positions=None), learnt()
    assert_close(blind(x), blind(upside_down))
    assert not torch.allclose(seeing(x), seeing(upside_down))


def test_two_dimensional_positions():
    made = Positions2D(3, 5, 7)
    found = made(3, 5)[1:].view(3, 5, 7)
    assert_close(found[1, 4], torch.cat((made.down[1], made.across[4])))
    assert_close(made(2, 2)[1:].view(2, 2, 7), found[:2, :2])


def test_dropout_is_where_appendix_b1_has_it():
    model = ViT(**TINY, dropout=0.3)
    calls = Counter()
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Dropout):
            assert part.p == 0.3
            part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    model(torch.randn(1, 3, 12, 12))
    assert calls == {"dropout": 1, "blocks.0.dropout": 3, "blocks.1.dropout": 3}


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(silent_parts, training):
    silent = silent_parts(ViT(**TINY).train(training), torch.randn(2, 3, 12, 12))
    assert silent == {"blocks", "blocks.0.norms", "blocks.1.norms"}


def test_rollout_of_attention_that_looks_everywhere_is_even():
    even = torch.full((2, 3, 10, 10), 0.1)
    assert_close(rollout([even, even]), torch.full((2, 9), 1 / 9))
    one = torch.zeros(1, 1, 10, 10)
    one[..., 4] = 1  # all attend to the fourth patch
    assert_close(rollout([one]), F.one_hot(torch.tensor([3]), 9).float())


def test_attention_distance():
    itself = torch.eye(7).expand(2, 3, 7, 7)
    assert attention_distance(itself, 2, 3).tolist() == [0, 0, 0]
    beside = torch.zeros(1, 1, 7, 7)
    for here, there in enumerate((2, 1, 2, 5, 4, 5), 1):  # the patch to the left or right, in 2 rows of 3
        beside[..., here, there] = 1
    assert attention_distance(beside, 2, 3).item() == pytest.approx(1)


def test_a_block_in_half_precision(assert_half_precision):
    block = Block(32, 2, 48)
    assert_half_precision(
        lambda weights, x: functional_call(block, weights, (x,)),
        lambda weights, x: encoded(weights, x, 2, fused=False),
        (torch.randn(2, 40, 32),),
        weights={name: torch.randn(w.shape) / 4 for name, w in block.named_parameters()},
    )


def test_a_block_of_text_does_not_see_later_blocks():
    block, x = Block(24, 3, 20).double(), torch.randn(2, 5, 24, dtype=torch.float64)
    other = torch.cat((x[:, :3], torch.randn(2, 2, 24, dtype=torch.float64)), 1)
    assert_close(block(x, causal=True)[:, :3], block(other, causal=True)[:, :3])
    mask = torch.tensor([True, True, True, False, False]).expand(2, 1, 5)
    assert_close(block(x, mask=mask)[:, :3], block(other, mask=mask)[:, :3])


def test_multiply_adds():
    convolutions = 256 * 27 * 8 + 256 * 72 * 8 + 64 * 9 * (8 + 20) * 20 + 16 * 9 * (20 + 30) * 30 + 30 * 5
    assert its.multiply_adds(ConvNet()) == convolutions
    blocks = 2 * (17 * (4 * 48**2 + 2 * 48 * 96) + 2 * 17**2 * 48)
    assert its.multiply_adds(its.SmallViT()) == blocks + 16 * 48 * 48 + 48 * 5
    assert 0.95 <= its.multiply_adds(its.SmallViT()) / convolutions <= 1.05


def test_rivals_cost_as_much():
    ours = its.multiply_adds(its.SmallViT())
    for rival in (its.Hybrid(), its.PixelNet()):
        assert 0.95 <= its.multiply_adds(rival) / ours <= 1.05
        assert rival(torch.randn(2, 3, its.SIDE, its.SIDE)).shape == (2, its.CLASSES)
    narrow = ConvNet((4, 10, 16))
    assert its.multiply_adds(narrow) < 0.3 * ours


def test_misplaced_positions_come_from_other_patches():
    positions = its.Misplaced(4, 4, 6)
    found = [positions(4, 4) for _ in range(2)]
    assert not torch.equal(*found)
    for order in found:
        assert_close(order[0], positions.weight[0])
        assert_close(order[1:].sort(0).values, positions.weight[1:].sort(0).values)


def test_shuffled_pixels_are_the_same_pixels():
    known = its.Pictures(torch.rand(3, 3, its.SIDE, its.SIDE), torch.arange(3))
    order = torch.randperm(its.SIDE**2)
    for moved in its.shuffled(order, its.Splits(known, known, known)):
        assert torch.equal(moved.x.flatten(2), known.x.flatten(2)[:, :, order])
        assert torch.equal(moved.y, known.y)


FEW, MANY = its.FEW.name, its.MANY.name
FEW_ARMS = {(FEW, "ViT"): ("ViT", "Positions"), (FEW, "convolutions"): ("ConvNet", "")}
MANY_ARMS = {(MANY, arm): kind for (_, arm), kind in FEW_ARMS.items()}
PLACES = {
    ("positions", "1-D"): ("ViT", "Positions"),
    ("positions", "none"): ("ViT", ""),
    ("positions", "2-D"): ("ViT", "Positions2D"),
}
ARMS = {
    "": FEW_ARMS | MANY_ARMS | PLACES,
    "shuffled pixels": FEW_ARMS,
    "hybrid": FEW_ARMS | {(FEW, "ViT"): ("Hybrid", "")},
    "narrow convolutions": FEW_ARMS | {(FEW, "ViT"): ("ConvNet", "")},
    "no positions": MANY_ARMS | {(MANY, "ViT"): ("ViT", "")},
    "fully connected network": MANY_ARMS | {(MANY, "ViT"): ("PixelNet", "")},
    "positions in random order": PLACES | {("positions", "1-D"): ("ViT", "Misplaced")},
}


@pytest.mark.parametrize("broken", ARMS)
def test_the_arms_match_their_names(run_experiment, monkeypatch, broken):
    made, seen, learn = {}, {}, its.learn

    def watched(label, steps, at, make, rate):
        network, what = make(), label.removeprefix(", ")
        positions = getattr(network, "positions", None)
        made[what, at.name] = type(network).__name__, type(positions).__name__ if positions else ""
        seen[what] = at.world.known.x
        assert len(at.world.known.x) == (300 if what == FEW else 32 * steps)
        assert rate == its.RATES[what][1]
        return learn(label, steps, at, make, rate)

    monkeypatch.setattr(its, "learn", watched)
    run_experiment(vit, broken=broken)
    assert made == ARMS[broken]
    if not broken:  # moved digits are closer to the border
        near = {what: x.std(0).mean(0)[:2].mean().item() for what, x in seen.items()}
        assert near[MANY] > 1.5 * near["positions"]


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "c9923ac8632a"


def test_a_null_run_has_the_controls_networks(run_experiment, monkeypatch):
    made, learn = {}, its.learn

    def watched(label, steps, at, make, rate):
        made.setdefault(label, set()).add((type(make()).__name__, make is its.ConvNet))
        return learn(label, steps, at, make, rate)

    monkeypatch.setattr(its, "learn", watched)
    run_experiment(vit, null=True)
    assert made == {
        f", {FEW}": {("ConvNet", True)},
        f", {MANY}": {("ConvNet", True)},
        ", positions": {("ViT", False)},
    }


def test_a_quick_run_does_not_judge_many_images(part_of_run):
    run, said = part_of_run(), []
    run.budget, run.wants = "quick", lambda claim: claim is its.MANY
    run.leave_unjudged = lambda claim, why: said.append((claim, why))
    its.experiment(run)
    assert [claim for claim, _ in said] == [its.MANY]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(vit)] == ["patches", "block", "images"]
