"""RoPE compared with its matrix equation, GPT-J's and Llama's, its invariances, and the arms."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.papers import rope
from readtrack.papers.attention import MultiHeadAttention
from readtrack.papers.rope import RotaryAttention, halves_to_pairs, line_by_line, phases, rotate
from readtrack.papers.rope.experiment import (
    BIAS,
    ONE_SPEED,
    QUERIES_ALONE,
    TOKENS,
    Characters,
    DistanceBias,
    OneSpeed,
    QueriesAlone,
)
from readtrack.plugin import Bench

EXPERIMENT = importlib.import_module("readtrack.papers.rope.experiment")  # the hook has the same name
BENCHMARK = importlib.import_module("readtrack.papers.rope.benchmark")


def positions(tokens: int) -> Tensor:
    return torch.arange(tokens, dtype=torch.float64)


@pytest.mark.parametrize(("batch", "heads", "tokens", "dim"), [(1, 1, 1, 2), (2, 3, 5, 6), (1, 2, 7, 10)])
def test_the_product_is_the_papers_matrix_and_its_gradient(assert_parity, batch, heads, tokens, dim):
    freqs_cis = phases(positions(tokens) * 3, dim)
    assert_parity(
        lambda x: rotate(x, freqs_cis),
        lambda x: line_by_line(x, freqs_cis),
        (torch.randn(batch, heads, tokens, dim),),
    )


def test_a_pair_turns_by_position_times_speed():
    freqs_cis = phases(torch.tensor([0.0, 3.0]).double(), 4, base=100.0)
    assert_close(freqs_cis.angle(), torch.tensor([[0.0, 0.0], [3.0, 0.3]]).double())
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2).double()
    found = rotate(x, freqs_cis)
    assert torch.equal(found[0], x[0])
    expected = torch.tensor([math.cos(3), math.sin(3), math.cos(0.3), math.sin(0.3)]).double()
    assert_close(found[1], expected, rtol=0, atol=1e-7)


def test_gpt_js_is_ours(assert_parity):
    """GPT-J pairs neighbouring coordinates, as in the paper."""
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj", reason="needs transformers")
    freqs_cis = phases(positions(7), 6)
    c, s = freqs_cis.real[None], freqs_cis.imag[None]
    assert_parity(
        lambda x: rotate(x.transpose(1, 2), freqs_cis).transpose(1, 2),
        lambda x: gptj.apply_rotary_pos_emb(x, s, c),
        (torch.randn(2, 7, 3, 6),),
    )


def test_llamas_is_ours_in_another_order(assert_parity):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="needs transformers")
    config = llama.LlamaConfig(hidden_size=24, num_attention_heads=3, max_position_embeddings=64)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    c, s = llama.LlamaRotaryEmbedding(config)(torch.zeros(1, dtype=torch.float64), torch.arange(7)[None])
    freqs_cis = phases(torch.arange(7), 8, base=500.0)
    order = halves_to_pairs(8)
    back = order.argsort()
    assert_parity(
        lambda q, k: (
            rotate(q[..., order], freqs_cis)[..., back],
            rotate(k[..., order], freqs_cis)[..., back],
        ),
        lambda q, k: llama.apply_rotary_pos_emb(q, k, c, s),
        (torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)),
        rtol=1e-5,  # Llama's angles are in single precision
        atol=1e-5,
    )


def test_the_gradient_matches_finite_differences():
    freqs_cis = phases(positions(3), 4)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, freqs_cis), (x,))


def test_scores_depend_on_distance_alone_and_lengths_stay():
    q, k = torch.randn(2, 9, 16, dtype=torch.float64)
    here, there = phases(positions(9), 16), phases(positions(9) + 123, 16)
    scores = rotate(q, here) @ rotate(k, here).mT
    assert_close(rotate(q, there) @ rotate(k, there).mT, scores, rtol=0, atol=1e-11)
    assert (q @ k.mT - scores).abs().max() > 0.1
    assert_close(rotate(q, there).norm(dim=-1), q.norm(dim=-1))


def test_low_precision_is_turned_in_single():
    x = torch.randn(2, 9, 16).bfloat16()
    freqs_cis = phases(torch.arange(9), 16)
    found = rotate(x, freqs_cis)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, rotate(x.float(), freqs_cis).bfloat16())


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="need an even head size, not 5"):
        phases(positions(3), 5)


@pytest.mark.parametrize("halves", [BENCHMARK.as_llama, BENCHMARK.rolled])
def test_the_forms_on_halves_are_the_same_in_another_order(assert_parity, halves):
    (freqs_cis,), parts = BENCHMARK.angles(5, 6, torch.device("cpu"), torch.float64)
    order = halves_to_pairs(6)
    assert_parity(
        lambda x: rotate(x, freqs_cis),
        lambda x: halves(*BENCHMARK.to_halves(x), *parts)[..., order],
        (torch.randn(2, 5, 6),),
    )


def test_half_precision_is_nearly_as_accurate_as_llamas_form(assert_half_precision):
    freqs_cis = phases(torch.arange(64), 64)
    order = halves_to_pairs(64)
    back = order.argsort()

    def halves(x: Tensor) -> Tensor:
        parts = (torch.cat((part, part), -1).to(x.dtype) for part in (freqs_cis.real, freqs_cis.imag))
        return BENCHMARK.as_llama(x[..., back], *parts)[..., order]

    assert_half_precision(lambda x: rotate(x, freqs_cis), halves, (torch.randn(2, 64, 64),))


def test_autocast_works_with_a_small_error():
    layer, x = RotaryAttention(32, 2), torch.randn(2, 9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x, causal=True)
    assert_close(y.float(), layer(x, causal=True), rtol=0.05, atol=0.02)
    y.float().sum().backward()
    assert layer.key.weight.grad.isfinite().all()


def test_second_derivatives():
    freqs_cis = phases(positions(3), 4)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, freqs_cis).pow(2), (x,))


# The layer


@pytest.mark.parametrize("causal", [False, True])
def test_the_layer_matches_torchs_attention_between_turned_vectors(assert_parity, causal):
    layer, freqs_cis = RotaryAttention(12, 3).double(), phases(positions(7) + 2, 4)

    def reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
        q, k, v = (
            (x @ w[f"{name}.weight"].T).unflatten(-1, (3, 4)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        turned = (line_by_line(vectors, freqs_cis) for vectors in (q, k))
        found = F.scaled_dot_product_attention(*turned, v, is_causal=causal)
        return found.transpose(1, 2).flatten(2) @ w["output.weight"].T

    assert_parity(
        lambda w, x: functional_call(layer, w, (x,), {"first": 2, "causal": causal}),
        reference,
        (torch.randn(2, 7, 12),),
        weights=dict(layer.named_parameters()),
    )


def test_order_matters_to_the_layer_but_the_first_position_does_not():
    layer, x = RotaryAttention(12, 3).double(), torch.randn(1, 6, 12, dtype=torch.float64)
    assert_close(layer(x, first=400), layer(x), rtol=0, atol=1e-11)
    assert (layer(x.flip(1)).flip(1) - layer(x)).abs().max() > 1e-3


def test_rotation_adds_no_parameters():
    with torch.device("meta"):
        ours, plain = RotaryAttention(768, 12), MultiHeadAttention(768, 12)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert sum(p.numel() for p in ours.parameters()) == 4 * 768 * 768


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(rope)
    arms = {"rotated", "learned positions", "sines"}
    assert record.curves["loss at rate 0.003"].keys() == arms
    assert record.curves["training loss at the best rate"].keys() == arms
    assert record.curves["score of equal vectors over distance"]["rotated"][0] == (0, 1.0)
    assert [claim["verdict"] for claim in record.claims] == ["held", "not judged"]
    assert record.values["held-out loss", "bigram"] == pytest.approx(2.5, abs=0.3)


LOSSES = {"rotated": 2.0, "learned positions": 2.4, "sines": 2.25}
USUAL = {
    "rotated": (RotaryAttention, type(None)),
    "learned positions": (MultiHeadAttention, nn.Parameter),
    "sines": (MultiHeadAttention, Tensor),
}


def made_up_arms(run_experiment, monkeypatch, **options):
    """The trained arms, their learning rates, and the claim. Losses are made up, with the best at 0.01."""
    models: dict[str, Characters] = {}
    rates: dict[str, list[float]] = {}

    def train(at, make, rate):
        arm = at.name.partition(", as")[0]
        models[arm] = make(at.world.vocab, 8)
        rates.setdefault(arm, []).append(rate)
        at.metric("loss", rate, step=0)
        models[arm].loss_made_up = LOSSES[arm] if rate == 0.01 else 9.0
        return abs(rate - 0.01), EXPERIMENT.Trained(models[arm], {0: 3.0})

    monkeypatch.setattr(EXPERIMENT, "train", train)
    monkeypatch.setattr(EXPERIMENT, "held_out", lambda at, model, part: model.loss_made_up)
    record = run_experiment(rope, budget="quick", **options)
    kinds = {arm: (type(m.blocks[0].attention), type(m.positions)) for arm, m in models.items()}
    return models, kinds, rates, record.claims[-1]


def test_the_arms_and_the_metrics_of_their_losses(run_experiment, monkeypatch):
    models, kinds, rates, claim = made_up_arms(run_experiment, monkeypatch)
    assert kinds == USUAL
    assert rates == {arm: [1e-3, 3e-3, 1e-2, 3e-2] for arm in USUAL}
    assert claim["values"]["loss saved over learned positions"] == pytest.approx(0.4)
    assert claim["values"]["loss saved over sines"] == pytest.approx(0.25)
    assert models["rotated"].blocks[0].attention.base == 10000.0
    assert_close(models["sines"].positions, rope.sines(phases(torch.arange(TOKENS), 8)))
    learned = models["learned positions"].positions
    assert learned.shape == (TOKENS, 8)
    assert learned.std().item() == pytest.approx(1, rel=0.1)  # smaller embeddings perform worse


def test_a_null_run_has_learned_positions_under_every_name(run_experiment, monkeypatch):
    _, kinds, _, _ = made_up_arms(run_experiment, monkeypatch, null=True)
    assert kinds == dict.fromkeys(USUAL, USUAL["learned positions"])


@pytest.mark.parametrize(
    ("broken", "layer"), [(QUERIES_ALONE, QueriesAlone), (ONE_SPEED, OneSpeed), (BIAS, DistanceBias)]
)
def test_breaks_replace_the_rotated_arm_alone(run_experiment, monkeypatch, broken, layer):
    _, kinds, _, _ = made_up_arms(run_experiment, monkeypatch, broken=broken.name)
    assert kinds == USUAL | {"rotated": (layer, type(None))}


def test_the_rival_adds_a_number_for_each_distance():
    layer, x = DistanceBias(12, 3), torch.randn(2, 7, 12)
    nn.init.normal_(layer.bias)
    q, k, v = (
        project(x).unflatten(-1, (3, 4)).transpose(1, 2) for project in (layer.query, layer.key, layer.value)
    )
    scores = q @ k.mT / 2
    for head in range(3):
        for query in range(7):
            for key in range(7):
                bias = layer.bias[head, query - key] if key <= query else -math.inf
                scores[:, head, query, key] += bias
    expected = layer.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert_close(layer(x, causal=True), expected)
    layer(x, causal=True).sum().backward()
    assert layer.bias.grad[:, :7].all()


def test_the_effects_of_the_breaks():
    q, k = torch.randn(2, 1, 1, 9, 8, dtype=torch.float64)

    def moved(layer: type[RotaryAttention]) -> Tensor:
        here, there = (layer(8, 1).turn(q, k, positions(9) + first) for first in (0, 50))
        return (here[0] @ here[1].mT - there[0] @ there[1].mT).abs().max()

    assert moved(RotaryAttention) < 1e-10
    assert moved(QueriesAlone) > 0.1
    assert moved(OneSpeed) < 1e-10
    turned, _ = OneSpeed(8, 1).turn(q, k, positions(9))
    by = torch.view_as_complex(turned.unflatten(-1, (-1, 2))) / torch.view_as_complex(
        q.unflatten(-1, (-1, 2))
    )
    assert_close(
        by[0, 0, 3], torch.polar(torch.ones(4), torch.full((4,), 3.0)).to(by.dtype), rtol=0, atol=1e-6
    )


def model(attention: type[MultiHeadAttention], added: Tensor | None) -> Characters:
    return Characters(7, attention, added, model=8)


ARMS = {
    "rotated": lambda: model(RotaryAttention, None),
    "learned": lambda: model(MultiHeadAttention, nn.Parameter(torch.randn(8, 8))),
    "sines": lambda: model(MultiHeadAttention, rope.sines(phases(torch.arange(8), 8))),
}


@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_sees_its_target(arm):
    characters = ARMS[arm]()
    text = torch.randint(7, (1, 8))
    changed = text.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 7
    assert_close(characters(text)[:, :5], characters(changed)[:, :5])


def test_the_control_arms_know_positions_and_differ_only_in_them():
    text = torch.tensor([[1, 1, 1, 1]])
    sizes = set()
    for arm, make in ARMS.items():
        characters = make()
        learns = sum(parameter is characters.positions for parameter in characters.parameters())
        assert learns == (arm == "learned")
        sizes.add(sum(p.numel() for p in characters.parameters()) - 64 * learns)
        logits = characters(text)[0]
        # With equal tokens a rotation has no effect, because their values are equal, too.
        assert torch.allclose(logits[0], logits[3], atol=1e-5) == (arm == "rotated")
    assert len(sizes) == 1


def test_the_bigrams_loss_matches_a_count_by_hand():
    text = EXPERIMENT.data.Parts((torch.tensor([0, 1, 0, 1, 1]),), (), ())
    after_0, after_1 = {0: 0.1, 1: 2.1}, {0: 1.1, 1: 1.1}
    expected = -(math.log(after_0[1] / 2.2) + math.log(after_1[1] / 2.2) + math.log(after_1[0] / 2.2)) / 3
    assert EXPERIMENT.bigram_loss(text, torch.tensor([[0, 1, 1, 0]]), 2) == pytest.approx(expected)


def test_the_judged_text_is_not_used_for_training_or_choices(part_of_run):
    """The ids are positions in the text."""
    run = part_of_run()
    text = EXPERIMENT.Text(EXPERIMENT.data.stretches(torch.arange(100_000), 0), 9)
    judge, choose = (text.windows(run, part) for part in ("judge", "choose"))
    assert judge.shape == choose.shape == (128, TOKENS + 1)
    (to_judge,), (to_choose,) = text.parts.judge, text.parts.choose
    assert torch.isin(judge, to_judge).all()
    assert torch.isin(choose, to_choose).all()
    assert not torch.isin(judge, torch.cat((*text.parts.train, to_choose))).any()


def test_the_sines_are_the_transformers():
    found = rope.sines(phases(torch.arange(5), 6))
    for m in range(5):
        for j in range(3):
            angle = m / 10000 ** (2 * j / 6)
            assert found[m, 2 * j].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[m, 2 * j + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_every_variant_is_right(check_benchmark):
    (case,) = check_benchmark(rope)
    assert case.cost["forward"].bytes == 2 * 2 * 16 * 8 * 4


@pytest.mark.parametrize(("device", "double"), [("cpu", True), ("mps", False)])
def test_the_benchmark_has_angles_for_every_precision_of_the_oracle(monkeypatch, device, double):
    asked = set()
    angles = BENCHMARK.angles

    def on_the_cpu(tokens, dim, device, dtype):
        asked.add(dtype)
        return angles(tokens, dim, torch.device("cpu"), dtype)

    monkeypatch.setattr(BENCHMARK, "angles", on_the_cpu)
    list(rope.benchmark(Bench(device=torch.device(device), dtype=torch.bfloat16, budget="smoke")))
    assert asked == {torch.bfloat16, torch.float32} | ({torch.float64} if double else set())
