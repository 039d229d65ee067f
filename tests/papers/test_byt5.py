"""ByT5 compared with transformers', its tokenizer, its weights, the noise, and the input of each arm."""

from __future__ import annotations

import importlib
from random import Random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from readtrack.checks.constants import digest
from readtrack.papers import byt5
from readtrack.papers.byt5 import ByT5, from_released, padded, to_bytes, to_ids
from readtrack.papers.byt5.benchmark import cost
from readtrack.papers.byt5.model import END, FIRST_SENTINEL, MEAN_SPAN, VOCAB
from readtrack.papers.byte_bpe import ByteBPE, train
from readtrack.papers.t5 import corrupt, draw_spans, restore
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.byt5.experiment")

SIZES = {"model": 12, "heads": 3, "dim": 4, "hidden": 20, "layers": (3, 1)}
THEIRS = ByT5Tokenizer()


def reference(vocab: int, sizes: dict) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=vocab,
        d_model=sizes["model"],
        num_heads=sizes["heads"],
        d_kv=sizes["dim"],
        d_ff=sizes["hidden"],
        num_layers=sizes["layers"][0],
        num_decoder_layers=sizes["layers"][1],
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        attn_implementation="eager",
    )
    model = T5ForConditionalGeneration(config).eval()
    model.lm_head.weight = nn.Parameter(torch.randn(vocab, sizes["model"]))  # it always ties them
    return model


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names, written independently of `weights.py`."""
    theirs = {"lm_head.weight": weights["readout.weight"], "shared.weight": weights["embedding.weight"]}
    part_names = {"gate": "wi_0", "up": "wi_1", "down": "wo"}
    for stack in ("encoder", "decoder"):
        theirs[f"{stack}.embed_tokens.weight"] = weights["embedding.weight"]
        theirs[f"{stack}.final_layer_norm.weight"] = weights[f"{stack}_norm.weight"]
        table = weights[f"{stack}_bias.table.weight"]
        theirs[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = table
    for name, weight in weights.items():
        stack, layer, part, *rest = [*name.split("."), ""]
        if stack not in ("encoder", "decoder"):
            continue
        prefix = f"{stack}.block.{layer}.layer"
        if part == "norms":
            theirs[f"{prefix}.{rest[0]}.layer_norm.weight"] = weight
        elif part == "feed_forward":
            last = 1 if stack == "encoder" else 2
            theirs[f"{prefix}.{last}.DenseReluDense.{part_names[rest[0]]}.weight"] = weight
        else:
            place = "0.SelfAttention" if part == "attention" else "1.EncDecAttention"
            theirs[f"{prefix}.{place}.{rest[0][0]}.weight"] = weight
    return theirs


def randomised(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


def test_scores_match_transformers(assert_parity, monkeypatch):
    # The reference always normalises in single precision.
    monkeypatch.setattr(
        T5LayerNorm, "forward", lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)
    )
    ours, theirs = ByT5(31, dropout=0.0, **SIZES).double(), reference(31, SIZES).double()
    source, visible = padded([[5, 7, 9, 30, 1] * 3, [4, 1], [8] * 12])
    written = torch.randint(31, (3, 7))

    def their_results(weights: dict[str, Tensor]) -> Tensor:
        given = {"input_ids": source, "attention_mask": visible.double(), "decoder_input_ids": written}
        return functional_call(theirs, as_reference(weights), (), given).logits

    assert_parity(
        lambda weights: functional_call(ours, weights, (source, written), {"visible": visible}),
        their_results,
        (),
        weights=randomised(ours),
        rtol=1e-8,
        atol=1e-9,
    )


def test_half_precision_is_as_accurate_as_in_transformers(assert_half_precision):
    sizes = {"model": 48, "heads": 4, "dim": 12, "hidden": 96, "layers": (2, 1)}
    ours, theirs = ByT5(50, dropout=0.0, **sizes), reference(50, sizes)
    source, written = torch.randint(50, (4, 32)), torch.randint(50, (4, 20))

    def their_results(weights: dict[str, Tensor]) -> Tensor:
        given = {"input_ids": source, "decoder_input_ids": written}
        model = theirs.to(weights["embedding.weight"].dtype)
        return functional_call(model, as_reference(weights), (), given).logits

    assert_half_precision(
        lambda weights: functional_call(ours, weights, (source, written)),
        their_results,
        [],
        weights={name: weight / 2 for name, weight in randomised(ours).items()},
    )


def test_released_weights_speak_as_in_transformers():
    theirs, ours = reference(31, SIZES), ByT5(31, **SIZES).eval()
    ours.load_state_dict(from_released(theirs.state_dict()))
    source, written = torch.randint(31, (2, 17)), torch.randint(31, (2, 5))
    assert_close(ours(source, written), theirs(input_ids=source, decoder_input_ids=written).logits)
    with pytest.raises(ValueError, match="T5 has no parameter"):
        from_released({"encoder.block.0.layer.1.DenseReluDense.wi_2.weight": torch.zeros(1)})


def test_parameters_and_initial_weights():
    with torch.device("meta"):
        whole = ByT5()
    assert sum(weight.numel() for weight in whole.parameters()) == 299_637_760
    assert (len(whole.encoder), len(whole.decoder)) == (12, 4)
    assert {part.p for part in whole.modules() if isinstance(part, nn.Dropout)} == {0.1}
    assert not [name for name, _ in whole.named_parameters() if name.endswith("bias")]
    net = ByT5(900, model=64, heads=4, dim=32, hidden=256, layers=(2, 2))
    layer = net.decoder[1]
    expected = {net.embedding: 1.0, net.readout: 1 / 8, layer.attention.query: (64 * 32) ** -0.5}
    gated = layer.feed_forward
    expected |= {gated.gate: 1 / 8, gated.up: 1 / 8, gated.down: 1 / 16}
    for part, std in expected.items():
        assert part.weight.std().item() == pytest.approx(std, rel=0.15)


@torch.no_grad()
def test_writing_in_parts_equals_writing_at_once():
    net = ByT5(31, dropout=0.0, **SIZES).double()
    source, written = torch.randint(31, (2, 11)), torch.randint(31, (2, 9))
    caches = net.empty_cache(net.encode(source), 9)
    found = [net.go_on(part, caches) for part in written.split([4, 1, 3, 1], 1)]
    assert_close(torch.cat(found, 1), net(source, written), rtol=0, atol=1e-11)


def test_dropout_is_inside_the_gated_layer_and_on_the_output():
    layer, x = byt5.GatedGELU(4, 6, 1.0), torch.randn(2, 4)
    assert not layer(x).any()
    net = ByT5(31, dropout=1.0, **SIZES)
    assert not net(torch.randint(31, (2, 5)), torch.randint(31, (2, 5))).any()


# Bytes


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_ids_match_the_tokenizer(text):
    for special in THEIRS.all_special_tokens:
        text = text.replace(special, "")
    assert to_ids(text) == THEIRS(text).input_ids
    assert to_bytes(to_ids(text)).decode() == text


def test_tokens_other_than_bytes_are_left_out():
    assert to_bytes([0, 2, 68, 300, 69, END, 70]) == b"AB"
    assert to_ids(b"\xff") == [258, END]
    ids, visible = padded([[5, 6, 1], [7, 1]])
    assert ids.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert visible.tolist() == [[True] * 3, [True, True, False]]


def test_spans_of_bytes_come_back():
    """Sentinels are byte ids that do not occur in ASCII text; spans are 20 bytes long."""
    text = torch.tensor([to_ids("The dog chases a ball in the park. " * 8)])
    left_out = draw_spans(*text.shape, torch.Generator().manual_seed(1), mean=MEAN_SPAN)
    spans = (left_out[:, 1:] & ~left_out[:, :-1]).sum().item()
    assert left_out.sum().item() / spans == pytest.approx(MEAN_SPAN, rel=0.1)
    source, target = corrupt(text, left_out, FIRST_SENTINEL)
    assert target[0, 0] == 258 == FIRST_SENTINEL
    assert restore(source[0].tolist(), target[0].tolist(), FIRST_SENTINEL) == text[0].tolist()


# The toy task


def test_noise_has_the_stated_level():
    draw, text = Random(1), "abcdefghij" * 100
    gone = toy.dropped(text, draw, share=0.2)
    assert 1 - len(gone) / len(text) == pytest.approx(0.2, abs=0.05)
    assert set(gone) <= set(text)
    assert toy.dropped("a", draw, share=1.0) == "a"
    longer = toy.repeated(text, draw, share=0.2)
    assert len(longer) / len(text) == pytest.approx(1.4, abs=0.1)  # 1 to 3 more for a fifth
    assert toy.repeated("ab", draw, share=0.0) == "ab"
    assert toy.NOISES["antspeak"]("ab c", draw) == "A B   C"
    assert toy.random_case(text, draw).lower() == text
    assert [toy.NOISES[noise].keywords["share"] for noise in list(toy.NOISES)[1:5]] == [0.1, 0.2, 0.3, 0.2]


def language(seed: int = 3) -> toy.Language:
    words = toy.make_words(Random(seed))
    text = "\n".join(text for text, _ in toy.draw_texts(words, 200, Random(seed)))
    return toy.Language(words, ByteBPE(train(text, 40)))


def test_the_input_of_each_arm():
    some = language()
    assert toy.bytes_reader(some).ids("ab") == [100, 101, END]
    assert toy.bytes_reader(some).vocab == VOCAB
    chained = toy.chained_reader(some).ids
    assert chained("ab") == [100, 3 + (97 + 98) % 256, END]
    assert chained("bb")[1] != chained("ab")[1]
    tokens = toy.tokens_reader(some)
    text = " ".join(some.words[0])
    assert tokens.ids(text) == [*(i + 3 for i in some.bpe.encode(text)), END]
    assert "".join(tokens.pieces(text)) == text
    assert tokens.vocab == 256 + 40 + 3
    assert tokens.training is None


def test_skipped_merges_change_the_split_of_a_text():
    """Without skipped merges, the ids are those of the tokenizer; with them, they still spell the text."""
    some, draw = language(), Random(5)
    text = " ".join(some.words[1])
    assert toy.merged_with_dropout(some.bpe, text, draw, share=0.0) == some.bpe.encode(text)
    assert len(toy.merged_with_dropout(some.bpe, text, draw, share=1.0)) == len(text)
    splits = [toy.merged_with_dropout(some.bpe, text, draw) for _ in range(20)]
    assert {some.bpe.decode(ids) for ids in splits} == {text}
    assert len({tuple(ids) for ids in splits}) == 20
    reader = toy.dropout_reader(some)
    assert reader.ids(text) == toy.tokens_reader(some).ids(text)  # at evaluation nothing is random
    assert reader.training(text, draw) != reader.ids(text)


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "9699b253708f"


def test_texts_are_two_words_of_a_topic():
    words = toy.make_words(Random(3))
    assert [len(part) for part in words] == [8] * 6
    assert len({word for part in words for word in part}) == 48
    for text, topic in toy.draw_texts(words, 20, Random(4)):
        assert set(text.split()) <= set(words[topic])


READERS = {"": "bytes_reader", "cumulative byte sums": "chained_reader", "BPE-dropout": "dropout_reader"}


@pytest.mark.slow
@pytest.mark.parametrize("broken", READERS)
def test_the_arms_match_their_names(run_experiment, monkeypatch, broken):
    made = {}
    fit = toy.fit

    def watched(at, make, rate):
        made[at.name] = make
        return fit(at, make, rate)

    monkeypatch.setattr(toy, "fit", watched)
    record = run_experiment(byt5, broken=broken)
    assert made == {"bytes": getattr(toy, READERS[broken]), "tokens": toy.tokens_reader}
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "text"]


def test_texts_to_judge_by_are_one_set_under_every_noise(part_of_run):
    run, words = part_of_run(), toy.make_words(Random(3))
    assert len(toy.language(run).bpe) == 256 + 150
    topics = {tuple(topic for _, topic in toy.spoiled(run, words, noise, "judge")) for noise in toy.NOISES}
    assert len(topics) == 1
    clean, chosen = (toy.spoiled(run, words, "clean", part) for part in ("judge", "choose"))
    assert clean != chosen
    assert [text.upper() for text, _ in clean] == [
        text for text, _ in toy.spoiled(run, words, "upper case", "judge")
    ]


def test_accuracy_is_of_the_texts_to_judge_by(part_of_run, monkeypatch):
    """A reader that always writes topic B."""
    run, some = part_of_run(), language()
    monkeypatch.setattr(
        toy,
        "read",
        lambda network, reader, texts: (
            F.one_hot(torch.full((len(texts),), toy.FIRST_TOPIC + 1), VOCAB).double(),
            torch.tensor([topic for _, topic in texts]) + toy.FIRST_TOPIC,
        ),
    )
    at = Trial(Workshop(run, some), Work(arm="bytes"), arm="bytes")
    found = toy.judged(at, Sweep(toy.Trained(None, None), 0.01, {}))
    topics = [topic for _, topic in toy.spoiled(run, some.words, "clean", "judge")]
    assert found["accuracy, drop 20 %"].tolist() == [float(topic == 1) for topic in topics]


@pytest.mark.slow
def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(byt5, tolerance=1e-8)
    assert [case.name for case in cases] == ["spans of bytes", "an answer written"]


def test_the_stated_cost_matches_torchs_count():
    net = ByT5(31, dropout=0.0, **SIZES)
    source, target = torch.randint(31, (2, 7)), torch.randint(31, (2, 4))
    with FlopCounterMode(display=False) as counter:
        net.loss(source, target)
    flops, weights = cost(2, 7, 4, SIZES, 31)
    masked = 2 * 2 * 1 * 2 * (4 * 3 // 2) * 12
    assert counter.get_total_flops() == flops + masked
    assert weights == sum(weight.numel() for weight in net.parameters())
