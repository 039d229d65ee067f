"""The shared cost functions agree with torch's own FLOP counter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from readtrack.bench.case import Cost


def counted(call: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[int, int]:
    """The counted operations of the forward pass, and of forward and backward, on the meta device."""
    inputs = [torch.randn(shape, device="meta", requires_grad=True) for shape in shapes]
    with FlopCounterMode(display=False) as forward:
        out: Tensor = call(*inputs)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(out, inputs, torch.ones_like(out))
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


def flops(cost: dict[Any, Cost]) -> tuple[float, float]:
    return cost["forward"].flops, cost["forward+backward"].flops


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT, -1) @ v


def test_product_costs_match_torchs_count() -> None:
    assert flops(Cost.matmul(3, 5, 7, itemsize=4)) == counted(torch.matmul, (3, 5), (5, 7))
    assert flops(Cost.matmul(3, 5, 7, batch=2, itemsize=4)) == counted(torch.bmm, (2, 3, 5), (2, 5, 7))


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (1, 9)])
def test_attention_costs_match_torchs_count(queries: int, keys: int) -> None:
    shapes = (2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8)
    assert flops(Cost.attention(2, 3, queries, 8, keys=keys, itemsize=4)) == counted(attention, *shapes)


@pytest.mark.parametrize(
    ("queries", "keys", "causal", "window"),
    [(5, 5, True, None), (5, 9, True, None), (5, 5, True, 2), (7, 7, False, 3), (1, 9, True, 4)],
)
def test_only_visible_pairs_count(queries: int, keys: int, causal: bool, window: int | None) -> None:
    rows, columns = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        visible &= columns <= rows
    if causal and window:
        visible &= columns > rows - window
    pairs = queries * window if window and not causal else int(visible.sum())
    cost = Cost.attention(1, 1, queries, 8, keys=keys, causal=causal, window=window, itemsize=4)
    assert cost["forward"].flops == 4 * pairs * 8
    assert cost == Cost.attention(1, 1, queries, 8, keys=keys, pairs=pairs, itemsize=4)


def test_grouped_heads_move_less_and_calculate_the_same() -> None:
    whole, grouped = (Cost.attention(1, 8, 4, 16, kv_heads=n, itemsize=2)["forward"] for n in (8, 2))
    assert whole.flops == grouped.flops
    assert (whole.bytes, grouped.bytes) == (2 * 2 * 16 * 4 * 16, 2 * 16 * 4 * (16 + 4))


def test_bytes_count_reads_and_writes() -> None:
    cost = Cost.matmul(3, 5, 7, itemsize=4)
    assert cost["forward"].bytes == 4 * (15 + 35 + 21)
    assert cost["forward+backward"].bytes == 2 * cost["forward"].bytes
    values = Cost.elementwise(100, itemsize=4, flops=4, backward=9)
    assert values["forward"] == Cost(flops=400, bytes=800)
    assert values["forward+backward"] == Cost(flops=1300, bytes=1600)
    assert Cost.elementwise(100, itemsize=4, flops=1, tensors=3)["forward+backward"] == Cost(200, 2400)
