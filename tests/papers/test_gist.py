"""The mask compared with loops and by hand, outputs with transformers' GPT-2, the cache, and the control
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from readtrack.checks.constants import digest
from readtrack.papers import gist
from readtrack.papers.gist import GistGPT2, causal_mask, gist_mask, promptless_mask
from readtrack.papers.gist.benchmark import answer, cached_bytes, loss, read, step_cost
from readtrack.papers.gist.benchmark import by_loops as plainly
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.gist.experiment")

GIST = 9
IDS = torch.tensor([[1, 2, 3, 9, 4, 5], [1, 9, 9, 2, 3, 4], [1, 2, 3, 4, 5, 6], [9, 1, 2, 3, 4, 9]])


def small(**settings) -> GistGPT2:
    return GistGPT2(9, context=24, model=12, heads=3, layers=2, std=0.3, **settings).double()


def by_loops(text: list[int], *, gist_seen: bool) -> list[list[bool]]:
    places = [place for place, token in enumerate(text) if token == GIST]
    rows = []
    for query in range(len(text)):
        row = [key <= query for key in range(len(text))]
        if places and query > places[-1]:
            first_seen = places[0] if gist_seen else places[-1] + 1
            row = [seen and key >= first_seen for key, seen in enumerate(row)]
        rows.append(row)
    return rows


def as_reference(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights with the reference's names; its matrices multiply from the right."""
    names = {"qkv": "attn.c_attn", "output": "attn.c_proj", "0": "mlp.c_fc", "2": "mlp.c_proj"}
    theirs = {}
    for name, weight in weights.items():
        _, layer, part, inner, kind = [*name.split("."), "", "", "", ""][:5]
        if name.startswith(("tokens", "positions")):
            theirs[f"transformer.{'wte' if name.startswith('tokens') else 'wpe'}.weight"] = weight
        elif name.startswith("norm."):
            theirs[f"transformer.ln_f.{layer}"] = weight
        elif part == "norms":
            theirs[f"transformer.h.{layer}.ln_{int(inner) + 1}.{kind}"] = weight
        else:
            theirs[f"transformer.h.{layer}.{names[inner]}.{kind}"] = weight.T if weight.ndim > 1 else weight
    return {**theirs, "lm_head.weight": weights["tokens.weight"]}


def test_masks_are_those_by_loops():
    for mask, gist_seen in ((gist_mask, True), (promptless_mask, False)):
        assert mask(IDS, GIST)[:, 0].tolist() == [
            by_loops(text, gist_seen=gist_seen) for text in IDS.tolist()
        ]
    assert torch.equal(causal_mask(IDS, GIST)[2, 0], torch.ones(6, 6, dtype=torch.bool).tril())


def test_the_papers_picture():
    """Figure 2: three tokens, a gist token, two more."""
    expected = ["100000", "110000", "111000", "111100", "000110", "000111"]
    found = gist_mask(IDS[:1], GIST)[0, 0].int().tolist()
    assert ["".join(map(str, row)) for row in found] == expected


def test_texts_through_the_mask_match_transformers(assert_parity):
    """transformers' GPT-2 gets the mask from loops, as an addition to its scores."""
    config = GPT2Config(
        vocab_size=10,
        n_positions=24,
        n_embd=12,
        n_layer=2,
        n_head=3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="eager",
    )
    ours, theirs = small(), GPT2LMHeadModel(config).double().eval()
    seen = torch.tensor([by_loops(text, gist_seen=True) for text in IDS.tolist()])[:, None]
    added = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)
    assert_parity(
        lambda w: functional_call(ours, w, (IDS,)),
        lambda w: functional_call(theirs, as_reference(w), (IDS,), {"attention_mask": added}).logits,
        (),
        weights={name: torch.randn(weight.shape) / 3 for name, weight in ours.named_parameters()},
        rtol=1e-8,
        atol=1e-9,
    )


def test_half_precision_is_as_accurate_as_the_plain_formula(assert_half_precision):
    ids = torch.cat((torch.randint(9, (8, 9)), torch.full((8, 1), 9), torch.randint(9, (8, 10))), 1)
    network, other = (GistGPT2(9, context=24, model=48, heads=4, layers=2, std=0.1) for _ in range(2))
    assert_half_precision(
        lambda w: functional_call(Loss(network, loss), prefixed(w), (ids,)),
        lambda w: functional_call(Loss(other, plainly), prefixed(w), (ids,)),
        [],
        weights=dict(network.named_parameters()),
    )


class Loss(torch.nn.Module):
    def __init__(self, inside: GistGPT2, call) -> None:
        super().__init__()
        self.inside, self.call = inside, call

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.call(self.inside, ids)


def prefixed(weights: dict) -> dict:
    return {f"inside.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("gists", [1, 3])
@torch.no_grad()
def test_from_the_gists_cache_is_through_the_mask(gists):
    network, prompt, after = small(), torch.randint(9, (2, 7)), torch.randint(9, (2, 6))
    whole = network(torch.cat((prompt, torch.full((2, gists), GIST), after), 1))[:, -6:]
    cache = network.compress(prompt, gists=gists, room=6)
    assert (cache.length, cache.before, cache.kv.shape[-2]) == (gists, 7, gists + 6)
    found = [network(part, cache) for part in after.split([3, 1, 2], 1)]
    assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-11)
    assert cached_bytes(network.compress(prompt, gists=gists, room=6)) == 2 * 2 * 2 * gists * 12 * 8


@torch.no_grad()
def test_only_the_gist_knows_the_prompt():
    network, ids = small(), torch.tensor([[1, 2, 3, 9, 4, 5]])
    other = torch.tensor([[1, 7, 3, 9, 4, 5]])
    assert (network(ids) != network(other))[:, 4:].any()
    network.visible = promptless_mask
    assert torch.equal(network(ids)[:, 4:], network(other)[:, 4:])


@torch.no_grad()
def test_an_answer_leaves_the_cache_as_it_was():
    network, prompt = small(visible=causal_mask), torch.randint(9, (1, 5))
    kept = read(network, prompt, 6)
    before = kept.kv.clone()
    answer(network, torch.randint(9, (1, 3)), 3, kept)
    assert kept.length == 5
    assert torch.equal(kept.kv[..., :5, :], before[..., :5, :])


# The toy task


@pytest.mark.parametrize("unseen", [True, False])
def test_texts_ask_for_settings_of_their_prompt(unseen):
    ids, target = its.texts(50, unseen, torch.Generator().manual_seed(1))
    for text, answers in zip(ids.tolist(), target.tolist(), strict=True):
        settings = [text[place] for place in (1, 14)]
        assert ((settings[0] + 3 * settings[1]) % 10 == 0) is unseen
        assert text[26] == its.VOCAB
        asked = [place for place, token in enumerate(answers) if token != its.IGNORED]
        assert asked == [27, 29]
        assert [answers[place] for place in asked] == [settings[text[place] - its.ASKS] for place in asked]
    assert (its.PROMPT, its.GISTS) == (26, 1)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "gist mask without fine-tuning",
        "gist of half the prompt",
        "last prompt token instead of a gist",
    ],
)
def test_the_arms_match_their_names(run_experiment, monkeypatch, broken):
    made, tune = {}, its.tune

    def watched(at, way, rate):
        score, network = tune(at, way, rate)
        assert network is not at.before
        changed = any(
            not torch.equal(a, b) for a, b in zip(network.parameters(), at.before.parameters(), strict=True)
        )
        made[at.name] = (network.visible, changed)
        return score, network

    monkeypatch.setattr(its, "tune", watched)
    record = run_experiment(gist, broken=broken)
    ours = {
        "gist mask without fine-tuning": (gist_mask, False),
        "gist of half the prompt": (its.half_mask, True),
        "last prompt token instead of a gist": (its.last_mask, True),
    }
    assert made == {
        "gist": ours.get(broken, (gist_mask, True)),
        "no prompt": (promptless_mask, True),
        "whole prompt": (causal_mask, True),
    }
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "text"]


def test_the_replacements_of_the_gist_see_the_right_tokens():
    ids = its.texts(2, True, torch.Generator().manual_seed(1))[0]
    half, last = (mask(ids, its.VOCAB)[0, 0] for mask in (its.half_mask, its.last_mask))
    assert half[26].nonzero().flatten().tolist() == [*range(13, 27)]
    assert not half[13:, :13].any()
    assert half[28].nonzero().flatten().tolist() == [26, 27, 28]
    assert last[25, :26].all()
    assert last[28].nonzero().flatten().tolist() == [25, 27, 28]


def test_the_constants_are_pinned():
    assert digest(its) == "9ccd6c163750"


def test_each_setting_is_scored_by_itself():
    """The model knows only the first setting; on the second, it is correct by chance."""
    part = its.texts(60, True, torch.Generator().manual_seed(2))

    class KnowsTheFirst(GistGPT2):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids[:, 1:2].expand(ids.shape), its.VOCAB + 1)

    right = its.accuracies(KnowsTheFirst(its.VOCAB, model=12, heads=3, layers=1), part)
    first, second = right.mean(1).tolist()
    assert first == 1.0
    same = part[0][:, 1] == part[0][:, 14]
    assert second == pytest.approx(same.double().mean().item())


def test_accuracies_are_of_unseen_prompts_by_setting(part_of_run, monkeypatch):
    def scored(network, part):
        assert its.held_out(part[0][:, [1, 14]]).all()
        return torch.tensor([[1.0, 1.0], [1.0, 0.0]])

    monkeypatch.setattr(its, "accuracies", scored)
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    found = its.judged(at, Sweep(None, None, {}))
    assert {name: values.tolist() for name, values in found.items()} == {
        "accuracy, first setting": [1, 1],
        "accuracy, second setting": [1, 0],
        "accuracy": [1, 0.5],
    }


def test_the_saving_is_the_prompt_minus_its_gist(part_of_run):
    run, tables = part_of_run(), {}
    run.table = lambda name, columns, rows, caption="": tables.update({name: rows})
    network = GistGPT2(its.VOCAB, context=31, model=12, heads=3, layers=2, visible=causal_mask)
    its.show_saved(run, network, torch.zeros(1, its.PROMPT, dtype=torch.long))
    (table,) = tables.values()
    anew, cached, compressed = (row[1:] for row in table)
    assert [row[0] for row in (anew, cached, compressed)] == [0, 26, 1]
    assert cached[1] == 26 * compressed[1] == 26 * 2 * 2 * 12 * 4
    assert anew[2] > cached[2] >= compressed[2]


def test_gpt2_has_one_token_more():
    with torch.device("meta"):
        network = GistGPT2(50257)
    assert sum(p.numel() for p in network.parameters()) == 124_439_808 + 768


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(gist, tolerance=1e-8)
    assert [case.name for case in cases] == ["training step", "answer generation"]


def test_the_stated_cost_matches_torchs_count():
    network = GistGPT2(9, context=24, model=12, heads=3, layers=2)
    ids = torch.cat((torch.randint(9, (2, 5)), torch.full((2, 1), 9), torch.randint(9, (2, 4))), 1)
    with FlopCounterMode(display=False) as counter:
        loss(network, ids)
    seen = 9 * 10 // 2 - 5 * 3
    masked = 2 * 2 * 2 * 2 * (81 - seen) * 12
    assert counter.get_total_flops() == step_cost(2, 5, 4, 12, 2, 9, 4)["forward"].flops + masked
