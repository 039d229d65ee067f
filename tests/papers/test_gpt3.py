"""GPT-3's banded layers compared with loops and GPT-Neo, its sizes, and a predictor that knows all rules."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from readtrack.checks.constants import digest
from readtrack.papers import gpt3
from readtrack.papers.attention import scaled_dot_product_attention
from readtrack.papers.gpt3 import GPT3, SIZES, locally_banded
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.gpt3.experiment")  # the hook has the same name


@pytest.mark.parametrize(("tokens", "keys", "window"), [(6, 6, 3), (1, 7, 4), (4, 9, 2), (5, 5, 9)])
def test_the_band_by_loops(assert_parity, tokens, keys, window):
    q, k, v = torch.randn(2, 3, tokens, 4), torch.randn(2, 3, keys, 4), torch.randn(2, 3, keys, 4)

    def loops(q, k, v):
        rows = []
        for i in range(tokens):
            at = keys - tokens + i
            seen = slice(max(at - window + 1, 0), at + 1)
            scores = q[:, :, i : i + 1] @ k[:, :, seen].mT / 2
            rows.append(scores.softmax(-1) @ v[:, :, seen])
        return torch.cat(rows, 2)

    assert_parity(lambda *x: locally_banded(*x, window=window), loops, (q, k, v))


def reference(vocab: int, context: int, model: int, heads: int, layers: int, window: int):
    config = GPTNeoConfig(
        vocab_size=vocab,
        max_position_embeddings=context,
        hidden_size=model,
        num_heads=heads,
        num_layers=layers,
        attention_types=[[["global", "local"], layers // 2]],
        window_size=window,
        attention_dropout=0.0,
        embed_dropout=0.0,
        resid_dropout=0.0,
        attn_implementation="eager",
    )
    return GPTNeoForCausalLM(config).double().eval()


def as_reference(weights: dict[str, Tensor], dim: int) -> dict[str, Tensor]:
    """GPT-Neo does not scale the scores, so the query's weights include the scale; its queries have no
    bias.
    """
    theirs = {"transformer.wte.weight": weights["tokens.weight"], "lm_head.weight": weights["tokens.weight"]}
    theirs["transformer.wpe.weight"] = weights["positions.weight"]
    names = {"attention.output": "attn.attention.out_proj", "norms.0": "ln_1", "norms.1": "ln_2"}
    names |= {"feed_forward.0": "mlp.c_fc", "feed_forward.2": "mlp.c_proj"}
    for name, weight in weights.items():
        if name.startswith("norm."):
            theirs[f"transformer.ln_f.{name.removeprefix('norm.')}"] = weight
        if not name.startswith("blocks."):
            continue
        _, layer, *middle, kind = name.split(".")
        prefix = f"transformer.h.{layer}"
        if middle == ["attention", "qkv"]:
            q, k, v = weight.chunk(3)
            for part, own in (("q", q * dim**-0.5), ("k", k), ("v", v)):
                theirs[f"{prefix}.attn.attention.{part}_proj.weight"] = own
        else:
            theirs[f"{prefix}.{names['.'.join(middle)]}.{kind}"] = weight
    return theirs


def test_layers_alternate_as_in_gpt_neo(assert_parity):
    size = {"context": 12, "model": 12, "heads": 3, "layers": 4, "window": 4}
    ours, theirs = GPT3(13, **size).double(), reference(13, **size)
    weights = {
        name: torch.randn(w.shape) / 3 for name, w in ours.named_parameters() if "qkv.bias" not in name
    }
    zero = {name: torch.zeros_like(w) for name, w in ours.named_parameters() if "qkv.bias" in name}
    ids = torch.randint(13, (3, 12))
    assert_parity(
        lambda given: functional_call(ours, given | zero, (ids,)),
        lambda given: functional_call(theirs, as_reference(given, 4), (ids,)).logits,
        (),
        weights=weights,
        rtol=1e-5,  # the reference computes scores in single precision
        atol=1e-7,
    )


def test_every_other_layer_is_banded():
    net = GPT3(13, context=12, model=12, heads=3, layers=4, window=5)
    attends = [block.attention.attend for block in net.blocks]
    assert attends[0] is attends[2] is scaled_dot_product_attention
    assert [attends[i].func for i in (1, 3)] == [locally_banded] * 2
    assert attends[1].keywords == {"window": 5}


@pytest.mark.parametrize("parts", [[1] * 9, [4, 3, 2]])
@torch.no_grad()
def test_reading_in_parts_equals_reading_at_once(parts):
    net = GPT3(13, context=12, model=12, heads=3, layers=4, window=3, std=0.5).double()
    ids, cache = torch.randint(13, (2, 9)), net.empty_cache(2)
    found = [net(part, cache) for part in ids.split(parts, 1)]
    assert_close(torch.cat(found, 1), net(ids), rtol=0, atol=1e-12)


def test_parameters_match_the_table():
    with torch.device("meta"):
        counts = {name: toy.parameters(GPT3(**size)) for name, size in SIZES.items()}
    assert counts["175B"] == 174_604_259_328
    for name, count in counts.items():
        unit = {"M": 1e6, "B": 1e9}[name[-1]]
        assert count / unit == pytest.approx(float(name[:-1]), rel=0.02)
    with torch.device("meta"):
        assert GPT3().positions.num_embeddings == 2048


# The toy task


def test_documents_follow_their_rule():
    rules = toy.Rules.made(torch.Generator().manual_seed(1))
    ids, rule = rules.draw(50, torch.Generator().manual_seed(2))
    keys, answers = ids[:, ::2], ids[:, 1::2] - toy.KEYS
    assert torch.equal(keys.sort(1).values, torch.arange(8).expand(50, -1))
    assert torch.equal(answers // toy.VALUES, keys)
    assert torch.equal(answers % toy.VALUES, rules.value[rule, keys])
    assert (rule == rule[:, :1]).all()
    _, mixed = replace(rules, unrelated=True).draw(50, torch.Generator().manual_seed(2))
    assert not (mixed == mixed[:, :1]).all()


def test_the_best_answer_by_counting():
    rules = toy.Rules.made(torch.Generator().manual_seed(1))
    ids, _ = rules.draw(6, torch.Generator().manual_seed(2))
    best = rules.best(ids)
    for row, example in itertools.product(range(6), range(8)):
        pairs = [(k, (a - 8) % 8) for k, a in ids[row].view(-1, 2).tolist()]
        fits = [r for r in rules.value.tolist() if all(r[k] == y for k, y in pairs[:example])]
        votes = [sum(r[pairs[example][0]] == y for r in fits) for y in range(8)]
        assert best[row, example].item() == pytest.approx(max(votes) / len(fits))


def test_only_answers_are_targets():
    net = GPT3(72, context=16, model=8, heads=1, layers=2, window=8).double()
    ids, _ = toy.Rules.made(torch.Generator().manual_seed(1)).draw(3, torch.Generator().manual_seed(2))
    expected = -net(ids).log_softmax(-1)[:, ::2].gather(2, ids[:, 1::2, None])[..., 0]
    assert_close(toy.answer_nats(net, ids), expected)


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "301b9ecfb600"


def test_the_experiment_runs(run_experiment):
    record = run_experiment(gpt3)
    curves = record.curves["accuracy over examples"]
    assert curves.keys() == {"small", "medium", "large", "who knows all rules"}
    assert all(len(curve) == 8 for curve in curves.values())
    assert [artifact["kind"] for artifact in record.artifacts] == ["table"]


def test_the_gain_from_examples_is_counted_on_answers(part_of_run, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ids, _ = toy.Rules.made(generator).draw(10, generator)
    keys, answers = ids[:, ::2], ids[:, 1::2]
    right = torch.ones_like(answers, dtype=torch.bool)
    right[:7, 0] = right[:5, 1] = right[:1, -1] = False  # 3, 5, all, and 9 of ten
    logits = torch.zeros(*ids.shape, toy.KEYS + toy.KEYS * toy.VALUES)
    logits[:, ::2].scatter_(2, torch.where(right, answers, keys)[..., None], 1.0)
    run, read = part_of_run(), []
    monkeypatch.setattr(toy, "documents", lambda run, rules, part: read.append(part) or ids)
    at = Trial(Workshop(run), Work(arm="large"), arm="large")
    found = toy.judged(at, Sweep(lambda ids: logits, None, {}))
    assert found["accuracy without an example"].tolist() == [0.0] * 7 + [1.0] * 3
    assert found["accuracy that 7 examples add"].tolist() == [0.0] + [1.0] * 6 + [0.0] * 3
    assert read == ["judge"]


def test_arms_differ_in_size_alone_and_the_rivals_in_steps_alone(run_experiment, monkeypatch):
    made, network = [], toy.network
    monkeypatch.setattr(
        toy, "network", lambda width, heads: made.append((width, heads)) or network(width, heads)
    )
    curve = f"loss at rate {toy.RATES[1]:g}"
    plain = run_experiment(gpt3)
    sizes = [(size.width, size.heads) for size in toy.WIDTHS.values()]
    assert made == sizes
    assert sizes == sorted(set(sizes))
    steps = {arm: len(losses) for arm, losses in plain.curves[curve].items()}
    assert len(set(steps.values())) == 1
    for name, times in (("small, trained longer", 4), ("small, 16 times the steps", 16)):
        made.clear()
        longer = run_experiment(gpt3, broken=name)
        assert made == [*sizes[:-1], sizes[0]]
        assert len(longer.curves[curve]["large"]) == times * steps["small"]


def test_rates_fall_only_with_the_root_of_the_width(run_experiment, monkeypatch):
    rates, adamw = [], torch.optim.AdamW

    def noted(parameters, lr, **more):
        rates.append(lr)
        return adamw(parameters, lr, **more)

    monkeypatch.setattr(torch.optim, "AdamW", noted)
    run_experiment(gpt3)
    widths = [size.width for size in toy.WIDTHS.values()]
    assert rates == pytest.approx([toy.RATES[1] * (widths[0] / width) ** 0.5 for width in widths])


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(gpt3, tolerance=1e-8)] == ["queries with one prompt"]
