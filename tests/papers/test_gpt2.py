"""GPT-2 compared with transformers', its cache with recomputation, its sampling, and the released weights."""

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
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from readtrack.checks.constants import digest
from readtrack.data import sources
from readtrack.errors import NotAvailableError
from readtrack.papers import gpt2
from readtrack.papers.byte_bpe import ByteBPE
from readtrack.papers.byte_bpe import train as train_merges
from readtrack.papers.byte_bpe.words import visible
from readtrack.papers.gpt2 import GPT2, XL, from_released, read_merges, sampling_probabilities
from readtrack.papers.gpt2.benchmark import training_cost
from readtrack.papers.gpt2.experiment import bits_of_frequencies, train
from readtrack.papers.gpt2.model import Block
from readtrack.papers.gpt2.ngrams import NGrams
from readtrack.papers.gpt2.weights import renamed
from readtrack.plugin import Run
from readtrack.runs.events import EventWriter
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.gpt2.experiment")  # the hook has the same name

# Against transformers


def reference(vocab: int, context: int, model: int, heads: int, layers: int) -> GPT2LMHeadModel:
    """A reference with random weights, without dropout, and with eager attention."""
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=context,
        n_embd=model,
        n_head=heads,
        n_layer=layers,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="eager",
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names, matrices transposed."""
    theirs = {"transformer.wte.weight": weights["tokens.weight"], "lm_head.weight": weights["tokens.weight"]}
    theirs["transformer.wpe.weight"] = weights["positions.weight"]
    names = {"attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj", "norms.0": "ln_1"}
    names |= {"feed_forward.0": "mlp.c_fc", "feed_forward.2": "mlp.c_proj", "norms.1": "ln_2"}
    for name, weight in weights.items():
        if name.startswith("norm."):
            theirs[f"transformer.ln_f.{name.removeprefix('norm.')}"] = weight
        if name.startswith("blocks."):
            _, layer, *middle, kind = name.split(".")
            turned = weight.T if weight.ndim == 2 else weight
            theirs[f"transformer.h.{layer}.{names['.'.join(middle)]}.{kind}"] = turned
    return theirs


def randomised(model: GPT2) -> dict[str, Tensor]:
    """Random values for all parameters, because initial gains of 1 and biases of 0 could hide a mistake."""
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:.*T.* on tensors of dimension other than 2")
@pytest.mark.parametrize("size", [(13, 9, 12, 3, 2), (7, 5, 6, 1, 1), (31, 16, 20, 5, 3)])
def test_scores_and_loss_match_transformers(assert_parity, size):
    vocab, context, model, heads, layers = size
    ours = GPT2(vocab, context=context, model=model, heads=heads, layers=layers).double()
    theirs = reference(*size).double()
    ids = torch.randint(vocab, (3, context - 1))

    def our_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = functional_call(ours, weights, (ids,))
        return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    def their_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        found = functional_call(theirs, as_reference(weights), (ids,), {"labels": ids})
        loss = -found.logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).mean()
        assert found.loss.item() == pytest.approx(loss.item(), rel=1e-6)  # their loss is in float32
        return found.logits, loss

    assert_parity(our_results, their_results, (), weights=randomised(ours), rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*T.* on tensors of dimension other than 2")
def test_half_precision_is_as_accurate_as_in_transformers(assert_half_precision):
    ours = GPT2(50, context=32, model=48, heads=4, layers=2)
    theirs = reference(50, 32, 48, 4, 2)
    ids = torch.randint(50, (4, 32))
    assert_half_precision(
        lambda weights: functional_call(ours, weights, (ids,)),
        lambda w: functional_call(theirs.to(w["norm.bias"].dtype), as_reference(w), (ids,)).logits,
        [],
        weights={name: weight / 2 for name, weight in randomised(ours).items()},
    )


def test_it_trains_under_autocast():
    model, ids = small().float(), torch.randint(11, (2, 9))
    exact = model.loss(ids)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(ids)
        written = model.generate(ids[:, :3], 5, torch.Generator())
    loss.backward()
    assert_close(loss.float(), exact, rtol=0.05, atol=0)
    assert written.shape == (2, 8)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_second_derivatives():
    """The second derivatives of the loss along a direction, by finite differences of the first."""
    model, ids = small(), torch.randint(11, (2, 5))
    weights = [block.attention.qkv.weight for block in model.blocks]
    directions = [torch.randn_like(weight) for weight in weights]

    def slope() -> Tensor:
        gradients = torch.autograd.grad(model.loss(ids), weights, create_graph=True)
        return sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    curvature = torch.autograd.grad(slope(), weights)
    found = sum((c * d).sum() for c, d in zip(curvature, directions, strict=True))
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight += step * direction
        ends.append(slope().item())
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight -= step * direction
    assert found.item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(training):
    model, called = small().train(training), Counter()
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.update([name]))
    model(torch.randint(11, (2, 5)))
    silent = {name for name, _ in model.named_modules() if not called[name]}
    assert silent == {"positions", "blocks", *(f"blocks.{layer}.norms" for layer in range(2))}
    assert set(called.values()) == {1}


def test_the_loss_is_of_all_tokens_but_the_first():
    model, ids = small(), torch.randint(11, (2, 6))
    expected = -model(ids).log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).mean()
    assert_close(model.loss(ids), expected)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 10 cannot be split over 3 heads"):
        GPT2(11, model=10, heads=3)


def test_attention_may_be_computed_by_another():
    """FlashAttention's experiment replaces it."""
    called = []

    def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        called.append(causal)
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    ids = torch.randint(11, (2, 6))
    other = GPT2(11, context=12, model=12, heads=3, layers=2, attend=attend).double()
    same = small()
    other.load_state_dict(same.state_dict())
    assert_close(other(ids), same(ids))
    assert called == [True, True]


# Sizes and initial weights


def test_parameters_are_the_released_ones():
    with torch.device("meta"):
        assert gpt2.parameters(GPT2()) == 124_439_808
        assert gpt2.parameters(GPT2(**XL)) == 1_557_611_200
        medium = GPT2(model=1024, heads=16, layers=24)
    assert gpt2.parameters(medium) == 354_823_168


def test_weights_begin_as_the_paper_says():
    model = GPT2(500, context=400, model=64, heads=4, layers=8)
    assert model.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.positions.weight.std().item() == pytest.approx(0.01, rel=0.05)
    for block in model.blocks:
        for layer in (block.attention.qkv, block.feed_forward[0]):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for layer in (block.attention.output, block.feed_forward[2]):
            assert layer.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.1)
        for layer in (m for m in block.modules() if isinstance(m, nn.Linear)):
            assert not layer.bias.any()
    unscaled = GPT2(50, context=40, model=64, heads=4, layers=8, scaled=False)
    for layer in (unscaled.blocks[0].attention.output, unscaled.blocks[0].feed_forward[2]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


# The cache


def small() -> GPT2:
    return GPT2(11, context=12, model=12, heads=3, layers=2, std=0.5).double()


@pytest.mark.parametrize("parts", [[1] * 9, [4, 1, 1, 1, 1, 1], [9]])
@pytest.mark.parametrize("room", [None, 9])
@torch.no_grad()
def test_reading_in_parts_equals_reading_at_once(parts, room):
    model, ids = small(), torch.randint(11, (2, 9))
    cache = model.empty_cache(2, room)
    cache.kv.fill_(math.nan)  # unwritten entries have no influence
    found = [model(part, cache) for part in ids.split(parts, 1)]
    assert_close(torch.cat(found, 1), model(ids), rtol=0, atol=1e-12)
    assert (cache.length, cache.kv.shape) == (9, (2, 2, 2, 3, room or 12, 4))
    assert cache.kv[..., :9, :].isfinite().all()


@torch.no_grad()
def test_several_tokens_after_others_see_those_before_them():
    model, ids = small(), torch.randint(11, (2, 9))
    cache = model.empty_cache(2)
    found = [model(part, cache) for part in ids.split([3, 5, 1], 1)]
    assert_close(torch.cat(found, 1), model(ids), rtol=0, atol=1e-12)


def test_a_token_does_not_see_those_after_it():
    model, ids = small(), torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    assert_close(model(changed)[:, :5], model(ids)[:, :5])


@torch.no_grad()
def test_the_room_is_limited():
    model = small()
    with pytest.raises(ValueError, match="13 tokens, but room for 12"):
        model(torch.zeros(1, 13, dtype=torch.long))
    for room in (None, 7):
        cache = model.empty_cache(1, room)
        model(torch.zeros(1, room or 12, dtype=torch.long), cache)
        with pytest.raises(ValueError, match=f"{1 + (room or 12)} tokens, but room for {room or 12}"):
            model(torch.zeros(1, 1, dtype=torch.long), cache)


def test_generation_without_temperature_takes_the_likeliest():
    model, ids = small(), torch.randint(11, (2, 3))
    found = model.generate(ids, 9, torch.Generator(), temperature=0.0)
    for end in range(3, 12):
        assert torch.equal(found[:, end], model(found[:, :end])[:, -1].argmax(-1))


def test_generation_draws_by_the_probabilities():
    """Compares with samples from a model that recomputes everything for each token."""
    model, ids = small().float(), torch.randint(11, (2, 3))
    found = model.generate(ids, 6, torch.Generator().manual_seed(1), temperature=0.8, top_k=4)
    again, generator = ids, torch.Generator().manual_seed(1)
    for _ in range(6):
        likely = sampling_probabilities(model(again)[:, -1], temperature=0.8, top_k=4)
        again = torch.cat((again, torch.multinomial(likely, 1, generator=generator)), 1)
    assert torch.equal(found, again)
    assert torch.equal(model.generate(ids, 0, torch.Generator()), ids)


# Temperature and top k


def test_probabilities_of_the_likeliest():
    logits = torch.randn(5, 7, 20, dtype=torch.float64)
    likely = sampling_probabilities(logits, top_k=4)
    assert_close(likely.sum(-1), torch.ones(5, 7, dtype=torch.float64))
    assert (likely > 0).sum(-1).eq(4).all()
    kept = logits.topk(4, -1).indices
    assert_close(likely.gather(-1, kept), logits.gather(-1, kept).softmax(-1))
    assert_close(sampling_probabilities(logits, top_k=100), logits.softmax(-1))


def test_temperature_goes_from_the_likeliest_to_all_alike():
    logits = torch.randn(5, 20, dtype=torch.float64)
    assert_close(sampling_probabilities(logits), logits.softmax(-1))
    greedy = sampling_probabilities(logits, temperature=0.0)
    assert torch.equal(greedy.argmax(-1), logits.argmax(-1))
    assert greedy.sum().item() == 5
    assert_close(sampling_probabilities(logits, temperature=1e-4), greedy)
    assert_close(
        sampling_probabilities(logits, temperature=1e9), torch.full_like(logits, 1 / 20), rtol=1e-6, atol=0
    )
    assert torch.equal(sampling_probabilities(logits, top_k=1), greedy)


# The released weights


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("bare", [True, False])
def test_released_weights_speak_as_in_transformers(tmp_path, safe, bare):
    """Loads both formats, with the names of the whole model or, as on the hub, of its trunk."""
    theirs = reference(31, 16, 20, 5, 3)
    module = theirs.transformer if bare else theirs
    if safe:
        module.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = tmp_path / "pytorch_model.bin"
        torch.save(module.state_dict(), path)
    ours = from_released(path, heads=5)
    ids = torch.randint(31, (2, 16))
    assert_close(ours(ids), theirs(ids).logits)
    ours.loss(ids).backward()  # the weights are parameters
    assert all(weight.grad is not None for weight in ours.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_released_weights_in_other_precisions(tmp_path, dtype):
    theirs = reference(31, 16, 64, 1, 1).to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = from_released(tmp_path / "model.safetensors")
    assert ours.blocks[0].attention.heads == 1
    assert torch.equal(ours.tokens.weight, theirs.transformer.wte.weight.float())


def test_every_weight_of_a_released_file_has_a_place():
    """Nothing else is loaded: masks and the readout are not weights."""
    theirs = reference(31, 16, 20, 5, 3).state_dict()
    theirs["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
    theirs["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    assert renamed(theirs).keys() == GPT2(31, context=16, model=20, heads=5, layers=3).state_dict().keys()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08\0\0\0\0\0\0\0{}      "])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAvailableError, match=name):
        from_released(tmp_path / name)
    with pytest.raises(NotAvailableError, match="no file"):
        from_released(tmp_path / "absent.bin")


def test_merges_are_read_from_the_released_file(tmp_path):
    text = "the value of the other thing, they say; là où"
    merges = train_merges(text * 3, 30)
    bpe = ByteBPE(merges)
    lines = [" ".join(visible(bpe.tokens[symbol]) for symbol in pair) for pair in merges]
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    read = read_merges(path)
    assert read.encode(text) == bpe.encode(text)
    assert read.decode(read.encode(text)) == text
    assert read.decode([len(bpe)]) == "<|endoftext|>"
    for wrong in ("one two three\n", "zz y\n"):
        path.write_text(wrong)
        with pytest.raises(NotAvailableError, match="merges"):
            read_merges(path)
    with pytest.raises(NotAvailableError, match="--set merges=FILE"):
        read_merges(tmp_path / "absent.txt")


@pytest.mark.slow
def test_the_experiment_draws_text_from_released_weights(run_experiment, tmp_path):
    merges = train_merges("the value of the other thing " * 5, 20)
    bpe = ByteBPE(merges)
    lines = [" ".join(visible(bpe.tokens[symbol]) for symbol in pair) for pair in merges]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    theirs = reference(len(bpe) + 1, 64, 64, 1, 1)
    theirs.save_pretrained(tmp_path)
    record = run_experiment(gpt2, weights=str(tmp_path / "model.safetensors"), prompt="the other")
    assert [artifact["name"] for artifact in record.artifacts] == ["samples of the released model", "samples"]
    source = sources.load("text", "prose", 0)
    text = "".join(source.names[i] for i in source.parts.judge[0].tolist())
    tokens = bpe.encode(text[:500])
    windows = torch.tensor(tokens[: len(tokens) // 64 * 64]).view(-1, 64)
    with torch.no_grad():
        perplexity = theirs.eval()(windows, labels=windows).loss.exp().item()
    found = record.values["perplexity per token", "model.safetensors"]
    assert found == pytest.approx(perplexity, rel=1e-4)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(gpt2)
    assert record.headline_curve == "bits per byte over parameters"
    bits = {arm: value for (name, arm), value in record.values.items() if name == "held-out bits per byte"}
    assert bits.keys() == gpt2.SIZES.keys()
    claim = next(c for c in record.claims if c["claim"]["name"] == gpt2.LARGER.name)
    assert claim["values"]["bits per byte, small - medium"] == pytest.approx(bits["small"] - bits["medium"])
    assert claim["values"]["bits per byte, medium - large"] == pytest.approx(bits["medium"] - bits["large"])
    assert [artifact["kind"] for artifact in record.artifacts] == ["text"]


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(
        folder=tmp_path,
        events=EventWriter(tmp_path),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
        budget="smoke",
        settings={},
    )


def test_the_three_parts_share_no_text(run):
    world = toy.tokens_of(run)
    parts = world.seen, world.choose, world.judge
    texts = [[world.bpe.decode(piece.tolist()) for piece in part] for part in parts]
    assert world.bytes_per_token == len("".join(texts[2]).encode()) / len(world.judge[0])
    assert sum(len(piece) for part in texts for piece in part) == 20_000
    assert [len(part) for part in texts][1:] == [1, 1]


def test_the_break_puts_the_same_tokens_into_no_order(run):
    whole = toy.tokens_of(run)
    shuffled = toy.in_no_order(run, whole)
    for part in ("seen", "choose", "judge"):
        for piece, other in zip(getattr(whole, part), getattr(shuffled, part), strict=True):
            assert torch.equal(piece.sort().values, other.sort().values)
            assert (piece != other).double().mean() > 0.5


@pytest.mark.parametrize("broken", ["", "frozen blocks", "n-gram models"])
def test_models_and_the_sizes_that_they_represent(part_of_run, monkeypatch, broken):
    made = {}

    def watched(at, learn, rate):
        model = learn(at, rate)
        made[at.name] = model
        return 0.0, model

    rates = {}
    monkeypatch.setattr(toy, "attempt", watched)
    monkeypatch.setattr(toy, "train", lambda at, *given, rate, **rest: rates.update({at.name: rate}))
    toy.compare_sizes(part_of_run(broken=broken))
    falling = {"small": 0.018, "medium": 0.018 / 2**0.5, "large": 0.018 / 2}
    assert rates == pytest.approx({name: falling[name] for name in rates})
    assert "small" in rates
    small = made.pop("small")
    assert (small.tokens.embedding_dim, len(small.blocks)) == (16, 1)
    assert all(weight.requires_grad for weight in small.parameters())
    if broken == "n-gram models":
        assert {name: len(model.tables) for name, model in made.items()} == {"medium": 3, "large": 4}
        return
    sizes = {name: (model.tokens.embedding_dim, len(model.blocks)) for name, model in made.items()}
    assert sizes == {"medium": (32, 2), "large": (64, 3)}
    for model in made.values():
        assert all(weight.requires_grad == (not broken) for weight in model.blocks.parameters())
        assert model.tokens.weight.requires_grad


def test_counted_n_grams_share_the_discounted_mass():
    """By hand: of two symbols, 1 follows 0 twice and 0 follows it once."""
    model = NGrams([torch.tensor([0, 0, 1, 0, 1])], 2, 2)
    unigram = [(count - 0.75 + 0.75 * 2 / 2) / 5 for count in (3, 2)]
    found = model.probabilities(torch.tensor([[0, 1]]))
    assert found[0, 0].item() == pytest.approx(unigram[0])
    assert found[0, 1].item() == pytest.approx((2 - 0.75 + 0.75 * 2 * unigram[1]) / 3)
    model = NGrams([torch.randint(5, (200,)), torch.randint(5, (50,))], 5, 3)
    for context in ([1, 2], [4, 4]):
        ids = torch.tensor([[*context, last] for last in range(5)])
        assert model.probabilities(ids)[:, 2].sum().item() == pytest.approx(1.0)
    ids = torch.randint(5, (3, 9))
    assert_close(model.loss(ids).double(), -model.probabilities(ids)[:, 1:].log().mean(), rtol=1e-5, atol=0)


def test_bits_per_byte_of_a_uniform_model(run):
    """3 bits per token for 8 equally likely tokens, and 1.5 bits per byte for tokens of two bytes."""
    network = GPT2(8, context=toy.WINDOW, model=8, heads=2, layers=1)
    nn.init.zeros_(network.tokens.weight)
    text = [torch.randint(8, (200,))]
    world = toy.World(ByteBPE([]), text, text, text, bytes_per_token=2.0)
    found = toy.bits_a_byte(Trial(Workshop(run, world), Work(arm="a"), arm="a"), Sweep(network, 0.1, {}))
    assert_close(found["bits per byte"], torch.full((8,), 1.5))


def test_bits_of_frequencies():
    """Eight of ten tokens are the first symbol, with one added to each of three counts."""
    seen = [torch.tensor([0] * 5), torch.tensor([0, 0, 0, 1, 1])]
    bits = bits_of_frequencies(seen, [torch.tensor([0, 1])], 3)
    assert bits == pytest.approx(-(math.log2(9 / 13) + math.log2(3 / 13)) / 2)


def test_a_rate_climbs_and_falls_and_judged_data_are_not_trained_on(run):
    """In the training text one token follows another, in the test text a third."""
    network = GPT2(3, context=4, model=8, heads=2, layers=1, std=0.1)
    rates = []
    step = torch.optim.AdamW.step
    torch.optim.AdamW.step = lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    at = Trial(Workshop(run), Work(arm="ours"), arm="ours")
    try:
        train(at, network, [torch.tensor([0, 1] * 20)], steps=60, rate=0.03, arm="a")
    finally:
        torch.optim.AdamW.step = step
    assert rates[:6] == pytest.approx([0.03 * (i + 1) / 6 for i in range(6)], rel=0.03)
    assert rates[-1] < 1e-3 * 0.03 + 1e-4
    assert len(at.work.losses) == 60
    for other, least, most in ((1, 0.0, 0.3), (2, 1.0, math.inf)):
        windows = toy.windows_of(run, [torch.tensor([0, other] * 20)], "judge", 4)
        found = toy.nats(run, network, windows)
        assert least < found.mean().item() < most
        assert_close(found.mean(), network.loss(windows).detach())


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "410175953df1"
    assert gpt2.SIZES == {"small": (16, 2, 1), "medium": (32, 2, 2), "large": (64, 4, 3)}
    assert gpt2.RESIDUAL.kind == "theorem"
    blocks = {
        size: gpt2.parameters(GPT2(1, context=1, model=m, heads=h, layers=n).blocks)
        for size, (m, h, n) in gpt2.SIZES.items()
    }
    assert {size: round(count, -3) for size, count in blocks.items()} == {
        "small": 3000,
        "medium": 25000,
        "large": 150000,
    }


def test_every_variant_is_right(check_benchmark):
    training, decoding = check_benchmark(gpt2, tolerance=1e-8)
    assert (training.name, decoding.name) == ("training step", "next token")


@pytest.mark.parametrize("backward", [False, True])
def test_the_stated_cost_matches_torchs_count(backward):
    batch, tokens, width, layers, vocab = 2, 5, 12, 2, 11
    model = GPT2(vocab, context=8, model=width, heads=3, layers=layers)
    with FlopCounterMode(display=False) as counter:
        loss = model.loss(torch.randint(vocab, (batch, tokens + 1)))
        if backward:
            loss.backward()
    stated = training_cost(batch, tokens, width, layers, vocab, 4, context=8)
    later = tokens * (tokens - 1) // 2  # torch also counts the masked pairs
    masked = 2 * 2 * batch * layers * later * width
    counted = counter.get_total_flops()
    mode, times = ("forward+backward", 3) if backward else ("forward", 1)
    assert counted == stated[mode].flops + times * masked
    assert stated["forward"].bytes == 4 * gpt2.parameters(model)


def test_a_block_leaves_the_residual_path_alone():
    """If the block writes nothing, the output equals the input."""
    block, x = Block(12, 3), torch.randn(2, 5, 12)
    for layer in (block.attention.output, block.feed_forward[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)
