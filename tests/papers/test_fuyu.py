"""The decoder compared with transformers' Fuyu, the tokens of an image, and images of several sizes."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close
from transformers import FuyuConfig, FuyuForCausalLM

from readtrack.checks.constants import digest
from readtrack.papers import fuyu
from readtrack.papers.fuyu import Fuyu, from_released, layout
from readtrack.papers.vit import patches

its = importlib.import_module("readtrack.papers.fuyu.experiment")

TINY = {"patch": 2, "newline": 3, "model": 24, "heads": 3, "layers": 2, "hidden": 20}
PLACEHOLDER = 16


def reference() -> FuyuForCausalLM:
    text = {
        "model_type": "persimmon",
        "vocab_size": 17,
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "hidden_act": "relu2",
        "qk_layernorm": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5},
    }
    config = FuyuConfig(
        text_config=text, patch_size=2, image_token_id=PLACEHOLDER, attn_implementation="eager"
    )
    theirs = FuyuForCausalLM(config).double().eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return theirs


def small(**settings: object) -> Fuyu:
    model = Fuyu(17, **(TINY | settings)).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return model


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 1)])
def test_released_weights_see_as_in_transformers(assert_parity, rows, columns):
    """Compares outputs and all gradients. Patches are flattened and newlines are inserted as by the
    reference's processor.
    """
    theirs, ours = reference(), small()
    ids, images = torch.randint(16, (2, 5)), torch.randn(2, 3, 2 * rows, 2 * columns)
    line = torch.tensor([PLACEHOLDER] * columns + [TINY["newline"]])
    whole = torch.cat((line.repeat(rows).expand(2, -1), ids), 1)

    def their(w, x):
        cut = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        said = functional_call(theirs, w, (whole,), {"pixel_values": cut, "use_cache": False}).logits
        return said[:, -5:]

    weights = dict(theirs.named_parameters())
    assert from_released(weights, dim=8).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w, x: functional_call(ours, from_released(w, dim=8), (ids, x)),
        their,
        (images,),
        weights=weights,
        rtol=1e-6,  # the reference computes angles in single precision
        atol=2e-5,
    )


def test_names_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"Persimmon has no parameter model.vision_tower.bias"):
        from_released({"model.vision_tower.bias": torch.zeros(1)})


def test_images_of_several_sizes_give_the_answers_of_single_ones(assert_parity):
    model = small()
    ids = torch.randint(17, (3, 4))
    weights = dict(model.named_parameters())
    sizes = ((2, 6), (4, 4), (6, 2))
    assert_parity(
        lambda w, *images: functional_call(model, w, (ids, list(images))),
        lambda w, *images: torch.cat(
            [functional_call(model, w, (ids[i : i + 1], images[i][None])) for i in range(3)]
        ),
        tuple(torch.randn(3, *size) for size in sizes),
        weights=weights,
    )


def test_the_sequence_is_rows_with_newlines_and_then_text():
    model, x = small(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    found = model.image_tokens(x).unflatten(1, (2, 4))
    assert_close(found[:, :, :3], model.look(patches(x, 2)))
    assert_close(found[:, :, 3], model.embed.weight[3].expand(2, 2, -1))
    assert small(newline=None).image_tokens(x).shape == (2, 6, 24)
    joined, starts = model.sequences(torch.zeros(2, 5, 24, dtype=torch.float64), x)
    assert joined.shape == (2, 13, 24)
    assert starts.tolist() == [8, 8]


def test_without_an_image_it_is_a_persimmon():
    model, ids = small(), torch.randint(17, (2, 7))
    assert_close(model(ids), super(Fuyu, model).forward(ids))
    assert_close(model.loss(ids), super(Fuyu, model).loss(ids))


def test_the_text_sees_the_image_and_the_image_is_not_predicted():
    model, ids = small(), torch.randint(17, (2, 4))
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    loss = model.loss(ids, x)
    loss.backward()
    assert x.grad.abs().sum() > 0
    said = model(ids, x.detach())
    assert said.shape == (2, 4, 17)
    assert_close(loss, F.cross_entropy(said[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def test_layout():
    assert layout(300, 300) == (10, 10, 110)
    assert layout(1080, 1920) == (36, 64, 36 * 65)
    assert layout(31, 30) == (2, 1, 4)


def test_image_tokens_in_half_precision(assert_half_precision):
    model = Fuyu(40, patch=4, newline=1, model=32, heads=2, layers=1, hidden=64)

    def strided(weights, x):
        filters = weights["look.weight"].unflatten(1, (3, 4, 4))
        seen = F.conv2d(x, filters, weights["look.bias"], stride=4).permute(0, 2, 3, 1)
        newline = weights["embed.weight"][1].expand(*seen.shape[:2], 1, -1)
        return torch.cat((seen, newline), 2).flatten(1, 2)

    kept = {"look.weight", "look.bias", "embed.weight"}
    assert_half_precision(
        lambda weights, x: functional_call(
            ImageTokens(model), {f"fuyu.{n}": w for n, w in weights.items()}, (x,)
        ),
        strided,
        (torch.randn(8, 3, 32, 24),),
        weights={n: torch.randn(w.shape) / 4 for n, w in model.named_parameters() if n in kept},
    )


class ImageTokens(torch.nn.Module):
    def __init__(self, fuyu: Fuyu) -> None:
        super().__init__()
        self.fuyu = fuyu

    def forward(self, x):
        return self.fuyu.image_tokens(x)


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(silent_parts, training):
    silent = silent_parts(
        small().train(training), torch.randint(17, (1, 3)), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    )
    assert silent == {"blocks", "blocks.0.norms", "blocks.1.norms"}


def test_the_defaults_are_the_released_ones():
    with torch.device("meta"):
        model = Fuyu()
    assert (model.patch, model.newline) == (30, 71_019)
    assert sum(w.numel() for w in model.parameters()) == 9_408_238_592


@pytest.mark.parametrize("size", its.SIZES)
def test_the_questions_have_the_right_answers(size):
    asked = its.draw(60, *size, torch.Generator().manual_seed(1))
    assert asked.images.shape == (60, 1, 2 * size[0], 2 * size[1])
    cross = torch.tensor([1.0, -1.0, -1.0, 1.0])
    marks = patches(asked.images, 2) @ cross / 4
    for grid, answer in zip(marks, asked.answers.tolist(), strict=True):
        assert grid.argmax().item() % size[1] == answer
    assert set(asked.answers.tolist()) == set(range(size[1]))


def test_the_arms_differ_only_in_the_mark_of_a_row_end():
    made = {name: arm.make() for name, arm in (its.ARMS | its.REPLACED).items()}
    assert {name: (type(one).__name__, one.newline) for name, one in made.items()} == {
        "newlines": ("Fuyu", 1),
        "none": ("Fuyu", None),
        "newlines at random positions": ("Anywhere", 1),
        "leading width token": ("WidthFirst", None),
        "column embeddings": ("Columns", None),
    }
    shapes = [{name: weight.shape for name, weight in one.state_dict().items()} for one in made.values()]
    assert all(one == shapes[0] for one in shapes)
    assert its.UNSEEN == ((3, 5), (5, 3), (4, 4))
    assert set(its.SEEN) | set(its.UNSEEN) == set(its.SIZES)
    assert (its.RATES, its.STEPS) == ((0.004, 0.008, 0.016), 400)
    assert digest(its) == "2c2bf79f6925"


def test_the_breaks_see_the_same_patches():
    x = torch.randn(2, 1, 6, 8)
    anywhere, width = (
        its.REPLACED[name].make() for name in ("newlines at random positions", "leading width token")
    )
    seen, newline = anywhere.look(patches(x, 2)).flatten(1, 2), anywhere.embed.weight[its.NEWLINE]
    found = anywhere.image_tokens(x)
    ends = (found == newline).all(2)[0]
    assert ends.sum() == 3
    assert_close(found[:, ~ends], seen)
    found = width.image_tokens(x)
    assert_close(found[:, 0], width.embed.weight[its.FIRST + 3].expand(2, -1))
    assert_close(found[:, 1:], width.look(patches(x, 2)).flatten(1, 2))
    columns = its.REPLACED["column embeddings"].make()
    added = columns.image_tokens(x) - columns.look(patches(x, 2)).flatten(1, 2)
    assert_close(added, columns.embed.weight[its.FIRST : its.FIRST + 4].repeat(3, 1).expand(2, -1, -1))


def test_the_best_accuracy_of_the_control():
    """The best answer from the length and the mark's position alone, over the seen sizes, and a guess."""
    best = 0.0
    for length in {rows * columns for rows, columns in its.SEEN}:
        widths = [columns for rows, columns in its.SEEN if rows * columns == length]
        for place in range(length):
            best += max(Counter(place % width for width in widths).values()) / length
    assert best / len(its.SEEN) == pytest.approx(0.73, abs=0.005)
    assert sum(1 / columns for _, columns in its.SEEN) / len(its.SEEN) == pytest.approx(0.335, abs=0.005)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(fuyu)] == ["images of several sizes"]
