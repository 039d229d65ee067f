"""Segments in parallel, streamed, and as one formula; the delta rule compared with a loop over tokens; the
control arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.papers import infini_attention
from readtrack.papers.infini_attention import InfiniAttention, Memory
from readtrack.papers.infini_attention.benchmark import segment_by_segment
from readtrack.papers.infini_attention.model import retrieve, update
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.infini_attention.experiment")


def small(segment: int = 4, **settings: object) -> InfiniAttention:
    return InfiniAttention(8, 2, segment, **settings).double()


class OneShot(torch.nn.Module):
    """The same weights in one matrix over all pairs of tokens."""

    def __init__(self, attention: InfiniAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return its.one_shot(self.attention, x)


def named(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"attention.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 14])
@pytest.mark.parametrize("segment", [1, 4, 20])
def test_all_segments_at_once_are_one_formula(assert_parity, tokens, segment):
    attention = small(segment)
    assert_parity(
        lambda weights, x: functional_call(attention, weights, (x,)),
        lambda weights, x: functional_call(OneShot(attention), named(weights), (x,)),
        (torch.randn(2, tokens, 8),),
        weights={name: torch.randn(w.shape) for name, w in attention.named_parameters()},
        rtol=1e-5,  # angles are in single precision, and start from different positions
        atol=1e-5,
    )


def test_the_formula_is_a_loop_over_tokens():
    """For one head, the contributions of earlier tokens are added one by one."""
    attention = InfiniAttention(4, 1, 3).double()
    with torch.no_grad():
        attention.gate.fill_(40.0)  # memory only
    x = torch.randn(1, 8, 4, dtype=torch.float64)
    q, k, v = (part[0] for part in (x @ attention.qkv.weight.T).chunk(3, -1))
    rows = []
    for token in range(8):
        total, norm = torch.zeros(4, dtype=torch.float64), 0.0
        for earlier in range(token // 3 * 3):
            weight = ((F.elu(q[token]) + 1) * (F.elu(k[earlier]) + 1)).sum()
            total, norm = total + weight * v[earlier], norm + weight
        rows.append(total / norm if token >= 3 else total)
    assert_close(attention(x)[0], torch.stack(rows) @ attention.output.weight.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("delta", [False, True])
def test_streaming_is_the_whole_text(delta):
    attention, x = small(delta=delta), torch.randn(2, 14, 8, dtype=torch.float64)
    memory, found = attention.empty(2), []
    for part in x.split(4, 1):
        result, memory = attention.stream(part, memory)
        found.append(result)
    assert_close(torch.cat(found, 1), attention(x), rtol=0, atol=1e-12)
    assert memory.M.shape == (2, 2, 4, 4)


def test_the_delta_rule_adds_the_part_that_the_memory_lacks():
    k, v = torch.randn(2, 1, 1, 3, 4, dtype=torch.float64)
    memory = Memory(torch.randn(1, 1, 4, 4, dtype=torch.float64), torch.rand(1, 1, 4, dtype=torch.float64))
    after = update(memory, k, v, delta=True)
    expected = memory.M[0, 0].clone()
    for key, value in zip(F.elu(k[0, 0]) + 1, v[0, 0], strict=True):
        said = key @ memory.M[0, 0] / (key @ memory.z[0, 0])
        expected += key[:, None] * (value - said)
    assert_close(after.M[0, 0], expected)
    assert_close(after.z, memory.z + (F.elu(k) + 1).sum(-2))  # z includes every key completely


def test_a_fact_written_twice_by_the_delta_rule_is_there_once():
    k, v = torch.randn(2, 1, 1, 1, 4, dtype=torch.float64)
    nothing = Memory(torch.zeros(1, 1, 4, 4).double(), torch.zeros(1, 1, 4).double())
    once = update(nothing, k, v, delta=True)
    twice = update(once, k, v, delta=True)
    assert_close(twice.M, once.M)
    assert_close(retrieve(once, k), v)


def test_an_empty_memory_gives_nothing():
    attention = small()
    assert not retrieve(attention.empty(2), torch.randn(2, 2, 3, 4).double()).any()


def test_gates_begin_in_the_middle_and_learn():
    attention = small()
    assert not attention.gate.any()
    attention(torch.randn(2, 9, 8, dtype=torch.float64)).square().sum().backward()
    assert all(weight.grad.any() for weight in attention.parameters())
    assert (attention.gate.grad != 0).all()


def test_half_precision_is_as_accurate_as_segment_by_segment(assert_half_precision):
    attention = InfiniAttention(32, 2, 8)
    assert_half_precision(
        lambda weights, x: functional_call(attention, weights, (x,)),
        lambda weights, x: segment_by_segment(weights, x, heads=2, segment=8),
        (torch.randn(2, 40, 32),),
        weights={name: torch.randn(w.shape) / 6 for name, w in attention.named_parameters()},
    )


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 10 cannot be split over 3 heads"):
        InfiniAttention(10, 3, 4)


def test_the_cache_is_as_large_as_the_memory():
    memory = InfiniAttention(32, 2, its.SEGMENT).empty(1)
    numbers = memory.M.numel() + memory.z.numel()
    assert its.CACHED * 2 * 32 <= numbers < (its.CACHED + 1) * 2 * 32


def test_a_head_has_one_parameter_more_and_a_separate_memory(run_experiment):
    claims = {claim["claim"]["name"]: claim for claim in run_experiment(infini_attention).claims}
    counted = claims[its.COUNT.name]
    assert counted["verdict"] == "held"
    assert list(counted["values"].values()) == [1, 64 * 64 + 64]
    assert {bound.what for bound in its.CONSTANT.timed} == {"time", "memory"}


def test_the_control_sees_its_segment_and_eight_tokens_before():
    control = its.CachedTokens(8, 2, 16).double()
    x = torch.randn(1, 48, 8, dtype=torch.float64, requires_grad=True)
    control(x)[0, 40].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    assert seen.nonzero()[:, 0].tolist() == list(range(32 - its.CACHED, 41))


def test_without_memory_earlier_segments_do_not_count():
    wiped = its.Wiped(8, 2, 4).double()
    x = torch.randn(1, 12, 8, dtype=torch.float64, requires_grad=True)
    wiped(x)[0, 10].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).nonzero()[:, 0].tolist() == [8, 9, 10]


@pytest.mark.parametrize("near", [False, True])
def test_values_lie_before_the_cached_ones_or_within(near):
    ids, value = its.draw(4, 200, torch.Generator().manual_seed(0), near=near)
    places = (ids < its.VALUES).nonzero()
    assert torch.equal(places[:, 0], torch.arange(200))
    assert torch.equal(ids[places[:, 0], places[:, 1]], value)
    held = 3 * its.SEGMENT - its.CACHED
    assert ((places[:, 1] >= held) == near).all()
    assert (ids[:, -1] == its.VALUES + its.CYCLE).all()


@torch.no_grad()
def test_a_memory_of_one_segment_forgets_the_one_before():
    newest, linear = its.Newest(8, 2, 4, delta=True).double(), small()
    linear.load_state_dict(newest.state_dict())
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    assert_close(newest(x)[:, :8], linear(x)[:, :8])  # with two segments, only one is in the memory
    # Retrieval has no positions, so the third segment alone sees the same as after any first segment.
    assert_close(newest(x)[:, 8:], newest(x[:, 4:])[:, 4:])
    assert not torch.allclose(linear(x)[:, 8:], linear(x[:, 4:])[:, 4:])


@pytest.mark.parametrize(
    ("options", "memory"),
    [
        ({}, InfiniAttention),
        ({"null": True}, its.CachedTokens),
        ({"broken": its.WIPED.name}, its.Wiped),
        ({"broken": its.NEWEST.name}, its.Newest),
        ({"broken": its.GRU.name}, its.Recurrent),
    ],
    ids=["plain", "null", "wiped", "newest", "GRU"],
)
def test_the_arms_match_their_names(run_experiment, monkeypatch, options, memory):
    made = {}
    train = its.train

    def watched(at, make, rate):
        made[at.name] = make()
        return train(at, make, rate)

    monkeypatch.setattr(its, "train", watched)
    run_experiment(infini_attention, **options)
    assert {arm: type(attention) for arm, attention in made.items()} == {
        "linear memory": memory,
        "delta rule": InfiniAttention,
        "a cache as large": its.CachedTokens,
    }
    assert made["delta rule"].delta
    assert memory is not InfiniAttention or not made["linear memory"].delta


def test_accuracies_are_of_texts_of_the_stated_lengths(part_of_run, monkeypatch):
    monkeypatch.setattr(
        its,
        "answered",
        lambda run, network, segments, part, near=False: torch.tensor(
            [100.0 * segments + 10 * near + (part == "judge")]
        ),
    )
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    monkeypatch.setattr(at, "metric", lambda *_, **__: None)
    assert its.by_length(at, Sweep(None, None, {})) == {
        "accuracy at four segments": 401,
        "accuracy at 32 segments": 3201,
        "accuracy within the cache's reach": 411,
    }


def test_texts_to_judge_by_are_not_those_to_choose_by(part_of_run, monkeypatch):
    seen = {}
    draw = its.draw

    def watched(segments, count, generator, *, near=False):
        seen[part, near] = draw(segments, count, generator, near=near)[0]
        return seen[part, near], torch.zeros(count, dtype=torch.long)

    monkeypatch.setattr(its, "draw", watched)
    run = part_of_run()
    for part in ("choose", "judge"):
        for near in (False, True):
            its.answered(run, its.Finder(its.Recurrent(32)), 4, part, near=near)
    assert len({tuple(ids.flatten().tolist()) for ids in seen.values()}) == 4


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(infini_attention)
    assert [case.name for case in cases] == ["attention over a text", "decoding one token"]
