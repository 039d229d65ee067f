"""FlashAttention in PyTorch compared with torch's attention, the algorithm's invariants, and the
experiment.
"""

from __future__ import annotations

import importlib
import math
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.bench import memory
from readtrack.checks.constants import digest
from readtrack.papers import flashattention
from readtrack.papers.flashattention import (
    baselines,
    blocks_for,
    flash_attention,
    in_kernels,
    online_attention,
    standard_accesses,
    standard_attention,
    tiled_accesses,
    tiled_attention,
)
from readtrack.papers.flashattention.tiled import SLACK, Schedule, exp2_
from readtrack.plugin import Bench, Cost, Sweep, Table

toy = importlib.import_module("readtrack.papers.flashattention.experiment")  # the hook has the same name

# Small enough for several tiles, several chunks of heads, and partial tiles at every edge.
small = partial(tiled_attention, query_block=8, key_block=8)


def vectors(queries=37, keys=37, *, heads=4, kv_heads=4, dim=6, values=6, dtype=torch.float64):
    return (
        torch.randn(2, heads, queries, dim, dtype=dtype),
        torch.randn(2, kv_heads, keys, dim, dtype=dtype),
        torch.randn(2, kv_heads, keys, values, dtype=dtype),
    )


def visible(queries, keys, *, causal=False, window=None):
    """The keys that query i, one of the last `queries` positions, may see."""
    ago = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen &= ago >= 0
    if window is not None:
        seen &= ago < window
    return seen


def torchs(q, k, v, **how):
    """torch's unfused attention with an explicit mask."""
    mask = visible(q.shape[-2], k.shape[-2], **how)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


SIGHTS = [{}, {"causal": True}, {"causal": True, "window": 7}, {"causal": True, "window": 1}]


# Exactness


@pytest.mark.parametrize("how", SIGHTS)
@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (16, 16), (1, 19), (13, 41)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
def test_equals_torchs(assert_parity, how, queries, keys, heads, kv_heads):
    inputs = vectors(queries, keys, heads=heads, kv_heads=kv_heads)
    assert_parity(partial(small, **how), partial(torchs, **how), inputs)


@pytest.mark.parametrize("how", [*SIGHTS, {"scale": 0.3}])
@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (16, 16), (1, 19), (13, 41)])
def test_the_ten_lines_equal_torchs(assert_parity, how, queries, keys):
    how, scale = {name: how[name] for name in how if name != "scale"}, how.get("scale")
    inputs = vectors(queries, keys, kv_heads=2, values=9)
    assert_parity(
        partial(online_attention, **how, scale=scale, key_block=8),
        lambda q, k, v: torchs(q * (1 if scale is None else scale * 6**0.5), k, v, **how),
        inputs,
    )


@pytest.mark.parametrize("steep", [1.0, 300.0])
def test_the_ten_lines_keep_the_maximum_of_all_blocks(assert_parity, steep):
    """The scores increase along the keys, or decrease."""
    q, k, v = vectors(20, 40)
    q[..., 0], k[..., 0] = 1, steep * torch.linspace(-1, 1, 40)
    for order in (slice(None), torch.arange(39, -1, -1)):
        inputs = q, k[..., order, :], v[..., order, :]
        assert_parity(partial(online_attention, key_block=8), torchs, inputs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("how", SIGHTS)
def test_blocks_of_the_usual_size_equal_torchs(assert_parity, how):
    """Uses several blocks in both directions, and heads that do not all fit at once."""
    if "window" in how:
        how = {**how, "window": 100}
    assert_parity(
        partial(flash_attention, **how), partial(torchs, **how), vectors(300, 530, heads=6, kv_heads=3)
    )


def test_values_may_have_another_width_and_the_scale_another_value(assert_parity):
    assert_parity(
        partial(small, scale=0.3),
        lambda q, k, v: ((q @ k.mT) * 0.3).softmax(-1) @ v,
        vectors(values=9),
    )


def test_heads_in_several_chunks(assert_parity, monkeypatch):
    """Processes one head at a time."""
    monkeypatch.setattr("readtrack.papers.flashattention.tiled.HEADS_PER_THREAD", 0)
    assert_parity(small, torchs, vectors(heads=3, kv_heads=3))


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGHTS)
def test_gradients_are_right(how):
    inputs = [x.requires_grad_() for x in vectors(9, 11, heads=2, kv_heads=1, dim=3, values=2)]
    attend = partial(tiled_attention, query_block=4, key_block=5, **how)
    assert gradcheck(attend, inputs)


@pytest.mark.parametrize("how", SIGHTS[1:3])
def test_second_derivatives_are_right(how):
    inputs = [x[:1].requires_grad_() for x in vectors(3, 4, heads=2, kv_heads=1, dim=2, values=1)]
    attend = partial(tiled_attention, query_block=2, key_block=3, **how)
    assert gradgradcheck(attend, [x.detach().requires_grad_() for x in inputs])


def test_second_derivatives_where_not_all_have_one():
    q, k, v = vectors(5, 5)
    q.requires_grad_()
    (dq,) = torch.autograd.grad(small(q, k, v).square().sum(), q, create_graph=True)
    (theirs,) = torch.autograd.grad(torchs(q, k, v).square().sum(), q, create_graph=True)
    assert_close(torch.autograd.grad(dq.sum(), q), torch.autograd.grad(theirs.sum(), q))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_as_accurate_as_the_standard(dtype, causal):
    """The authors' own tolerance: twice the standard error, three times for gradients."""
    inputs = [x.to(dtype) for x in vectors(129, 129, dim=64, values=64)]
    grad = torch.randn_like(inputs[0])
    exact = flashattention.results(standard_attention, *(x.double() for x in (*inputs, grad)), causal=causal)
    ours, theirs = (
        flashattention.largest_errors(flashattention.results(attend, *inputs, grad, causal=causal), exact)
        for attend in (small, standard_attention)
    )
    assert ours[0] <= 2 * theirs[0]
    assert ours[1] <= 3 * theirs[1]


@pytest.mark.parametrize("steep", [2.0, 5000.0])
@pytest.mark.parametrize("how", SIGHTS)
def test_a_maximum_that_rises_and_falls_from_tile_to_tile(assert_parity, steep, how):
    """The maximum changes by less than the correction threshold, and by so much that 2^x overflows."""
    q, k, v = vectors(40, 64, dim=4, values=4)
    q[..., 0] = k[..., 0] = 1
    k[..., 0] *= steep * torch.linspace(0, 7, 64).sin()  # up, then down, over eight tiles
    growth = torch.diff((q @ k.mT).unflatten(-1, (8, 8)).amax(-1)) / 2 * math.log2(math.e)
    assert growth.max() > 1024 if steep > 2 else growth.max() < SLACK
    assert_parity(partial(small, **how), partial(torchs, **how), (q, k, v))


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_is_as_accurate_as_torchs(assert_half_precision, causal):
    """torch's fused kernel also keeps scores in single precision."""
    assert_half_precision(
        partial(small, causal=causal),
        partial(F.scaled_dot_product_attention, is_causal=causal),
        vectors(129, 129, dim=64, values=64, dtype=torch.float32),
    )


def test_it_runs_under_autocast():
    q, k, v = (x.requires_grad_() for x in vectors(40, 40, dtype=torch.float32))
    weight = torch.randn(6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = small(q @ weight, k @ weight, v @ weight, causal=True)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert q.grad.isfinite().all()
    assert q.grad.any()


def test_weights_below_the_smallest_normal_number_are_zero():
    scores = torch.tensor([0.0, -1.0, -126.5, -140.0, -torch.inf, torch.nan])
    found = exp2_(scores)
    assert found[:5].tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert found[5].isnan()
    assert exp2_(torch.tensor([-900.0], dtype=torch.float64)).item() == 2.0**-900


# Invariants


def test_the_order_of_keys_does_not_matter():
    q, k, v = vectors()
    order = torch.randperm(k.shape[2])
    assert_close(small(q, k[:, :, order], v[:, :, order]), small(q, k, v), rtol=0, atol=1e-14)


@pytest.mark.parametrize("blocks", [(1, 1), (3, 7), (7, 3), (64, 64)])
@pytest.mark.parametrize("causal", [False, True])
def test_the_size_of_blocks_does_not_matter(blocks, causal):
    q, k, v = vectors()
    other = tiled_attention(q, k, v, causal=causal, query_block=blocks[0], key_block=blocks[1])
    assert_close(other, small(q, k, v, causal=causal), rtol=0, atol=1e-14)


def test_fully_masked_queries_give_zeros_and_no_gradient():
    """Seven queries and four keys: the first three queries come before the first key."""
    q, k, v = (x.requires_grad_() for x in vectors(7, 4))
    out = tiled_attention(q, k, v, causal=True, query_block=2, key_block=3)
    assert (out[:, :, :3] == 0).all()
    assert_close(out[:, :, 3], v[:, :, 0])  # the fourth query sees only the first key
    dq, dk, dv = torch.autograd.grad(out[:, :, :3].sum(), (q, k, v), retain_graph=True)
    assert not dq.any()
    assert not dk.any()
    assert not dv.any()
    assert_close(out, standard_attention(q, k, v, causal=True))


def test_not_a_number_is_not_hidden():
    q, k, v = vectors(20, 20)
    k[0, 0, 3, 0] = math.nan
    out = small(q, k, v)
    assert out[0, 0].isnan().all()
    assert out[0, 1:].isfinite().all()
    inputs = [x.requires_grad_() for x in (q, k, v)]
    ours, theirs = (torch.autograd.grad(attend(*inputs).sum(), inputs) for attend in (small, torchs))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.isnan(), other.isnan())


@pytest.mark.parametrize(("queries", "keys", "batch"), [(0, 4, 2), (4, 0, 2), (0, 0, 2), (3, 4, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_empty_input_gives_empty_output(queries, keys, batch, causal):
    q, k, v = (x[:batch].requires_grad_() for x in vectors(queries, keys))
    out = flash_attention(q, k, v, causal=causal)
    assert out.shape == (batch, *q.shape[1:3], v.shape[-1])
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert [g.shape for g in gradients] == [x.shape for x in (q, k, v)]
    assert not any(x.any() for x in (out, *gradients))


def test_inputs_may_be_views_and_are_left_alone():
    """Heads are split from one projection, as in models, so nothing is contiguous."""
    x = torch.randn(2, 21, 3 * 4 * 6, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (4, 6)).transpose(1, 2) for part in x.chunk(3, -1))
    before = x.clone()
    assert_close(small(q, k, v), torchs(q, k, v))
    assert torch.equal(x, before)


# The schedule


@pytest.mark.parametrize("how", SIGHTS)
@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (20, 45), (45, 20)])
def test_the_schedule_covers_each_visible_unit_once(how, queries, keys):
    schedule = Schedule(queries, keys, **how, query_block=8, key_block=8)
    like, counts = torch.zeros(()), torch.zeros(queries, keys)
    for rows in schedule.rows():
        for columns in schedule.columns(rows):
            bias = schedule.bias(rows, columns, like)
            seen = (
                torch.ones(rows.stop - rows.start, columns.stop - columns.start)
                if bias is None
                else bias.exp()
            )
            counts[rows, columns] += seen
    assert torch.equal(counts, visible(queries, keys, **how).float())


def test_blocks_above_the_diagonal_are_skipped():
    schedule = Schedule(64, 64, causal=True, query_block=8, key_block=8)
    assert [len(list(schedule.columns(rows))) for rows in schedule.rows()] == [1, 2, 3, 4, 5, 6, 7, 8]
    narrow = Schedule(64, 64, causal=True, window=8, query_block=8, key_block=8)
    assert [len(list(narrow.columns(rows))) for rows in narrow.rows()] == [1, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "how",
    [
        {"window": 3},
        {"window": 0, "causal": True},
        {"window": 3, "causal": True, "query_block": 16, "key_block": 8},
    ],
)
def test_an_impossible_window_is_refused(how):
    q, k, v = vectors()
    with pytest.raises(ValueError, match="window"):
        tiled_attention(q, k, v, **how)


@pytest.mark.parametrize(
    "how", [{"window": 3}, {"window": 0, "causal": True}, {"window": -1, "causal": True}]
)
@pytest.mark.parametrize("kernels", [False, True])
def test_unsupported_windows_do_not_reach_the_kernels(monkeypatch, how, kernels):
    """The kernels interpret 0 as no window, and a window without `causal` as one that sees the future."""
    module = sys.modules["readtrack.papers.flashattention.model"]
    monkeypatch.setattr(module, "in_kernels", lambda *_: kernels)
    monkeypatch.setattr(module, "fused", lambda *_, **__: pytest.fail("reached the kernels"))
    with pytest.raises(ValueError, match="window"):
        flash_attention(*vectors(), **how)


def test_the_arguments_of_the_kernels(monkeypatch):
    module = sys.modules["readtrack.papers.flashattention.model"]
    monkeypatch.setattr(module, "in_kernels", lambda *_: True)
    given = []
    monkeypatch.setattr(module, "fused", lambda q, _k, _v, **how: (given.append(how), q)[1])
    flash_attention(*vectors(), causal=True, window=3, scale=0.5)
    assert given == [{"causal": True, "window": 3, "scale": 0.5}]


def test_shapes_are_checked():
    q, k, v = vectors()
    with pytest.raises(TypeCheckError):
        flash_attention(q, k[:, :, :5], v)


# Memory and accesses


def test_memory_for_backward_is_linear():
    """Theorem 1: one number per row in addition to inputs and output."""
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.data_ptr()] = x
        return x

    q, k, v = (x.requires_grad_() for x in vectors(300, 300))
    with saved_tensors_hooks(keep, lambda x: x):
        out = small(q, k, v)
    rows = out.numel() // out.shape[-1]
    assert sum(x.numel() for x in kept.values()) == q.numel() + k.numel() + v.numel() + out.numel() + rows


def test_memory_grows_with_the_length_not_with_its_square():
    peaks = {}
    blocks = partial(tiled_attention, query_block=32, key_block=32)
    for attend in (blocks, standard_attention):
        for tokens in (128, 512):
            inputs = [x[:1, :1] for x in vectors(tokens, tokens, dim=32, values=32)]
            call = partial(flashattention.results, attend, *inputs, torch.ones_like(inputs[0]), causal=False)
            peaks[attend, tokens] = memory.peak(call, torch.device("cpu"))["peak_bytes"]
    assert peaks[blocks, 512] < 4.5 * peaks[blocks, 128]
    assert peaks[standard_attention, 512] > 10 * peaks[standard_attention, 128]


def test_accesses_by_hand():
    """Four queries in blocks of two, six keys, head size 3: Q, O and a number per row once, K and V twice."""
    assert tiled_accesses(Schedule(4, 6, query_block=2, key_block=4), 3) == 4 * 3 * 2 + 4 + 2 * 6 * 3 * 2
    # Causal: the first two queries see keys 0 to 3, the others all six.
    causal = Schedule(4, 6, causal=True, query_block=2, key_block=4)
    assert tiled_accesses(causal, 3) == 4 * 3 * 2 + 4 + (4 + 6) * 3 * 2
    assert standard_accesses(4, 3) == 2 * 12 + 16 + 16 + 16 + 16 + 12 + 12


def test_blocks_fit_the_fast_memory():
    """The blocks of queries, keys, values, results and scores, for the sizes in the claim."""
    for power in range(15, 19):
        stays, passes = blocks_for(2**power, 64)
        assert 2 * (stays + passes) * 64 + stays * passes <= 2**power


@pytest.mark.parametrize("how", SIGHTS)
def test_the_declared_work(how):
    shape, kv_shape = (2, 4, 20, 8), (2, 2, 20, 8)
    declared = Cost.attention(
        *shape, kv_heads=2, causal="causal" in how, window=how.get("window"), itemsize=4
    )
    pairs = int(visible(20, 20, **how).sum()) * 2 * 4
    assert declared["forward"].flops == 4 * 8 * pairs
    assert declared["forward+backward"].flops == 3 * declared["forward"].flops
    if not how:
        q, k, v = (torch.empty(s, device="meta") for s in (shape, kv_shape, kv_shape))
        with FlopCounterMode(display=False) as counter:
            out = standard_attention(q, k, v)
        assert declared["forward"].flops == counter.get_total_flops()
        assert declared["forward"].bytes == 4 * sum(x.numel() for x in (q, k, v, out))


# The plugin


def test_hooks():
    assert flashattention.implementation() is flash_attention


def test_the_processor_does_without_kernels():
    q, k, v = vectors(8, 8, dim=64, values=64, dtype=torch.bfloat16)
    assert not in_kernels(q, k, v)


def test_experiment(run_experiment):
    assert digest(toy) == "cd9081ff1763"
    record = run_experiment(flashattention)
    verdicts = {c["claim"]["name"]: c["verdict"] for c in record.claims}
    claim = flashattention.TRAINING.name
    assert verdicts == {"exact": "held", "memory accesses": "held", claim: "not judged"}
    standard, tiled = record.curves["training loss"]["standard"], record.curves["training loss"]["tiled"]
    assert len(standard) == len(tiled) > 1
    assert {"error", "peak bytes", "HBM accesses"} <= record.curves.keys()
    assert record.headline_curve == "peak bytes"
    values = next(c["values"] for c in record.claims if c["claim"]["name"] == claim)
    peaks = {arm: curve[-1][1] for arm, curve in record.curves["peak bytes"].items()}
    assert values["peak bytes, standard / tiled"] == peaks["standard"] / peaks["tiled"]
    assert values["largest difference in loss"] == max(
        abs(ours - theirs) for (_, ours), (_, theirs) in zip(standard, tiled, strict=True)
    )
    assert values["held-out nats, standard"] == record.values["held-out nats", "standard"]


@pytest.mark.parametrize("broken", ["", "an approximation", "one tile", "rows in chunks"])
def test_the_attention_of_each_arm(part_of_run, monkeypatch, broken):
    made = {}

    def watched(at, pair, _):
        made[at.name] = pair
        return 0.0, toy.Trained(None, [1.0], pair.measured)

    monkeypatch.setattr(toy, "train_gpt2", watched)
    monkeypatch.setattr(toy, "measure", lambda at, found: {"held-out nats": 1.0, "peak bytes": 1})
    toy.compare_training(part_of_run(broken=broken))
    assert made["standard"] == (standard_attention, standard_attention)
    trained, measured = made["tiled"]
    small, large = {"query_block": 32, "key_block": 32}, {"query_block": 64, "key_block": 128}
    if broken == "rows in chunks":
        assert trained.func == measured.func == baselines.chunked_attention
        assert (trained.keywords, measured.keywords) == ({"rows": 32}, {"rows": 64})
    else:
        assert trained.func == measured.func == toy.tiled_attention
        assert trained.keywords == (small | {"window": 32} if broken == "an approximation" else small)
        assert (measured.keywords == large) == (broken != "one tile")


@pytest.mark.parametrize("causal", [False, True])
def test_rows_in_chunks_are_equation_1(assert_parity, causal):
    q, k, v = vectors(11, 11, heads=4, kv_heads=2)
    assert_parity(
        partial(baselines.chunked_attention, rows=4, causal=causal),
        partial(standard_attention, causal=causal),
        (q, k, v),
    )


def test_losses_are_compared_step_by_step():
    def table(ours: list[float]) -> Table:
        trained = {"standard": [3.0, 2.0], "tiled": ours}
        sweeps = {name: Sweep(toy.Trained(None, losses, None), None, {}) for name, losses in trained.items()}
        return Table(sweeps=sweeps)

    name = "largest difference in loss"
    assert toy.step_by_step(table([3.0, 2.5]))[""][name] == 0.5
    assert toy.step_by_step(table([]))[""][name] == float("inf")


def test_benchmark(check_benchmark):
    cases = check_benchmark(flashattention)
    assert {case.name for case in cases} == {
        "attention",
        "grouped-query attention",
        "windowed attention",
    }


def test_variants_that_a_processor_cannot_measure_are_skipped():
    bench = Bench(device=torch.device("cpu"), dtype=torch.float32, budget="quick")
    needs = {v.name: v.needs for case in flashattention.benchmark(bench) for v in case.variants}
    assert [name for name, reason in needs.items() if not reason] == [
        "equation 1",
        "torch SDPA",
        "rows in chunks",
        "tiled (PyTorch)",
    ]
    assert needs["tiled (Triton)"].startswith("needs cuda")


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("how", [{"causal": False, "window": None}, {"causal": True, "window": None}])
@pytest.mark.parametrize("baseline", [baselines.compiled, baselines.flex])
def test_baselines_that_need_a_gpu_compute_the_same(monkeypatch, baseline, how):
    """Runs without the compiler, which would take longer than the rest of this file."""
    monkeypatch.setattr(baselines, "compiler", lambda function: function)
    inputs = vectors(40, 40, heads=4, kv_heads=2, dim=16, values=16)
    assert_close(baseline(*inputs, **how), torchs(*inputs, causal=how["causal"]))


def test_a_window_in_flex_attention(monkeypatch):
    monkeypatch.setattr(baselines, "compiler", lambda function: function)
    inputs = vectors(40, 40, dim=16, values=16)
    assert_close(baselines.flex(*inputs, causal=True, window=7), torchs(*inputs, causal=True, window=7))
