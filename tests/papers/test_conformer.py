"""The Conformer's block compared with transformers', CTC with all paths of a text, and padding."""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.data import speech
from readtrack.papers import conformer
from readtrack.papers.conformer import Block, Conformer, distances, greedy, prefix_search, shift
from readtrack.papers.conformer.benchmark import pair_by_pair
from readtrack.papers.conformer.experiment import (
    attention_alone,
    both,
    convolution_alone,
    corpus,
    no_module,
    recorded,
    to_itself,
    to_the_mean,
)
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.conformer.experiment")


def theirs_of(width: int, heads: int, kernel: int):
    module = pytest.importorskip(
        "transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer",
        reason="transformers is not installed",
    )
    config = module.Wav2Vec2ConformerConfig(
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_act="swish",
        conv_depthwise_kernel_size=kernel,
        position_embeddings_type="relative",
        max_source_positions=50,
        attn_implementation="eager",
    )
    config._attn_implementation = "eager"
    layer = module.Wav2Vec2ConformerEncoderLayer(config)
    return layer, module.Wav2Vec2ConformerRelPositionalEmbedding(config)


def randomise(block: nn.Module) -> None:
    for weight in block.parameters():
        if weight.dim() == 1:
            nn.init.normal_(weight)
    for attention in block.modules():
        if hasattr(attention, "pos_bias_u"):
            nn.init.normal_(attention.pos_bias_u)
            nn.init.normal_(attention.pos_bias_v)


@pytest.mark.parametrize("time", [1, 2, 9])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_matches_transformers(assert_parity, time, training):
    ours = Block(12, 3, 5, dropout=0.0).train(training)
    theirs, positions = theirs_of(12, 3, 5)
    theirs.train(training)
    for part in theirs.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    randomise(ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    mean, variance = torch.randn(12).double(), (torch.rand(12) + 0.5).double()

    def call(module, weights, x, **given):
        buffers = {
            "conv_module.batch_norm.running_mean": mean.clone(),
            "conv_module.batch_norm.running_var": variance.clone(),
        }
        return functional_call(module, {**weights, **buffers}, (x,), given)

    x = torch.randn(2, time, 12)
    far = positions(x.double())
    assert_parity(
        lambda w, x: call(ours, w, x),
        lambda w, x: call(theirs, w, x, relative_position_embeddings=far),
        (x,),
        weights=dict(ours.named_parameters()),
        rtol=1e-6,
        atol=1e-7,
    )


def test_distances_run_from_left_to_right():
    _, positions = theirs_of(8, 2, 3)
    assert_close(distances(6, 8), positions(torch.zeros(1, 6, 8))[0])


def test_the_shift_is_a_gather():
    x = torch.randn(2, 3, 5, 9)
    found = shift(x)
    for i, j in itertools.product(range(5), repeat=2):
        assert_close(found[..., i, j], x[..., i, j - i + 4])


def test_attention_is_a_vector_a_pair(assert_parity):
    layer = conformer.RelativeAttention(12, 3)
    randomise(layer)
    assert_parity(
        lambda w, x: functional_call(layer, w, (x,)),
        lambda w, x: pair_by_pair(w, x, 3),
        (torch.randn(2, 7, 12),),
        weights=dict(layer.named_parameters()),
    )


def test_padding_does_not_change_the_inside():
    """This holds in evaluation mode; in training mode, batch normalisation sees all rows."""
    model = Conformer(10, 4, 12, 2, heads=3, kernel=5, channels=3).eval()
    randomise(model)
    mel = torch.randn(2, 23, 10)
    lengths = torch.tensor([23, 13])
    together, rows = model(mel, lengths)
    assert rows.tolist() == [6, 4]
    for index, length in enumerate(lengths.tolist()):
        alone, _ = model(mel[index : index + 1, :length], lengths[index : index + 1])
        assert_close(together[index, : rows[index]], alone[0])
    changed = mel.clone()
    changed[1, 13:] = 7.0
    assert_close(model(changed, lengths)[0][1, :4], together[1, :4])


def test_feed_forward_layers_count_half():
    block, x = Block(8, 2, 3, dropout=0.0, attends=False, convolves=False), torch.randn(2, 5, 8)
    half = x + 0.5 * block.ffn1(block.ffn1_layer_norm(x))
    half = half + 0.5 * block.ffn2(block.ffn2_layer_norm(half))
    assert_close(block(x), block.final_layer_norm(half))


def test_dropout_is_behind_every_part():
    block = Block(8, 2, 3, dropout=0.3)
    places = {name for name, part in block.named_modules() if isinstance(part, nn.Dropout)}
    assert places == {
        "ffn1.intermediate_dropout",
        "ffn1.output_dropout",
        "self_attn_dropout",
        "conv_module.dropout",
        "ffn2.intermediate_dropout",
        "ffn2.output_dropout",
    }


def test_the_arms_have_as_many_weights():
    makers = (both, attention_alone, convolution_alone, no_module, to_itself)
    sizes = [sum(w.numel() for w in make().parameters()) for make in makers]
    assert max(sizes) <= 1.01 * min(sizes), sizes
    blocks = [make().layers[0] for make in makers]
    parts = [(one.attends, one.convolves and one.conv_module.depthwise_conv.kernel_size[0]) for one in blocks]
    assert parts == [(True, 5), (True, 1), (False, 5), (True, False), (True, 5)]


@pytest.mark.parametrize(("make", "alone"), [(both, False), (to_itself, True)])
def test_a_row_that_attends_to_itself_hears_no_other(make, alone):
    attention, x = make().layers[0].self_attn, torch.randn(1, 6, 48)
    changed = x.clone()
    changed[0, 3] = 0
    same = (attention(x) == attention(changed)).all(-1)[0].tolist()
    assert same == [alone] * 3 + [False] + [alone] * 2


def test_the_papers_sizes():
    """Table 1's 10.3, 30.7 and 118.8 million parameters include a decoder, which is not implemented here."""
    counts = []
    with torch.device("meta"):
        for width, blocks, heads in ((144, 16, 4), (256, 16, 4), (512, 17, 8)):
            model = Conformer(80, 1000, width, blocks, heads)
            counts.append(sum(weight.numel() for weight in model.parameters()))
    assert counts == [8_846_632, 27_568_104, 115_589_608]


def paths_of(logs):
    """The probability of each text, summed over all its paths."""
    sums = {}
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        text = tuple(label for label, _ in itertools.groupby(path) if label)
        sums[text] = sums.get(text, 0.0) + math.exp(sum(logs[t, label] for t, label in enumerate(path)))
    return sums


def test_the_search_finds_the_text_of_the_largest_sum():
    for seed in range(6):
        logs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1)
        sums = paths_of(logs)
        text, total = prefix_search(logs, beams=1000)
        assert tuple(text) == max(sums, key=sums.get)
        assert total == pytest.approx(math.log(sums[tuple(text)]))


def test_a_path_is_joined():
    labels = torch.tensor([0, 3, 3, 0, 3, 1, 1, 0])
    assert greedy(nn.functional.one_hot(labels, 4).float()) == [3, 3, 1]


def test_parts_share_no_utterance(part_of_run):
    run = part_of_run()
    train, judge = (corpus(run, part, 4, (0.0, 0.0), 2) for part in ("train", "judge"))
    assert train.mels.shape[1:] != judge.mels.shape[1:] or not torch.equal(train.mels, judge.mels)
    assert all(1 <= len(said) <= 2 for said in train.said)
    assert (train.frames * speech.HOP > 0).all()


def test_recorded_words_are_as_loud_as_made_ones_and_labelled_by_their_folders(tones, part_of_run):
    run = part_of_run()
    run._settings = {"speech": "tones"}
    heard = recorded(run)
    assert tuple(heard.words) == ("high", "low")
    assert [len(part.said) for part in heard[:3]] == [12, 4, 4]
    assert heard.train.frames.tolist() == [50] * 12
    # At 20 to 0 dB, the tone's band is the loudest of 40 mel bands up to 4 kHz.
    loudest = heard.train.mels[:, 10:40].mean(1).argmax(-1)
    for [word], band in zip(heard.train.said, loudest.tolist(), strict=True):
        assert band < 8 if heard.words[word] == "low" else 14 < band < 24


def test_with_data_the_networks_read_its_words(tones, run_experiment):
    record = run_experiment(conformer, speech="tones")
    assert {arm for name, arm in record.values if name == experiment_module.LABEL} >= {"Conformer"}


def test_errors_are_those_of_each_utterance_and_half_a_one(part_of_run, monkeypatch):
    run = part_of_run()
    judge = corpus(run, "judge", 3, (0.0, 0.0), 1)
    heard = [[judge.said[0][0] + 1], [], [judge.said[2][0] + 1, 4]]
    monkeypatch.setattr(experiment_module, "decode", lambda logs, lengths: heard)
    at = Trial(Workshop(run, experiment_module.Heard(judge, judge, judge)), Work(arm="any"), arm="any")
    found = experiment_module.errors(at, Sweep(both().eval(), 0.1, {}))["errors"]
    assert found.tolist() == pytest.approx([0.5 / 3, 1 + 0.5 / 3, 1 + 0.5 / 3])


def test_the_mean_in_place_of_attention_is_of_the_rows_that_are_there():
    layer, x = to_the_mean().layers[0].self_attn, torch.randn(2, 5, 48)
    there = torch.tensor([[True] * 5, [True, True, False, False, False]])
    for row, count in enumerate((5, 2)):
        expected = layer.linear_out(layer.linear_v(x[row, :count]).mean(0))
        assert_close(layer(x, there)[row], expected.expand(5, 48))
    assert_close(layer(x)[1], layer.linear_out(layer.linear_v(x[1]).mean(0)).expand(5, 48))


@pytest.mark.slow
def test_the_experiment_runs(run_experiment):
    record = run_experiment(conformer)
    assert {artifact["name"] for artifact in record.artifacts} == {
        "probabilities of the digits",
        "transcripts",
    }
    assert {arm for name, arm in record.values if name == "weights"} == {
        "Conformer",
        "attention alone",
        "convolution alone",
    }


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "7cc15a7fb3f6"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(conformer)] == ["relative attention", "speech"]
