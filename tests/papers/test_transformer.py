"""The Transformer compared with torch's, its sinusoids, schedule, loss, initial weights and dropout, and
the arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import transformer
from readtrack.papers.transformer import (
    SIZE,
    DecoderLayer,
    EncoderLayer,
    Transformer,
    learning_rate,
    sines,
    smoothed_cross_entropy,
)
from readtrack.papers.transformer.benchmark import cost
from readtrack.papers.transformer.experiment import (
    RATES,
    SYMBOLS,
    WIDTH,
    Attentive,
    Recurrent,
    ShortSighted,
    small_transformer,
    without_positions,
)
from readtrack.plugin import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.transformer.experiment")  # the hook has the same name

# Sections 3.5, 5.3 and 5.4


def test_sines_are_the_formulas():
    table = sines(7, 6)
    assert table.shape == (7, 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)


def test_a_fixed_offset_is_a_linear_function_of_the_sines():
    """This is the paper's reason for the encoding (section 3.5)."""
    table = sines(40, 8, dtype=torch.float64)
    found = torch.linalg.lstsq(table[:30], table[5:35]).solution
    assert_close(table[:30] @ found, table[5:35], rtol=0, atol=1e-9)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="the size 5 is odd"):
        sines(3, 5)


def test_the_learning_rate_climbs_and_falls():
    assert learning_rate(1) == pytest.approx(512**-0.5 * 4000**-1.5)
    assert learning_rate(2000) == pytest.approx(2000 * learning_rate(1))
    assert learning_rate(4000) == pytest.approx(7e-4, rel=0.01)
    assert learning_rate(16000) == pytest.approx(learning_rate(4000) / 2)


@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.0}, {"epsilon": 0.3}])
def test_the_smoothed_loss_matches_torchs(assert_parity, settings):
    target = torch.randint(5, (3, 4))
    smoothing = settings.get("epsilon", 0.1)  # the default is the paper's
    assert_parity(
        lambda logits: smoothed_cross_entropy(logits, target, **settings),
        lambda logits: F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing),
        (torch.randn(3, 4, 5),),
    )


# Layers and models against torch's


def layer_as_torch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer's parameters with the names of torch's; its projections get zero biases."""
    theirs: dict[str, Tensor] = {}
    for ours, name in (("attention", "self_attn"), ("source_attention", "multihead_attn")):
        if f"{ours}.query.weight" not in weights:
            continue
        parts = [weights[f"{ours}.{part}.weight"] for part in ("query", "key", "value")]
        theirs[f"{name}.in_proj_weight"] = torch.cat(parts)
        theirs[f"{name}.in_proj_bias"] = parts[0].new_zeros(3 * parts[0].shape[1])
        theirs[f"{name}.out_proj.weight"] = weights[f"{ours}.output.weight"]
        theirs[f"{name}.out_proj.bias"] = parts[0].new_zeros(parts[0].shape[1])
    for name, weight in weights.items():
        for ours, its in (("feed_forward.0", "linear1"), ("feed_forward.2", "linear2")):
            if name.startswith(ours):
                theirs[name.replace(ours, its)] = weight
        if name.startswith("norms."):
            _, place, kind = name.split(".")
            theirs[f"norm{int(place) + 1}.{kind}"] = weight
    return theirs


def randomised(module: nn.Module) -> dict[str, Tensor]:
    """Random values for all parameters, because initial gains of 1 and biases of 0 could hide a mistake."""
    return {name: torch.randn(weight.shape) / 2 for name, weight in module.named_parameters()}


VISIBLE = torch.tensor([[[True] * 5], [[True, True, True, False, False]]])


@pytest.mark.parametrize("visible", [None, VISIBLE])
def test_an_encoder_layer_matches_torchs(assert_parity, visible):
    ours = EncoderLayer(12, 3, 20).double()
    theirs = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True).double()
    padding = None if visible is None else ~visible[:, 0]
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,), {"visible": visible}),
        lambda w, x: functional_call(theirs, layer_as_torch(w), (x,), {"src_key_padding_mask": padding}),
        (torch.randn(2, 5, 12),),
        weights=randomised(ours),
    )


class Torchs(nn.Module):
    """torch's own Transformer between our embedding and our readout."""

    def __init__(self, vocab: int, model: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, model)
        self.stacks = nn.Transformer(model, heads, layers, layers, hidden, dropout=0.0, batch_first=True)
        # The paper normalises at the end of each sub-layer, but not again at the end of a stack.
        self.stacks.encoder.norm = self.stacks.decoder.norm = None

    def forward(self, source: Tensor, written: Tensor, table: Tensor, padding: Tensor | None) -> Tensor:
        width = self.embedding.embedding_dim
        x, y = (self.embedding(ids) * width**0.5 + table[: ids.shape[1]] for ids in (source, written))
        hidden = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool).triu(1)
        settings = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
        return self.stacks(x, y, tgt_mask=hidden, **settings) @ self.embedding.weight.T


def model_as_torch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs = {"embedding.weight": weights["embedding.weight"]}
    for stack in ("encoder.0.", "encoder.1.", "decoder.0.", "decoder.1."):
        layer = {name.removeprefix(stack): w for name, w in weights.items() if name.startswith(stack)}
        place = f"stacks.{stack.replace('.', '.layers.', 1)}"
        theirs |= {place + name: weight for name, weight in layer_as_torch(layer).items()}
    return theirs


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("visible", [None, VISIBLE])
@pytest.mark.parametrize("target", [1, 7])
def test_the_whole_model_matches_torchs(assert_parity, visible, target):
    ours, theirs = small(dropout=0.0), Torchs(11, 12, 3, 20, 2).double()
    source, written = torch.randint(11, (2, 5)), torch.randint(11, (2, target))
    padding = None if visible is None else ~visible[:, 0]
    assert_parity(
        lambda w: functional_call(ours, w, (source, written), {"visible": visible}),
        lambda w: functional_call(theirs, model_as_torch(w), (source, written, ours.positions, padding)),
        (),
        weights=randomised(ours),
        rtol=1e-8,
        atol=1e-9,
    )


# Invariants


def small(**settings) -> Transformer:
    return Transformer(11, model=12, heads=3, hidden=20, layers=2, **settings).double()


def test_a_word_does_not_see_those_after_it():
    model, source, written = small(dropout=0.0), torch.randint(11, (2, 5)), torch.randint(11, (2, 7))
    changed = written.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    assert_close(model(source, changed)[:, :4], model(source, written)[:, :4])


def test_hidden_tokens_have_no_influence():
    model, source, written = small(dropout=0.0), torch.randint(11, (2, 5)), torch.randint(11, (2, 7))
    changed = source.clone()
    changed[1, 3:] = (changed[1, 3:] + 1) % 11
    before, after = (model(s, written, visible=VISIBLE) for s in (source, changed))
    assert_close(after, before)
    assert (model(changed, written) - model(source, written))[1].abs().max() > 1e-6


def test_dropout_is_used_in_training_alone():
    model, source, written = small(dropout=0.5), torch.randint(11, (2, 5)), torch.randint(11, (2, 7))
    assert not torch.equal(model(source, written), model(source, written))
    model.eval()
    assert torch.equal(model(source, written), model(source, written))


@pytest.mark.parametrize("layer", [EncoderLayer, DecoderLayer])
def test_dropout_follows_every_sub_layer_and_is_nowhere_else(layer):
    """With everything dropped (section 5.4), only the residual path's normalisations remain."""
    layer, x = layer(12, 3, 20, dropout=1.0), torch.randn(2, 5, 12)
    sub_layers = 2 if isinstance(layer, EncoderLayer) else 3
    left = x
    for norm in layer.norms:
        left = norm(left)
    given = (x,) if sub_layers == 2 else (x, torch.randn(2, 4, 12))
    assert_close(layer(*given), left)
    dropped = []
    layer.dropout.register_forward_hook(lambda _, inputs, __: dropped.append(inputs[0]))
    layer(*given)
    assert len(dropped) == sub_layers
    assert all(part.shape == x.shape for part in dropped)


def test_dropout_follows_the_sum_of_embedding_and_position():
    model = small(dropout=1.0)
    assert (model.embed(torch.randint(11, (2, 5))) == 0).all()


def test_the_defaults_are_the_base_model_of_table_3():
    with torch.device("meta"):
        model = Transformer(9)
    layer = model.encoder[0]
    assert len(model.encoder) == len(model.decoder) == 6
    assert layer.attention.query.weight.shape == (512, 512)
    assert layer.attention.heads == 8
    assert layer.feed_forward[0].weight.shape == (2048, 512)
    assert {part.p for part in model.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_the_first_weights():
    """Embeddings have variance 1 after multiplication with the root of the model size, and so do the
    logits.
    """
    torch.manual_seed(0)
    model = Transformer(500, model=64, heads=4, hidden=128, layers=1)
    assert model.embedding.weight.std().item() == pytest.approx(64**-0.5, rel=0.02)
    model.eval()
    logits = model(torch.randint(500, (8, 20)), torch.randint(500, (8, 20)))
    assert 0.8 < logits.std().item() < 1.2


def test_the_sines_are_a_buffer_that_is_not_saved():
    model = small()
    assert_close(model.positions, sines(1024, 12, dtype=torch.float64), rtol=0, atol=1e-7)
    assert dict(model.named_buffers()).keys() == {"positions"}
    assert "positions" not in model.state_dict()


def test_more_tokens_than_the_context_are_refused():
    model = small(context=6)
    assert model.embed(torch.randint(11, (2, 6))).shape == (2, 6, 12)
    with pytest.raises(ValueError, match="7 tokens, but a context of 6"):
        model.embed(torch.randint(11, (2, 7)))


def test_half_precisions_and_autocast(assert_half_precision):
    ours = EncoderLayer(32, 4, 64)
    theirs = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    weights = {name: w.detach().clone() for name, w in ours.named_parameters()}
    assert_half_precision(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, layer_as_torch(w), (x,)),
        (torch.randn(8, 12, 32),),
        weights=weights,
    )
    model = Transformer(11, model=12, heads=3, hidden=20, layers=2, dropout=0.0)
    source, written = torch.randint(11, (2, 5)), torch.randint(11, (2, 7))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(source, written)
    assert_close(found.float(), model(source, written), rtol=0, atol=0.1)


def test_parameters_are_table_3s():
    with torch.device("meta"):
        base, big = Transformer(37_000), Transformer(37_000, **transformer.BIG)
        layer = DecoderLayer(512, 8, 2048)
    assert sum(p.numel() for p in layer.parameters()) == 8 * 512**2 + 2 * 512 * 2048 + 2048 + 512 + 6 * 512
    assert sum(p.numel() for p in base.parameters()) == 63_045_632
    assert sum(p.numel() for p in big.parameters()) == 214_171_648


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    assert digest(toy) == "ea17e008ea68"
    record = run_experiment(transformer, length="6")
    assert record.curves["accuracy over distance"].keys() == {"Transformer", "LSTM"}
    assert [steps for steps, _ in record.curves["accuracy over distance"]["LSTM"]] == [1, 3, 5, 7, 9, 11]
    size, offsets, far = record.claims
    assert size["values"]["parameters / the paper's, base"] == pytest.approx(63_045_632 / 65e6)
    assert offsets["verdict"] == "held"
    lost = {}
    for arm, curve in record.curves["accuracy over distance"].items():
        values = [value for _, value in curve]
        lost[arm] = sum(values[:2]) / 2 - sum(values[-2:]) / 2
    more = far["values"]["accuracy lost, LSTM - Transformer"]
    assert more == pytest.approx(lost["LSTM"] - lost["Transformer"])
    assert record.curves["parameters over layers"]["one matrix"][2] == (6, 63_045_632)


@pytest.mark.parametrize(
    ("broken", "ours"),
    [
        ("", "small_transformer"),
        ("no positions", "without_positions"),
        ("only the last third of the source", "ShortSighted"),
        ("LSTMs with attention", "Attentive"),
    ],
)
def test_the_networks_that_learn_to_reverse(part_of_run, monkeypatch, broken, ours):
    made = {}

    def watched(at, make, rate):
        made[at.name] = make.__name__
        return 0.0, Reverser()

    monkeypatch.setattr(toy, "train", watched)
    toy.compare_distances(part_of_run(broken=broken))
    assert made == {"Transformer": ours, "LSTM": "Recurrent"}


def test_the_rival_looks_at_every_state():
    rival, source, written = Attentive(9), torch.randint(9, (2, 5)), torch.randint(9, (2, 4))
    states, last = rival.encoder(rival.embedding(source))
    decoded, _ = rival.decoder(rival.embedding(written), last)
    seen = rival.attention(decoded, states)
    assert_close(rival(source, written), rival.readout(torch.cat((decoded, seen), -1)))
    assert rival.readout.weight[:, WIDTH:].any()


def test_three_matrices_are_not_the_papers_sizes(run_experiment):
    base = run_experiment(transformer, length="6").curves["parameters over layers"]["three matrices"]
    assert base[2] == (6, 100_933_632)
    values = {f"parameters / the paper's, {size}": 100_933_632 / 65e6 for size in ("base", "big")}
    assert SIZE.judge(values)[0] == "missed"


def test_both_arms_have_one_width_one_vocabulary_and_one_grid():
    ours, control = small_transformer(SYMBOLS + 1), Recurrent(SYMBOLS + 1)
    assert ours.embedding.weight.shape == control.embedding.weight.shape == (SYMBOLS + 1, WIDTH)
    assert control.encoder.hidden_size == control.decoder.hidden_size == WIDTH
    assert (len(ours.encoder), len(ours.decoder), ours.dropout.p) == (1, 1, 0.0)
    assert len(RATES) == 3


def test_the_control_continues_from_its_encoders_last_state():
    control, source, written = Recurrent(9), torch.randint(9, (2, 5)), torch.randint(9, (2, 4))
    h = c = torch.zeros(2, WIDTH)
    cells = []
    for layer in (control.encoder, control.decoder):
        cell = nn.LSTMCell(WIDTH, WIDTH)
        cell.load_state_dict({name.removesuffix("_l0"): w for name, w in layer.state_dict().items()})
        cells.append(cell)
    for x in control.embedding(source).unbind(1):
        h, c = cells[0](x, (h, c))
    logits = []
    for x in control.embedding(written).unbind(1):
        h, c = cells[1](x, (h, c))
        logits.append(control.readout(h))
    assert_close(control(source, written), torch.stack(logits, 1))


def test_the_parts_that_the_breaks_remove():
    torch.manual_seed(1)
    blind = without_positions(SYMBOLS + 1)
    source, written = torch.randint(SYMBOLS, (2, 6)), torch.randint(SYMBOLS, (2, 3))
    assert_close(blind(source.flip(1), written), blind(source, written))
    short, changed = ShortSighted(SYMBOLS + 1), source.clone()
    changed[:, :4] = (changed[:, :4] + 1) % SYMBOLS
    assert_close(short(changed, written), short(source, written))
    changed[:, 4] = (changed[:, 4] + 1) % SYMBOLS
    assert not torch.allclose(short(changed, written), short(source, written))


class Reverser(nn.Module):
    """Correct at the first two symbols, then always 0."""

    def forward(self, source: Tensor, written: Tensor) -> Tensor:
        target = F.pad(source.flip(1)[:, :2], (0, source.shape[1] - 2))
        return F.one_hot(target[:, : written.shape[1]], SYMBOLS).float()


def test_accuracy_goes_by_distance(part_of_run, monkeypatch):
    run, curve = part_of_run(), {}
    run.pick = lambda *, smoke, quick, full: quick
    at = Trial(Workshop(run), Work(arm="ours"), arm="ours")
    monkeypatch.setattr(at, "metric", lambda name, value, *, step: curve.update({step: value}))
    found = toy.by_distance(at, Sweep(Reverser(), None, {None: Reverser()}))
    assert (curve[1], curve[3], max(curve), len(curve)) == (1, 1, 47, 24)
    assert max(value for step, value in curve.items() if step > 3) < 0.2
    near, far = (sum(curve[step] for step in steps) / 8 for steps in (range(1, 17, 2), range(33, 49, 2)))
    means = {name: value.mean().item() for name, value in found.items()}
    assert means["accuracy, nearest third"] == pytest.approx(near)
    assert means["accuracy, farthest third"] == pytest.approx(far)
    assert means["accuracy lost"] == pytest.approx(near - far)


def test_every_variant_is_right(check_benchmark):
    (case,) = check_benchmark(transformer)
    assert len(case.inputs(torch.Generator())) == 2


@pytest.mark.parametrize("backward", [False, True])
def test_the_stated_cost_matches_torchs_count(backward):
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = EncoderLayer(12, 3, 20), torch.randn(2, 5, 12, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = layer(x)
        if backward:
            out.square().sum().backward()
    stated = cost(2, 5, 12, 20, 4)["forward+backward" if backward else "forward"]
    assert counter.get_total_flops() == stated.flops
