"""CLIP compared with transformers' with mapped weights, and its attention pool and losses with explicit
formulas.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import clip
from readtrack.papers.clip import (
    CLIP,
    AttentionPool,
    ResNetTower,
    TextTower,
    VisionTower,
    classifier,
    contrastive,
    from_released,
    resnet_from_released,
    task,
    two_cross_entropies,
)
from readtrack.papers.clip.small import Contrastive, OthersTexts, Words
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.clip.experiment")

# Against transformers

TEXT = {"vocab": 17, "context": 7, "width": 12, "heads": 3, "layers": 2, "dim": 10}
VISION = {"size": 12, "patch": 4, "width": 8, "heads": 2, "layers": 3, "dim": 10}


def small(times: int = 1) -> CLIP:
    """Towers whose sizes are multiplied by `times`."""
    vision, text = (size | {"width": times * size["width"]} for size in (VISION, TEXT))
    return CLIP(VisionTower(**vision), TextTower(**text))


def reference(times: int = 1) -> CLIPModel:
    """A reference of the same sizes, with torch's attention, because its own computes the softmax in
    single precision.
    """
    text = {
        "vocab_size": 17,
        "max_position_embeddings": 7,
        "hidden_size": 12 * times,
        "intermediate_size": 48 * times,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "eos_token_id": 16,
        "bos_token_id": 15,
        "pad_token_id": 0,
    }
    vision = {
        "image_size": 12,
        "patch_size": 4,
        "hidden_size": 8 * times,
        "intermediate_size": 32 * times,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=10, attn_implementation="sdpa")
    return CLIPModel(config).eval()


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """Random values for all parameters, because initial gains of 1 and biases of 0 could hide a mistake."""
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


def their_names(theirs: CLIPModel) -> dict[str, str]:
    """Maps our names to the reference's."""
    marked = {name: torch.tensor(float(i)) for i, (name, _) in enumerate(theirs.named_parameters())}
    names = list(marked)
    return {ours: names[int(index)] for ours, index in from_released(marked).items()}


def texts(count: int) -> Tensor:
    """Texts of different lengths; after the end token, 16, come other tokens."""
    ids = torch.randint(16, (count, 7))
    ids[torch.arange(count), torch.randint(2, 7, (count,))] = 16
    return ids


def test_logits_and_loss_match_transformers(assert_parity):
    ours, theirs = small().double(), reference().double()
    names, ids, images = their_names(theirs), texts(5), torch.randn(5, 3, 12, 12)
    assert sorted(names) == sorted(name for name, _ in ours.named_parameters())

    def our_results(weights: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(ours, weights, (pixels, ids))
        seen, said = functional_call(
            Embeds(ours), {f"clip.{k}": v for k, v in weights.items()}, (pixels, ids)
        )
        return logits, contrastive(seen, said, weights["log_scale"].exp())

    def their_results(weights: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
        renamed = {names[name]: weight for name, weight in weights.items()}
        found = functional_call(
            theirs, renamed, (), {"input_ids": ids, "pixel_values": pixels, "return_loss": True}
        )
        return found.logits_per_image, found.loss

    assert_parity(our_results, their_results, [images], weights=randomised(ours), rtol=1e-9, atol=1e-10)


class Embeds(nn.Module):
    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.clip.embed(images, ids)


def test_every_token_has_the_vector_of_transformers():
    """An image generator uses the vectors after the last block or after the block before it."""
    theirs, ours = reference(), small()
    ours.load_state_dict(from_released(theirs.state_dict()))
    ids = texts(4)
    found = theirs.text_model(ids, output_hidden_states=True)
    assert_close(ours.text.hidden(ids), found.last_hidden_state)
    before = theirs.text_model.final_layer_norm(found.hidden_states[-2])
    assert_close(ours.text.hidden(ids, last=-1), before)


def test_released_weights_fit_and_others_are_refused():
    ours = small()
    released = reference().state_dict()
    released["text_model.embeddings.position_ids"] = torch.arange(7)
    assert from_released(released).keys() == ours.state_dict().keys()
    for name in ("text_model.nothing.weight", "text_model.encoder.layers.0.nothing.bias", "head.weight"):
        with pytest.raises(ValueError, match=name):
            from_released({name: torch.ones(1)})


@pytest.mark.slow
def test_half_precision_is_as_accurate_as_in_transformers(assert_half_precision):
    ours, theirs = small(8), reference(8)
    names, ids, images = their_names(theirs), texts(16), torch.randn(16, 3, 12, 12)

    def their_logits(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
        renamed = {names[name]: weight for name, weight in weights.items()}
        inputs = {"input_ids": ids, "pixel_values": pixels}
        return functional_call(theirs.to(pixels.dtype), renamed, (), inputs).logits_per_image

    assert_half_precision(
        lambda weights, pixels: functional_call(ours, weights, (pixels, ids)),
        their_logits,
        [images],
        weights=[{name: weight / 4 for name, weight in randomised(ours).items()} for _ in range(12)],
    )


# Towers


def test_parameters_are_the_released_ones():
    with torch.device("meta"):
        assert count(CLIP(VisionTower(), TextTower())) == 151_277_313
        assert count(ResNetTower()) == 38_316_896
        assert count(CLIP(ResNetTower(), TextTower(dim=1024))) == 102_007_137


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_tokens_after_the_end_token_are_not_seen():
    tower, ids = TextTower(**TEXT).double(), texts(6)
    ends = ids.argmax(1)
    changed = torch.where(torch.arange(7) > ends[:, None], (ids + 1) % 16, ids)
    assert not torch.equal(ids, changed)
    assert_close(tower(changed), tower(ids))
    short = ids[:1, : ends[0] + 1]
    assert_close(tower(short), tower(ids)[:1])
    with pytest.raises(ValueError, match="8 tokens, but the tower has 7 positions"):
        tower(torch.zeros(1, 8, dtype=torch.long))


def test_images_that_patches_do_not_fill_are_refused():
    with pytest.raises(ValueError, match="13 pixels cannot be cut into patches of 4"):
        VisionTower(size=13, patch=4)
    with pytest.raises(ValueError, match="48 pixels cannot be halved five times"):
        ResNetTower(size=48)


def test_weights_begin_as_in_the_released_code():
    tower = TextTower(300, context=200, width=64, heads=4, layers=8, dim=64)
    assert tower.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert tower.positions.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert tower.projection.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    for block in tower.blocks:
        for layer in (block.attention.query, block.attention.key, block.attention.value):
            assert layer.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
        assert block.feed_forward[0].weight.std().item() == pytest.approx(128**-0.5, rel=0.1)
        for layer in (block.attention.output, block.feed_forward[2]):
            assert layer.weight.std().item() == pytest.approx(1 / 8 / 4, rel=0.1)
        assert not any(layer.bias.any() for layer in block.modules() if isinstance(layer, nn.Linear))
    assert small().scale().item() == pytest.approx(1 / 0.07)
    pool = AttentionPool(4, 64, 4, 64)
    assert pool.query.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    last = ResNetTower(size=32, blocks=(1, 1, 1, 1), width=8, heads=4, dim=6).stages[1][0].layers[2]
    assert not last.normalization.weight.any()


def test_the_scale_stays_below_100():
    model = small()
    model.log_scale.data.fill_(9.0)
    assert model.scale().item() == 100
    model.scale().backward()
    assert model.log_scale.grad > 0  # positive, so the scale can decrease again


def test_attention_pool_is_its_formula(assert_parity):
    pool = AttentionPool(3, 12, 4, 5).double()

    def formula(weights: dict[str, Tensor], maps: Tensor) -> Tensor:
        """The formula, image by image and head by head."""
        results = []
        for image in maps:
            places = [image[:, y, x] for y in range(3) for x in range(3)]
            x = torch.stack([sum(places) / 9, *places]) + weights["positions.weight"]
            q = weights["query.weight"] @ x[0] + weights["query.bias"]
            k = x @ weights["key.weight"].T + weights["key.bias"]
            v = x @ weights["value.weight"].T + weights["value.bias"]
            heads = []
            for head in range(4):
                part = slice(3 * head, 3 * head + 3)
                weight = (k[:, part] @ q[part] / math.sqrt(3)).exp()
                heads.append(weight / weight.sum() @ v[:, part])
            results.append(weights["output.weight"] @ torch.cat(heads) + weights["output.bias"])
        return torch.stack(results)

    assert_parity(
        lambda weights, maps: functional_call(pool, weights, (maps,)),
        formula,
        [torch.randn(2, 12, 3, 3)],
        weights=randomised(pool),
    )


class Released(nn.Module):
    """A bottleneck block with the names of the released files, from torch's functions."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        self.held, self.prefix, self.stride = weights, prefix, stride

    def unit(self, x: Tensor, conv: str, bn: str, padding: int = 0) -> Tensor:
        w = self.held
        x = F.conv2d(x, w[f"{self.prefix}{conv}.weight"], padding=padding)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(w[f"{self.prefix}{bn}.{name}"] for name in names))

    def forward(self, x: Tensor) -> Tensor:
        y = self.unit(x, "conv1", "bn1").relu()
        y = self.unit(y, "conv2", "bn2", 1).relu()
        y = self.unit(F.avg_pool2d(y, self.stride), "conv3", "bn3")
        if f"{self.prefix}downsample.0.weight" in self.held:
            x = self.unit(F.avg_pool2d(x, self.stride), "downsample.0", "downsample.1")
        return (x + y).relu()


def released_names(tower: ResNetTower) -> dict[str, str]:
    """Maps the released names to ours, by trying every possible name."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    units = [f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)]
    blocks = [f"layer{s}.{b}." for s in (1, 2, 3, 4) for b in (0, 1)]
    parts = [*units, *(b + u for b in blocks for u in (*units, "downsample.0", "downsample.1"))]
    parts += [f"attnpool.{p}_proj" for p in "qkvc"]
    possible = ["attnpool.positional_embedding", *(f"{part}.{kind}" for part in parts for kind in kinds)]
    ours = tower.state_dict().keys()
    found = {name: next(iter(resnet_from_released({f"visual.{name}": torch.ones(1)}))) for name in possible}
    return {theirs: mine for theirs, mine in found.items() if mine in ours}


def test_released_weights_of_the_residual_tower():
    """Every weight has its place, and the tower computes the same as the released code."""
    tower = ResNetTower(size=64, blocks=(2, 1, 1, 1), width=8, heads=4, dim=6).double().eval()
    names = released_names(tower)
    assert sorted(names.values()) == sorted(tower.state_dict())
    held = {theirs: torch.rand_like(tower.state_dict()[mine]) - 0.3 for theirs, mine in names.items()}
    held = {n: t.abs() + 0.5 if n.endswith(("running_var", "bn3.weight")) else t for n, t in held.items()}
    counts = {"visual.bn1.num_batches_tracked": torch.tensor(3)}
    tower.load_state_dict(resnet_from_released({f"visual.{n}": t for n, t in held.items()} | counts))
    x = images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    stem = Released(held, "", 1)
    for i in (1, 2, 3):
        x = F.conv2d(x, held[f"conv{i}.weight"], stride=2 if i == 1 else 1, padding=1)
        kinds = ("running_mean", "running_var", "weight", "bias")
        x = F.batch_norm(x, *(stem.held[f"bn{i}.{kind}"] for kind in kinds)).relu()
    x = F.avg_pool2d(x, 2)
    for prefix in ("layer1.0.", "layer1.1.", "layer2.0.", "layer3.0.", "layer4.0."):
        x = Released(held, prefix, 1 if prefix.startswith("layer1") else 2)(x)
    x = x.flatten(2).permute(2, 0, 1)
    x = torch.cat((x.mean(0, keepdim=True), x)) + held["attnpool.positional_embedding"][:, None]
    pooled, _ = F.multi_head_attention_forward(
        x[:1],
        x,
        x,
        embed_dim_to_check=256,
        num_heads=4,
        q_proj_weight=held["attnpool.q_proj.weight"],
        k_proj_weight=held["attnpool.k_proj.weight"],
        v_proj_weight=held["attnpool.v_proj.weight"],
        in_proj_weight=None,
        in_proj_bias=torch.cat([held[f"attnpool.{p}_proj.bias"] for p in "qkv"]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0,
        out_proj_weight=held["attnpool.c_proj.weight"],
        out_proj_bias=held["attnpool.c_proj.bias"],
        use_separate_proj_weight=True,
        training=False,
        need_weights=False,
    )
    assert_close(tower(images), pooled[0])
    with pytest.raises(ValueError, match=r"fc\.weight"):
        resnet_from_released({"visual.fc.weight": torch.ones(1)})


@pytest.mark.parametrize("vision", ["transformer", "residual network"])
def test_hooks_fire_and_it_trains_under_autocast(vision):
    residual = ResNetTower(size=32, blocks=(1, 1, 1, 1), width=8, heads=4, dim=10)
    tower = VisionTower(**VISION) if vision == "transformer" else residual
    model, called = CLIP(tower, TextTower(**TEXT)), Counter()
    for name, part in model.named_modules():
        if not isinstance(part, nn.ModuleList | nn.Embedding):
            part.register_forward_hook(lambda *_, name=name: called.update([name]))
    side = 12 if vision == "transformer" else 32
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(torch.randn(4, 3, side, side), texts(4))
        model(torch.randn(4, 3, side, side), texts(4))
    loss.backward()
    parts = {n for n, m in model.named_modules() if not isinstance(m, nn.ModuleList | nn.Embedding)}
    assert parts - called.keys() == set()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


# Losses


@pytest.mark.parametrize("rows", [3, 7, 20])
def test_losses_are_their_formula(assert_parity, rows):
    """Computes the losses of 7 pairs in three unequal chunks, in one chunk, and in a larger chunk."""
    seen, said = (F.normalize(torch.randn(7, 5), dim=1) for _ in range(2))

    def formula(seen: Tensor, said: Tensor, scale: Tensor) -> Tensor:
        total = 0.0
        for i in range(7):
            to_texts = sum((scale * seen[i] @ said[j]).exp() for j in range(7))
            to_images = sum((scale * seen[j] @ said[i]).exp() for j in range(7))
            own = (scale * seen[i] @ said[i]).exp()
            total = total - (own / to_texts).log() - (own / to_images).log()
        return total / 14

    inputs = [seen, said, torch.tensor(9.0)]
    assert_parity(two_cross_entropies, formula, inputs)
    assert_parity(lambda *each: contrastive(*each, rows=rows), formula, inputs)


def test_second_derivatives_of_the_loss_in_parts():
    seen, said = (torch.randn(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda *x: contrastive(*x, rows=2), (seen, said, scale))


def test_losses_in_half_precision(assert_half_precision):
    seen, said = (F.normalize(torch.randn(96, 64), dim=1) for _ in range(2))
    assert_half_precision(
        lambda *each: contrastive(*each, rows=32), two_cross_entropies, [seen, said, torch.tensor(16.0)]
    )


# The classifier


def test_a_class_is_the_mean_of_its_prompts():
    tower = TextTower(**TEXT)
    first, second = texts(3), texts(2)
    found = classifier(tower, [first, second])
    for ids, vector in zip((first, second), found, strict=True):
        each = tower(ids)
        mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
        assert_close(vector, mean / mean.norm())


# Experiment and benchmark


def test_captions_describe_the_scene_with_one_name_per_word():
    generator = torch.Generator().manual_seed(0)
    said = {task.caption(3, 0, 1, generator) for _ in range(300)}
    allowed = {*task.DIGITS[3], *task.COLOURS[0], *task.PLACES[1], *task.FILLERS}
    others = {word for form in task.FORMS for word in form.split()} - {"{digit}", "{colour}", "{place}"}
    assert {word for text in said for word in text.split()} <= allowed | others
    assert {"a red three", "a crimson trio", "the trio on the garden"} <= said
    assert len(task.WORDS) == len(set(task.WORDS))


def test_texts_become_numbers_an_end_and_filling():
    ids = task.encode(["A 'red', three!", "purple", "a " * 20])
    assert [task.WORDS[i] for i in ids[0, :3]] == ["a", "red", "three"]
    assert ids[0, 3:].tolist() == [task.END, *[0] * 6]
    assert ids[1].tolist() == [task.END, *[0] * 9]  # a word that occurs in no caption
    assert ids[2].argmax() == 9
    counts = task.bags(task.encode(["a red a", ""]))
    assert counts.sum(1).tolist() == [3, 0]
    assert counts[0, task.WORDS.index("a")] == 2


def test_pairs_and_their_prompts():
    found = task.prompts()
    assert len(found) == experiment_module.PAIRS == 42
    assert found[2 * 7 + 4] == ["a blue four", "four in blue", "a photo of the blue number four"]
    assert experiment_module.name(2 * 7 + 4) == "blue four"
    assert sorted(experiment_module.SEEN + experiment_module.UNSEEN) == list(range(42))
    seen = [divmod(pair, 7) for pair in experiment_module.SEEN]
    assert {colour for colour, _ in seen} == set(range(6))
    assert {digit for _, digit in seen} == set(range(7))


def pictures(count: int = 8) -> tuple[Tensor, Tensor]:
    ids = task.encode([task.prompts()[5 * i][0] for i in range(count)])
    return torch.randn(count, 3, 16, 16), ids


def test_both_arms_have_the_same_image_tower():
    ours, theirs = Contrastive(), Words()
    towers = [ours.clip.vision, theirs.tower]
    shapes = [{n: w.shape for n, w in t.named_parameters() if "output" not in n} for t in towers]
    assert shapes[0] == shapes[1]
    assert theirs.tower.pool.output.out_features == task.VOCAB


def test_the_words_arm_is_a_softmax_over_all_words():
    model, (x, ids) = Words().eval(), pictures()
    bags = task.bags(ids)
    wanted = -(bags / bags.sum(1, keepdim=True) * model.tower(x).log_softmax(1)).sum(1).mean()
    assert_close(model.loss(x, ids), wanted)


def test_scores_of_words_are_those_that_tell_classes_apart():
    model, (x, _) = Words().eval(), pictures()
    prompts = [task.encode(task.prompts()[pair]) for pair in (0, 8)]
    likely = model.tower(x).log_softmax(1)
    names = [(task.COLOURS[c][0], task.DIGITS[d][0]) for c, d in ((0, 0), (1, 1))]
    wanted = [sum(likely[:, task.WORDS.index(word)] for word in pair) / 2 for pair in names]
    assert_close(model.scores(x, prompts), torch.stack(wanted, 1))


def test_contests_of_two_are_among_neighbours():
    model, (x, ids) = Contrastive(2).eval(), pictures(4)
    seen, said = model.clip.embed(x, ids)
    halves = [two_cross_entropies(seen[i : i + 2], said[i : i + 2], model.clip.scale()) for i in (0, 2)]
    assert_close(model.loss(x, ids), sum(halves) / 2)
    whole = Contrastive().eval()
    whole.load_state_dict(model.state_dict())
    assert_close(whole.loss(x, ids), two_cross_entropies(seen, said, model.clip.scale()))


def test_arrival_is_where_the_smoothed_curve_crosses():
    assert experiment_module.arrival([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(10 * 2.5)
    assert experiment_module.arrival([0.1, 0.9, 0.2]) == pytest.approx(10 * 5 / 6)
    assert experiment_module.arrival([0.1, 0.9]) is None  # the last value has no mean
    limit = experiment_module.reached([0.1, 0.1, 0.1], 40)
    assert limit == AtLeast(64 * 40)
    assert experiment_module.number(limit) == experiment_module.number(2560.0) == 2560.0


# Neither arm reaches the goal in so few steps.
UNREACHED = ["images until 35 %, words / contrastive"]


@pytest.mark.slow
def test_the_experiment_runs(run_experiment):
    record = run_experiment(clip, text="a red three; purple", unreached=UNREACHED)
    assert record.headline_curve == "zero-shot accuracy"
    assert [artifact["kind"] for artifact in record.artifacts] == ["image", "image", "table"]
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("A blue FOUR, please; golden", ["a blue four please", "golden"]),
        ("purple", ["purple"]),
        (" ; ", ["a red three", "something green", "crimson trio", "white"]),
    ],
)
def test_readers_texts_are_requested(run_experiment, monkeypatch, typed, asked):
    tables = []
    original = experiment_module.Run.table

    def watched(run, name, columns, rows, **kwargs):
        tables.append(rows)
        original(run, name, columns, rows, **kwargs)

    monkeypatch.setattr(experiment_module.Run, "table", watched)
    run_experiment(clip, text=typed, unreached=UNREACHED)
    (rows,) = tables
    assert [row[0] for row in rows] == asked
    assert [row[2] for row in rows][:1] == [{"golden": "please", "purple": "purple"}.get(asked[-1], "")]


def test_each_image_of_the_break_has_its_neighbours_text():
    model, (x, ids) = OthersTexts().eval(), pictures(4)
    seen, said = model.clip.embed(x, ids[torch.tensor([3, 0, 1, 2])])
    assert_close(model.loss(x, ids), two_cross_entropies(seen, said, model.clip.scale()))


def test_rare_words_count_more():
    x, ids = pictures()
    weights = experiment_module.word_weights(ids)
    bags = task.bags(ids)
    for word in range(task.VOCAB):
        assert weights[word] == 1 / max(1, sum(bag[word] > 0 for bag in bags).item())
    model = Words(weights).eval()
    wanted = bags * weights
    wanted = -(wanted / wanted.sum(1, keepdim=True) * model.tower(x).log_softmax(1)).sum(1).mean()
    assert_close(model.loss(x, ids), wanted)


def test_it_stops_when_both_parts_have_reached_the_goal(part_of_run, monkeypatch):
    """The model is correct on `judge` from the second evaluation on, and on `choose` from the third."""
    run, asked = part_of_run(), []
    empty = task.Captioned(torch.zeros(4, 3, 16, 16), *[torch.zeros(4).long()] * 2, pictures(4)[1])
    data = experiment_module.Data(empty, empty, empty._replace(x=empty.x + 1), empty)
    monkeypatch.setattr(run, "pick", lambda smoke, quick, full: quick)

    def accuracy(network, part):
        asked.append(part)
        return float(len(asked) > (2 if part is data.judge else 4))

    monkeypatch.setattr(experiment_module, "accuracy", accuracy)
    monkeypatch.setattr(experiment_module, "train_step", lambda *_: None)
    at = Trial(Workshop(run, data), Work(arm="words"), arm="words")
    score, found = experiment_module.learn(at, Words, 0.003)
    assert found.curve == [0.0, 1.0, 1.0, 1.0]
    assert (score, found.images) == (pytest.approx(64 * 10.5), pytest.approx(64 * 5.25))
    assert at.work.loops == [280]


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "4cfe12faeb72"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(clip)] == ["loss of a batch", "images classified"]
