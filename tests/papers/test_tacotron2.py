"""Tacotron 2: the whole model compared with torchaudio's, attention with loops, and rows in a batch with
single rows.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import tacotron2
from readtrack.papers.tacotron2 import LocationSensitiveAttention, Prenet, Sizes, Tacotron2
from readtrack.papers.tacotron2.benchmark import merged, spoken
from readtrack.papers.tacotron2.equation import by_loops
from readtrack.papers.tacotron2.experiment import (
    Corpus,
    LastStep,
    NoPast,
    network,
    off_by,
    slips_of,
    told,
)
from readtrack.papers.tacotron2.model import LocationLayer

experiment_module = importlib.import_module("readtrack.papers.tacotron2.experiment")

SMALL = Sizes(
    symbols=9,
    bands=6,
    encoder=8,
    convolutions=2,
    prenet=5,
    rnn=7,
    attention=4,
    filters=3,
    taps=5,
    postnet=6,
    refinements=3,
    prenet_dropout=0.0,
    dropout=0.0,
    zoneout=0.0,
)


def torchaudios() -> type[nn.Module]:
    """torchaudio's model file alone, which needs only torch; its compiled library requires its own torch
    build.
    """
    found = importlib.util.find_spec("torchaudio")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torchaudio is not installed")
    path = Path(found.submodule_search_locations[0]) / "models" / "tacotron2.py"
    spec = importlib.util.spec_from_file_location("their_tacotron2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tacotron2


def scattered(model: nn.Module) -> nn.Module:
    """Running means and variances that differ from their initial values."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model


def test_the_whole_is_torchaudios(assert_parity):
    """Without the pre-net's dropout, which the reference always has: its layers are replaced by the
    identity.
    """
    theirs = torchaudios()(
        n_mels=6,
        n_symbol=9,
        symbol_embedding_dim=8,
        encoder_embedding_dim=8,
        encoder_n_convolution=2,
        decoder_rnn_dim=7,
        attention_rnn_dim=7,
        attention_hidden_dim=4,
        attention_location_n_filter=3,
        attention_location_kernel_size=5,
        prenet_dim=5,
        postnet_n_convolution=3,
        postnet_embedding_dim=6,
    ).eval()
    theirs.decoder.prenet = Prenet(6, 5, 0.0)
    ours = scattered(Tacotron2(SMALL)).eval()
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.double(), theirs.double()
    text, symbols = torch.randint(9, (2, 7)), torch.tensor([7, 7])
    frames = torch.tensor([11, 11])
    assert_parity(
        lambda w, mel: tuple(functional_call(ours, w, (text, symbols, mel))),
        lambda w, mel: functional_call(theirs, w, (text, symbols, mel, frames)),
        (torch.randn(2, 6, 11),),
        weights=dict(ours.named_parameters()),
    )


def test_the_papers_size():
    """28.2 million parameters, as counted by Glow-TTS's authors (from memory), and exactly torchaudio's
    number.
    """
    with torch.device("meta"):
        assert sum(weight.numel() for weight in Tacotron2(Sizes()).parameters()) == 28_193_153


def test_attention_is_the_equation():
    layer = LocationSensitiveAttention(6, 5, 4, 3, 5).double()
    memory, query = torch.randn(1, 7, 5).double(), torch.randn(1, 6).double()
    past = torch.rand(1, 2, 7).double()
    mask = torch.ones(1, 7, dtype=torch.bool)
    weights = layer(query, layer.memory_layer(memory), past, mask)[0]
    assert_close(weights, by_loops(layer, query[0], memory[0], past[0]))
    mask[0, 5:] = False
    short = layer(query, layer.memory_layer(memory), past, mask)[0]
    assert short[5:].tolist() == [0, 0]
    assert_close(short[:5], weights[:5] / weights[:5].sum())
    plain = LocationSensitiveAttention(6, 5, 4, 3, 5, location=False)
    assert {name for name, _ in plain.named_parameters()} == {
        "query_layer.weight",
        "memory_layer.weight",
        "v.weight",
    }


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_row_is_itself_alone(group):
    model = scattered(Tacotron2(Sizes(**{**asdict(SMALL), "group": group}))).double().eval()
    text, symbols = torch.randint(9, (2, 7)), torch.tensor([7, 4])
    mel = torch.randn(2, 6, 6 * group).double()
    both, alone = model(text, symbols, mel), model(text[1:, :4], symbols[1:], mel[1:])
    assert_close(both.refined[1:], alone.refined)
    assert_close(both.stop[1:], alone.stop)
    assert_close(both.weights[1:, :, :4], alone.weights)
    assert both.mel.shape == mel.shape
    if group > 1:
        with pytest.raises(ValueError, match="a multiple of the group size"):
            model(text, symbols, mel[..., :-1])


def test_later_frames_are_not_seen():
    model = scattered(Tacotron2(Sizes(**{**asdict(SMALL), "group": 2, "prenet": 40}))).double().eval()
    text, symbols = torch.randint(9, (1, 5)), torch.tensor([5])
    mel = torch.randn(1, 6, 8).double().requires_grad_()
    model(text, symbols, mel).mel[..., 4:6].sum().backward()
    seen = mel.grad.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert seen == [1, 3]  # the last frame of the previous group


def test_speaking_matches_teacher_forcing_on_its_output():
    model = scattered(Tacotron2(Sizes(**{**asdict(SMALL), "group": 2}))).double().eval()
    text, symbols = torch.randint(9, (2, 5)), torch.tensor([5, 3])
    with torch.no_grad():
        model.decoder.gate_layer.bias.fill_(-100.0)
    said, lengths = model.speak(text, symbols, 6)
    assert lengths.tolist() == [6, 6]
    told = model(text, symbols, said.mel)
    for ours, again in zip(said, told, strict=True):
        assert_close(ours, again)
    with torch.no_grad():
        model.decoder.gate_layer.bias.fill_(100.0)
    assert model.speak(text, symbols, 6)[1].tolist() == [1, 1]


def test_the_prenet_always_drops():
    prenet = Prenet(6, 400, 0.5).eval()
    out = prenet(torch.randn(6))
    assert not torch.equal(out, prenet(torch.zeros(6) + 1.0))
    layer = prenet.layers[0](torch.ones(6)).relu()
    dropped = (prenet(torch.ones(6)) == 0).double().mean()
    assert (layer > 0).any()
    assert 0.5 < dropped < 0.95


def test_zoneout_keeps_units():
    decoder = Tacotron2(Sizes(**{**asdict(SMALL), "zoneout": 0.25})).decoder
    new, old = torch.ones(100, 100), torch.zeros(100, 100)
    assert abs(decoder.train().zone(new, old).mean() - 0.75) < 0.02
    assert set(decoder.zone(new, old).flatten().tolist()) == {0.0, 1.0}
    assert_close(decoder.eval().zone(new, old), torch.full((100, 100), 0.75))


def test_every_weight_learns():
    model = Tacotron2(SMALL)
    said = model(torch.randint(9, (2, 5)), torch.tensor([5, 4]), torch.randn(2, 6, 4))
    (said.refined.square().sum() + said.stop.sum()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_slips_are_skips_and_steps_back():
    skipped, back = slips_of([[0, 0, 1, 2, 3], [0, 2, 1]], [4, 4])
    assert (skipped.tolist(), back.tolist()) == ([0, 1 / 4], [0, 1 / 4])
    skipped, back = slips_of([[0, 1, 0, 1], [0, 1, 2, 3]], [2, 4])
    assert (skipped.tolist(), back.tolist()) == ([0, 0], [1 / 3, 0])


def test_the_arms_differ_in_places_alone():
    assert digest(experiment_module) == "ede6a61a8feb"
    ours, theirs = (
        {name: weight.shape for name, weight in network(location).named_parameters()}
        for location in (True, False)
    )
    missing = ours.keys() - theirs.keys()
    assert all("location_layer" in name for name in missing)
    assert {name: ours[name] for name in theirs} == theirs
    assert sum(ours[name].numel() for name in missing) < 0.02 * sum(shape.numel() for shape in ours.values())


def test_the_experiment_runs(run_experiment):
    record = run_experiment(tacotron2)
    assert {artifact["name"] for artifact in record.artifacts} == {"location", "content", "attention"}


@pytest.mark.parametrize(
    ("layer", "same"), [(LocationLayer, [False, False]), (LastStep, [False, True]), (NoPast, [True, True])]
)
def test_what_location_features_are_told(layer, same):
    keys, query, mask = torch.randn(1, 5, 32), torch.randn(1, 64), torch.ones(1, 5, dtype=torch.bool)
    attention, past = told(layer).decoder.attention_layer, torch.rand(1, 2, 5)
    weights = attention(query, keys, past, mask)
    for row, unchanged in enumerate(same):
        other = past.clone()
        other[:, row] = torch.rand(5)
        assert torch.equal(weights, attention(query, keys, other, mask)) == unchanged


def test_off_is_counted_in_symbols(part_of_run, monkeypatch):
    model = network(True)
    weights = nn.functional.one_hot(torch.tensor([[0, 2, 1], [0, 1, 2]]), 3).float()
    monkeypatch.setattr(model, "forward", lambda *given: tacotron2.Spoken(*[torch.zeros(1)] * 3, weights))
    texts, mels = [torch.tensor([0, 3, 0])] * 2, [torch.zeros(15, 40), torch.zeros(10, 40)]
    given = Corpus(texts, mels, [torch.tensor([0, 0, 1]), torch.tensor([1, 1])])
    assert off_by(part_of_run(), model, given).tolist() == pytest.approx([(0 + 2 + 0) / 3, (1 + 0) / 2])


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(tacotron2)] == ["attention steps", "speech"]


def test_merged_layers_speak_the_same_frames():
    model = Tacotron2(replace(SMALL, group=2, prenet_dropout=0.5, zoneout=0.1)).double().eval()
    torch.nn.init.constant_(model.decoder.gate_layer.bias, -100.0)  # never stops
    text, symbols = torch.randint(9, (2, 5)), torch.tensor([3, 5])
    found = []
    for speak in (spoken, merged):
        torch.manual_seed(0)  # the pre-net's dropout
        found.append(speak(model, text, symbols, 6))
    assert_close(*found)
