"""T5 compared with transformers', its buckets, its cache, and corrupted spans that are restored."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from readtrack.checks.constants import digest
from readtrack.data.senses import Senses
from readtrack.papers import t5
from readtrack.papers.t5 import T5, buckets, corrupt, draw_spans, from_released, restore
from readtrack.papers.t5.benchmark import cost
from readtrack.papers.t5.centroids import Centroids, co_occurrences
from readtrack.plugin import Trial
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Work, Workshop

tasks = importlib.import_module("readtrack.papers.t5.tasks")
toy = importlib.import_module("readtrack.papers.t5.experiment")  # the hook has the same name

SIZES = [(13, 12, 3, 4, 20, 2), (31, 10, 2, 3, 24, 3)]  # vocab, model, heads, dim, hidden, layers


def reference(vocab: int, model: int, heads: int, dim: int, hidden: int, layers: int, **changes: str):
    config = T5Config(
        vocab_size=vocab,
        d_model=model,
        num_heads=heads,
        d_kv=dim,
        d_ff=hidden,
        num_layers=layers,
        dropout_rate=0.0,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
        attn_implementation="eager",
        **changes,
    )
    return T5ForConditionalGeneration(config).eval()


def make(size: tuple[int, ...], **changes: float) -> T5:
    vocab, model, heads, dim, hidden, layers = size
    sizes = {"model": model, "heads": heads, "dim": dim, "hidden": hidden, "layers": layers}
    return T5(vocab, **sizes, **{"dropout": 0.0, "buckets": 8, "furthest": 12, **changes})


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names, written independently of `weights.py`."""
    theirs = {"shared.weight": weights["embedding.weight"], "lm_head.weight": weights["embedding.weight"]}
    for stack in ("encoder", "decoder"):
        theirs[f"{stack}.embed_tokens.weight"] = weights["embedding.weight"]
        theirs[f"{stack}.final_layer_norm.weight"] = weights[f"{stack}_norm.weight"]
        table = weights[f"{stack}_bias.table.weight"]
        theirs[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = table
    for name, weight in weights.items():
        parts = name.split(".")
        if parts[0] not in ("encoder", "decoder"):
            continue
        last = 1 if parts[0] == "encoder" else 2
        prefix = f"{parts[0]}.block.{parts[1]}.layer"
        if parts[2] == "norms":
            theirs[f"{prefix}.{parts[3]}.layer_norm.weight"] = weight
        elif parts[2] == "feed_forward":
            part = {"0": "wi", "3": "wo"}[parts[3]]
            theirs[f"{prefix}.{last}.DenseReluDense.{part}.weight"] = weight
        else:
            place = "0.SelfAttention" if parts[2] == "attention" else "1.EncDecAttention"
            theirs[f"{prefix}.{place}.{parts[3][0]}.weight"] = weight
    return theirs


def randomised(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


@pytest.mark.parametrize("size", SIZES)
def test_scores_match_transformers(assert_parity, monkeypatch, size):
    """The sources have different lengths, and some distances are beyond the last bucket."""
    # The reference always normalises in single precision.
    monkeypatch.setattr(
        T5LayerNorm, "forward", lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, 1e-6)
    )
    ours, theirs = make(size).double(), reference(*size).double()
    source, written = torch.randint(size[0], (3, 17)), torch.randint(size[0], (3, 15))
    visible = torch.arange(17) < torch.tensor([17, 16, 2])[:, None]

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
    """Both use GELU, because with ReLU rounding near zero would switch units and change gradients."""
    size = (50, 48, 4, 12, 96, 2)
    ours, theirs = make(size), reference(*size, feed_forward_proj="gelu")
    for layer in (*ours.encoder, *ours.decoder):
        layer.feed_forward[1] = nn.GELU()
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
    theirs, ours = reference(*SIZES[1]), make(SIZES[1]).eval()
    ours.load_state_dict(from_released(theirs.state_dict()))
    source, written = torch.randint(31, (2, 17)), torch.randint(31, (2, 5))
    assert_close(ours(source, written), theirs(input_ids=source, decoder_input_ids=written).logits)
    for wrong in ("tail", "encoder.block.0.layer.0.CrossAttention.q.weight"):
        with pytest.raises(ValueError, match="T5 has no parameter"):
            from_released({wrong: torch.zeros(1)})


def test_parameters_and_initial_weights_are_the_released_ones():
    with torch.device("meta"):
        whole = T5()
    assert sum(weight.numel() for weight in whole.parameters()) == 222_903_552
    assert {part.p for part in whole.modules() if isinstance(part, nn.Dropout)} == {0.1}
    assert not [name for name, _ in whole.named_parameters() if name.endswith("bias")]
    net = T5(900, model=64, heads=4, dim=32, hidden=128, layers=2)
    layer = net.decoder[1]
    expected = {
        net.embedding: 1.0,
        net.encoder_bias.table: 1 / 8,
        layer.attention.query: (64 * 32) ** -0.5,
        layer.source_attention.key: 1 / 8,
        layer.attention.value: 1 / 8,
        layer.attention.output: 128**-0.5,
        layer.feed_forward[0]: 1 / 8,
        layer.feed_forward[3]: 128**-0.5,
    }
    for part, std in expected.items():
        assert part.weight.std().item() == pytest.approx(std, rel=0.15)


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize(("count", "furthest"), [(32, 128), (8, 12), (6, 300)])
def test_buckets_match_transformers(both_sides, count, furthest):
    distance = torch.arange(-400, 401)
    found = buckets(distance, both_sides=both_sides, count=count, furthest=furthest)
    expected = T5Attention._relative_position_bucket(distance, both_sides, count, furthest)
    assert torch.equal(found, expected)


def test_buckets_by_hand():
    """With 8 one-sided buckets: 0 to 3 separately, then 4-5, 6-7, 8-11 and beyond, up to 16."""
    distance = -torch.arange(20)
    found = buckets(distance, both_sides=False, count=8, furthest=16)
    assert found.tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("parts", [[1] * 9, [4, 1, 3, 1], [9]])
@torch.no_grad()
def test_writing_in_parts_equals_writing_at_once(parts):
    net = make(SIZES[0]).double()
    source, written = torch.randint(13, (2, 11)), torch.randint(13, (2, 9))
    visible = torch.arange(11) < torch.tensor([11, 5])[:, None]
    encoded = net.encode(source, visible=visible)
    caches = net.empty_cache(encoded, 9)
    for cache in caches:
        cache.written.fill_(math.nan)  # unwritten entries have no influence
    found = [net.go_on(part, caches, visible=visible) for part in written.split(parts, 1)]
    assert_close(torch.cat(found, 1), net(source, written, visible=visible), rtol=0, atol=1e-11)


@torch.no_grad()
def test_generation_takes_the_likeliest():
    net, source = make(SIZES[0]).double(), torch.randint(13, (2, 11))
    written = torch.zeros(2, 1, dtype=torch.long)
    for _ in range(6):
        written = torch.cat((written, net(source, written)[:, -1:].argmax(-1)), 1)
    assert torch.equal(net.generate(source, 6), written[:, 1:])


def test_the_loss_is_of_the_whole_target_written_after_the_filling():
    net = make(SIZES[0]).double()
    source, target = torch.randint(13, (3, 7)), torch.randint(13, (3, 4))
    logits = net(source, torch.cat((torch.full((3, 1), 5), target[:, :-1]), 1))
    assert_close(net.loss(source, target, filling=5), F.cross_entropy(logits.flatten(0, 1), target.flatten()))


def test_dropout_is_on_each_residual_branch_and_on_both_ends():
    net = make(SIZES[0], dropout=1.0)
    source = torch.randint(13, (2, 5))
    assert not net(source, source).any()
    layer, x = net.encoder[0], torch.randn(2, 5, 12)
    assert torch.equal(layer(x, net.encoder_bias(5, 5)), x)


# Spans


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000), st.floats(0.05, 0.5), st.floats(1.0, 5.0))
def test_corrupted_spans_can_be_restored(length, seed, share, mean):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(50, (3, length), generator=generator)
    left_out = draw_spans(3, length, generator, share=share, mean=mean)
    source, target = corrupt(ids, left_out, 99)
    for text, read, written in zip(ids.tolist(), source.tolist(), target.tolist(), strict=True):
        assert restore(read, written, 99) == text
    gone = int(left_out[0].sum())
    assert left_out.sum(1).eq(gone).all()
    assert not left_out[:, 0].any()
    spans = target.shape[1] - gone - 1
    assert source.shape[1] == length - gone + spans


def test_the_papers_example():
    """Figure 2: "Thank you for inviting me to your party last week", without "for inviting" and "last"."""
    ids = torch.arange(10)[None]
    left_out = torch.zeros(1, 10, dtype=torch.bool)
    left_out[0, [2, 3, 8]] = True
    source, target = corrupt(ids, left_out, 99)
    assert source.tolist() == [[0, 1, 99, 4, 5, 6, 7, 98, 9]]
    assert target.tolist() == [[99, 2, 3, 98, 8, 97]]


def test_spans_are_as_many_and_as_long_as_stated():
    left_out = draw_spans(200, 100, torch.Generator().manual_seed(1))
    assert left_out.sum(1).eq(15).all()
    starts = left_out[:, 1:] & ~left_out[:, :-1]
    assert starts.sum(1).eq(5).all()
    assert left_out.double().mean(0)[20:].std() < 0.06  # no position is preferred, including the end


def test_spans_stand_anywhere_in_a_short_text():
    gone = draw_spans(2000, toy.LENGTH, torch.Generator().manual_seed(1)).double().mean(0)
    assert gone[0] == 0
    # A span of two tokens has ten possible starts; the first and the last token are in only one of them.
    expected = torch.tensor([1.0, *[2.0] * (toy.LENGTH - 3), 1.0]).double() / (toy.LENGTH - 2)
    assert_close(gone[1:], expected, rtol=0, atol=0.03)


# The toy task


@pytest.fixture
def language():
    return toy.senses(torch.Generator().manual_seed(1), words=tasks.WORDS, topics=tasks.TOPICS, owned=8)


def test_objectives_are_text(language):
    ids = language.draw(5, toy.LENGTH, torch.Generator())[0] + tasks.FIRST_WORD
    assert [part.shape[1] for part in toy.spans(ids, torch.Generator())] == [11, 4]
    read, written = toy.whole(ids, torch.Generator())
    assert torch.equal(written, ids)
    assert (read == tasks.MASK).sum(1).eq(2).all()
    assert (toy.FEW, tasks.ASKED) == (24, 4)


def test_tasks_are_text_with_a_task_prefix(language):
    asked = {name: tasks.task(language, name, 50, torch.Generator().manual_seed(2)) for name in tasks.TASKS}
    sources = torch.stack([source for source, _ in asked.values()])
    assert (sources[:, :, 1:] == sources[0, :, 1:]).all()
    assert torch.equal(sources[:, 0, 0], tasks.FIRST_PREFIX + torch.arange(3))
    words, topic = language.draw(50, tasks.ASKED, torch.Generator().manual_seed(2))
    assert torch.equal(sources[0, :, 1:], words + tasks.FIRST_WORD)
    topics, last, below = (target[:, 0] for _, target in asked.values())
    assert torch.equal(topics, topic + tasks.FIRST_TOPIC)
    assert torch.equal(last, words[:, -1] + tasks.FIRST_WORD)
    for row, count in zip(words.tolist(), (below - tasks.FIRST_NUMBER).tolist(), strict=True):
        assert count == sum(word < 12 for word in row)
    source, target = tasks.mixture(language, 7, torch.Generator().manual_seed(2))
    assert source[:, 0].tolist() == [tasks.FIRST_PREFIX + n for n in range(3) for _ in range(7)]
    assert target.shape == (21, 1)


def test_every_token_has_a_unique_name():
    spelled = [tasks.spelled([token]) for token in range(1, tasks.VOCAB)]
    assert len(set(spelled)) == tasks.VOCAB - 1
    read = [tasks.FIRST_PREFIX, 1, tasks.MASK, tasks.SENTINEL, tasks.SENTINEL - 1]
    assert tasks.spelled(read) == "topic: 0 <mask> <A> <B>"
    assert tasks.spelled([tasks.FIRST_TOPIC + 2, tasks.FIRST_NUMBER]) == "topic 2 (0)"


@pytest.mark.parametrize(
    ("broken", "stage"),
    [
        ("", "pre-training, spans, 1"),
        ("words mixed across texts", "pre-training, spans, mixed, 1"),
        ("half of the pre-training", "pre-training, spans, 0.5"),
    ],
)
def test_the_training_data_of_each_arm(part_of_run, monkeypatch, broken, stage):
    """The arms' names state their stage, and whether they have many examples."""
    made = {}

    def watched(at, arm, rate):
        made[at.name] = at.work.before.stage if at.work.before else "", arm.many
        assert not torch.equal(at.world.chosen[0], at.world.judged[0])
        net = at.before if isinstance(at.before, T5) else toy.network(at.run)
        return 0.5, (net, arm.target)

    monkeypatch.setattr(toy, "tune", watched)
    monkeypatch.setattr(toy, "show_tasks", lambda *_: None)
    toy.compare_objectives(part_of_run(broken=broken))
    expected = {
        "spans": (stage, False),
        "whole text": ("pre-training, whole, 1", False),
        "from scratch": ("", False),
        "from scratch, many examples": ("", True),
        "no pre-training": ("", False),
    }
    assert made == {arm: expected[arm] for arm in made}
    assert "spans" in made


def test_a_whole_answer_counts_on_the_test_texts(part_of_run):
    """Two of three answers are right; the third has one wrong token."""
    answers = torch.tensor([[7, 1], [8, 1], [9, 1]])
    net = make(SIZES[0])
    net.generate = lambda source, length: answers[:, :length] + torch.tensor([[0, 0], [0, 0], [0, 1]])
    world = toy.World(None, *2 * [()], (answers, 0 * answers), (answers, answers))
    at = Trial(Workshop(part_of_run(), world), Work(arm="any"), arm="any")
    found = toy.judge(at, Sweep((net, 4), None, {}))
    assert found["accuracy"].tolist() == [1, 1, 0]
    assert found["tokens written"] == 4


def test_the_rival_finds_the_nearest_centroid():
    """Words 1 and 2 occur together, and so do 3 and 4. One example of word 3 is enough to classify word 4."""
    together = co_occurrences(torch.tensor([[1, 2, 1, 2], [3, 4, 4, 3], [2, 1, 2, 1]]))
    assert together[1:5, 1:5].tolist() == [[4, 8, 0, 0], [8, 4, 0, 0], [0, 0, 2, 4], [0, 0, 4, 2]]
    examples = torch.tensor([[0, 1], [0, 3], [0, 2]]), torch.tensor([[8], [7], [8]])
    nearest = Centroids(together, examples)
    assert nearest.answers.tolist() == [7, 8]
    # The prefix 0 has no counts. Each mean is over two tokens of a text, then over the texts of an answer.
    assert_close(nearest.means[:, 1:5], torch.tensor([[0, 0, 2, 4], [3, 3, 0, 0]]) / 12)
    assert nearest.generate(torch.tensor([[0, 2], [0, 4], [0, 3], [0, 1]]), 1).tolist() == [
        [8],
        [7],
        [7],
        [8],
    ]


def test_the_rival_counts_the_texts_of_pre_training(part_of_run, language, monkeypatch):
    read = []

    def watched(ids):
        read.append(ids)
        return co_occurrences(ids)

    monkeypatch.setattr(toy, "co_occurrences", watched)
    world = toy.World(language, *[()] * 4)

    def spans(ids, generator):
        read.append(ids)
        return toy.spans(ids, generator)

    stages = toy.counted, toy.after(spans).before
    del read[:]  # `after` asks for the target's length
    for index, stage in enumerate(stages):
        stage(Trial(Workshop(part_of_run(broken=str(index)), world), Work(arm="any"), arm="any"))
    counted, pre_trained = read[:2], read[2:]
    assert torch.equal(torch.cat(counted), torch.cat(pre_trained))


def test_without_order_texts_mix_their_words(part_of_run):
    """The near miss of the first claim: pre-training texts combine words that no topic combines."""
    one_word_each, read = Senses(torch.arange(tasks.WORDS)[:, None], tasks.WORDS), []

    def watched(ids, generator):
        read.append(ids)
        return toy.whole(ids, generator)

    for mixed in (False, True):
        world = toy.World(one_word_each, *[()] * 4)
        arm = toy.after(watched, mixed=mixed)
        arm.before(Trial(Workshop(part_of_run(broken=str(mixed)), world), Work(arm="any"), arm="any"))
    _, kept, _, _, mixed, _ = read  # the first of each three asks for the target's length
    assert (kept == kept[:, :1]).all()
    assert not (mixed == mixed[:, :1]).all(1).any()
    assert torch.equal(mixed.flatten().sort().values, kept.flatten().sort().values)


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "18fcd4340d42"
    assert (toy.STEPS, toy.TUNING, toy.RATES) == (350, 75, (3e-4, 1e-3, 3e-3))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(t5)
    cheaper = next(c for c in record.claims if c["claim"]["name"] == t5.CHEAPER.name)
    assert cheaper["values"]["tokens written, spans / whole text"] == 4 / 12
    assert [artifact["kind"] for artifact in record.artifacts] == ["text", "table"]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(t5, tolerance=1e-8)] == ["spans", "next token"]


def test_the_stated_cost_matches_torchs_count():
    vocab, model, heads, dim, hidden, layers = SIZES[0]
    net = T5(vocab, model=model, heads=heads, dim=dim, hidden=hidden, layers=layers, dropout=0.0)
    source, target = torch.randint(vocab, (2, 7)), torch.randint(vocab, (2, 4))
    with FlopCounterMode(display=False) as counter:
        net.loss(source, target)
    flops, weights = cost(2, 7, 4, model, heads, dim, hidden, layers, vocab)
    masked = 2 * 2 * layers * 2 * (4 * 3 // 2) * heads * dim
    assert counter.get_total_flops() == flops + masked
    assert weights == sum(weight.numel() for weight in net.parameters())
