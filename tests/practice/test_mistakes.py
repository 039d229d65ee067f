"""Common mistakes in these functions: the judge's hint names each of them."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from readtrack.practice.exercise import Draw, Exercise, Try
from readtrack.practice.judge import Verdict, judge
from readtrack.practice.slots import Slot
from readtrack.practice.trials import Target


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v


def weights(q: Tensor, k: Tensor, causal: bool = False) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight.mT + bias


def layer_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def adam(grad: Tensor, m: Tensor, v: Tensor, step: int, betas: tuple[float, float], eps: float) -> Tensor:
    m = betas[0] * m + (1 - betas[0]) * grad
    v = betas[1] * v + (1 - betas[1]) * grad.square()
    m, v = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return m / (v.sqrt() + eps)


def gates(x: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (torch.cat([x, h], -1) @ weight.mT).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, target[:, None]).mean()


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean()


def of_qkv(draw: Draw) -> Iterator[Try]:
    yield Try("two keys", draw(1, 2), draw(2, 2), draw(2, 3))
    yield Try("odd sizes", draw(2, 3, 5), draw(2, 4, 5), draw(2, 4, 3))
    yield Try("causal", draw(2, 5, 4), draw(2, 5, 4), draw(2, 5, 4), causal=True)


def of_qk(draw: Draw) -> Iterator[Try]:
    for one in of_qkv(draw):
        yield Try(one.label, *one.arguments[:2], **one.named)


def of_linear(draw: Draw) -> Iterator[Try]:
    yield Try("square", draw(2, 3), draw(3, 3), draw(3))
    yield Try("wide", draw(2, 3), draw(4, 3), draw(4))


def of_norm(draw: Draw) -> Iterator[Try]:
    yield Try("one row", draw(1, 4), draw(4), 1e-5)
    yield Try("three rows", draw(3, 3), draw(3), 1e-5)
    yield Try("constant rows", torch.ones(2, 3, dtype=torch.float64), draw(3), 1e-5)


def of_adam(draw: Draw) -> Iterator[Try]:
    yield Try(
        "step 1", draw(3), torch.zeros(3, dtype=torch.float64), draw.between(0, 1, 3), 1, (0.9, 0.99), 1e-3
    )
    yield Try("step 3", draw(4), draw(4), draw.between(0, 1, 4), 3, (0.9, 0.99), 1e-3)


def of_gates(draw: Draw) -> Iterator[Try]:
    yield Try("plain", draw(2, 3), draw(2, 2), draw(2, 2), draw(8, 5))


def of_loss(draw: Draw) -> Iterator[Try]:
    yield Try("three rows", draw(3, 4), draw.below(4, 3))
    yield Try("five rows", draw(5, 3), draw.below(3, 5))


def of_two(draw: Draw) -> Iterator[Try]:
    yield Try("two rows", draw(2, 3), draw(2, 3))
    yield Try("four rows", draw(4, 3), draw(4, 3))


TRIES = {
    attention: of_qkv, weights: of_qk, linear: of_linear, layer_norm: of_norm, adam: of_adam, gates: of_gates,
    cross_entropy: of_loss, squared: of_two,
}  # fmt: skip


def judged(right: Callable[..., Any], wrong: Callable[..., Any], **settings: Any) -> Verdict:
    module = types.SimpleNamespace()
    module.right = types.FunctionType(right.__code__, dict(globals()), right.__name__, right.__defaults__)
    module.right.__annotations__ = right.__annotations__
    slot = Slot(module, "right")
    exercise = Exercise(name=right.__name__, of="right", task="Write it.", tries=TRIES[right], **settings)
    return judge(exercise, Target(slot, slot.outer), wrong)


def attention_like(scale=None, dim=-1, shift=1, value=lambda v: v, mask=-math.inf):
    def wrong(q, k, v, causal=False):
        scores = q @ k.mT / (math.sqrt(q.shape[-1]) if scale is None else scale)
        if causal and shift is not None:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(shift), mask)
        return scores.softmax(dim) @ value(v)

    return wrong


def weights_like(**how):
    inner = attention_like(**how)
    return lambda q, k, causal=False: inner(q, k, torch.eye(k.shape[-2], dtype=k.dtype), causal)


def adam_like(first=True, second=True, eps_inside=False, swapped=False, no_eps=False, squared=True):
    def wrong(grad, m, v, step, betas, eps):
        b1, b2 = betas[::-1] if swapped else betas
        m = b1 * m + (1 - b1) * grad
        v = b2 * v + (1 - b2) * (grad.square() if squared else grad.abs())
        m = m / (1 - b1**step) if first else m
        v = v / (1 - b2**step) if second else v
        return m / (v.sqrt() if no_eps else (v + eps).sqrt() if eps_inside else v.sqrt() + eps)

    return wrong


def gates_like(order="ifgo", weight=lambda w: w, tanh=True, cell=True):
    def wrong(x, h, c, w):
        parts = dict(zip(order, (torch.cat([x, h], -1) @ weight(w).mT).chunk(4, -1), strict=True))
        i, f, g, o = (parts[name] for name in "ifgo")
        new = f.sigmoid() * c + i.sigmoid() * (g.tanh() if tanh else g)
        return o.sigmoid() * (new.tanh() if cell else new), new

    return wrong


def in_place(x, weight, bias):
    x.mul_(1.5)
    return (x / 1.5) @ weight.mT + bias


def normed(x: Tensor, gain: Tensor, eps: float, *, dim: int = -1, unbiased: bool = False) -> Tensor:
    variance = x.var(dim, unbiased=unbiased, keepdim=True)
    return gain * (x - x.mean(dim, keepdim=True)) / (variance + eps).sqrt()


def softmax_loss(logits: Tensor, target: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, target[:, None])


MISTAKES = [
    ("no scale", attention, attention_like(scale=1.0), "a division is missing"),
    ("no scale in the weights", weights, weights_like(scale=1.0), "√2 (the size of dimension 1 of q)"),
    ("mask shows one too many", attention, attention_like(shift=2),
     "off by one: a dimension, an index or a shift"),
    ("mask hides one too many", attention, attention_like(shift=0), "a row that is fully masked"),
    ("mask of the weights", weights, weights_like(shift=2),
     "the mask is off by 1: it shows 1 position too many"),
    ("no mask", attention, attention_like(shift=None), "causal is ignored"),
    ("0 for -inf", attention, attention_like(mask=0.0), "0 is used instead of -inf to mask an entry"),
    ("0 for -inf in the weights", weights, weights_like(mask=0.0), "mask with -inf, before the softmax"),
    ("softmax over queries", attention, attention_like(dim=-2), "off by one: a dimension"),
    ("softmax over one entry", weights, weights_like(dim=0), "normalised over a dimension of size 1"),
    ("no softmax", weights, lambda q, k, causal=False: q @ k.mT / math.sqrt(q.shape[-1]),
     "the softmax is missing"),
    ("weight not transposed", linear, lambda x, w, b: x @ w + b, "as if weight were transposed"),
    ("no bias", linear, lambda x, w, b: x @ w.mT, "as if bias were 0: it is not used"),
    ("sign of the bias", linear, lambda x, w, b: x @ w.mT - b, "as if the sign of bias were flipped"),
    ("no eps", layer_norm, lambda x, g, e: normed(x, g, 0.0), "a constant such as eps is missing"),
    ("unbiased variance", layer_norm, lambda x, g, e: normed(x, g, e, unbiased=True), "n or n − 1"),
    ("wrong dimension", layer_norm, lambda x, g, e: normed(x, g, e, dim=0),
     "another dimension is used instead of -1"),
    ("no gain", layer_norm, lambda x, g, e: normed(x, torch.ones_like(g), e),
     "as if gain were 1: it is not used"),
    ("no root", layer_norm,
     lambda x, g, e: normed(x, g, e) / (x.var(-1, unbiased=False, keepdim=True) + e).sqrt(),
     "sqrt is missing"),
    ("no correction of m", adam, adam_like(first=False), "a division is missing"),
    ("no correction of v", adam, adam_like(second=False), "a division is missing"),
    ("no correction", adam, adam_like(first=False, second=False),
     "a term that depends on step (a correction) is missing"),
    ("eps in the root", adam, adam_like(eps_inside=True), "eps is missing or in the wrong place"),
    ("no eps in adam", adam, adam_like(no_eps=True), "as if eps were 0.0: it is not used"),
    ("betas swapped", adam, adam_like(swapped=True), "as if the two values in betas were swapped"),
    ("not squared", adam, adam_like(squared=False), "abs is used instead of square"),
    ("order of two gates", gates, gates_like("figo"), "unpacked together are in a different order"),
    ("order of all gates", gates, gates_like("oifg"), "unpacked together are in a different order"),
    ("no tanh", gates, gates_like(tanh=False), "tanh is missing"),
    ("sum for mean", cross_entropy, lambda x, t: softmax_loss(x, t).sum(), "sum is used instead of mean"),
    ("no reduction", cross_entropy, lambda x, t: softmax_loss(x, t).squeeze(-1), "the mean is missing"),
    ("sum over features", squared, lambda x, y: (x - y).square().sum(-1).mean(),
     "3 = 3 (the size of dimension 1 of x)"),
    ("a mean too few", squared, lambda x, y: (x - y).square().mean(-1), "the mean is missing"),
    ("sign of the loss", cross_entropy, lambda x, t: -softmax_loss(x, t).mean(), "the sign is wrong"),
    ("softmax twice", cross_entropy, lambda x, t: softmax_loss(x.softmax(-1), t).mean(),
     "softmax is applied twice"),
    ("no log", cross_entropy, lambda x, t: -x.softmax(-1).gather(-1, t[:, None]).mean(),
     "softmax is used instead of log_softmax"),
    ("not squared error", squared, lambda x, y: (x - y).abs().mean(), "abs is used instead of square"),
    ("detached", linear, lambda x, w, b: x.detach() @ w.mT + b, "no gradient reaches x"),
    ("rebuilt", linear, lambda x, w, b: torch.tensor((x @ w.mT + b).tolist(), dtype=x.dtype),
     "no gradient reaches x"),
    ("changed input", linear, in_place, "x was changed in place"),
    ("dtype", linear, lambda x, w, b: (x @ w.mT + b).float(), "the dtype is float32, expected float64"),
    ("float64 for all", linear, lambda x, w, b: (x @ w.mT + b).double(),
     "for float32 inputs the dtype is float64"),
    ("float32 on the way", linear, lambda x, w, b: (x.float() @ w.float().mT + b.float()).to(x.dtype),
     "intermediate number was rounded to float32"),
    ("order in a list", gates, lambda x, h, c, w: gates(h, x, c, w),
     "the items of a list are in a different order"),
    ("device", linear, lambda x, w, b: (x @ w.mT + b).to("meta"), "the result is on meta, expected cpu"),
    ("a list", linear, lambda x, w, b: (x @ w.mT + b).tolist(),
     "a list, tuple or dictionary of 2 items was returned"),
    ("an array", linear, lambda x, w, b: (x @ w.mT + b).detach().numpy(),
     "it is a ndarray, expected a Tensor"),
    ("an integer", linear, lambda x, w, b: 3, "it is an int, expected a Tensor"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "says"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_is_named(right: Callable[..., Any], wrong: Callable[..., Any], says: str) -> None:
    verdict = judged(right, wrong)
    assert verdict.outcome == "wrong"
    assert says in verdict.hint
    assert verdict.report


@pytest.mark.parametrize("right", list(TRIES))
def test_the_right_answer_passes(right: Callable[..., Any]) -> None:
    assert judged(right, right).outcome == "passed"


def test_an_overflow_of_float16_alone_is_reported() -> None:
    def wrong(x: Tensor, y: Tensor) -> Tensor:
        return ((x - y) * 1000).square().mean() / 1e6

    verdict = judged(squared, wrong)
    assert verdict.report[0].endswith("float16")
    assert "the result is right in float64, but overflows in float16" in verdict.hint


def test_a_finite_number_is_not_taken_for_an_infinite_one() -> None:
    def right(x: Tensor, y: Tensor) -> Tensor:
        return x.masked_fill(y > 0, -math.inf)

    TRIES[right] = of_two
    verdict = judged(right, lambda x, y: x.masked_fill(y > 0, -1e9), gradients=False)
    del TRIES[right]
    assert verdict.outcome == "wrong"
    assert "a mask of -inf is missing" in verdict.hint


def test_no_hint_explains_nan() -> None:
    """The paper's code returns NaN for many other arguments, too, so none of them explains the mistake."""

    def right(x: Tensor, y: Tensor) -> Tensor:
        return x.masked_fill(y.isnan(), 0).sum() * 2

    def tries(draw: Draw) -> Iterator[Try]:
        yield Try("an inf", torch.tensor([1.0, math.inf]).double(), torch.tensor([0, math.nan]).double())

    TRIES[right] = tries
    verdict = judged(right, lambda x, y: (x - x).sum(), gradients=False)
    del TRIES[right]
    assert "NaN where the paper's code is finite" in verdict.hint
    assert "as if" not in verdict.hint


def test_rounding_in_a_gradient_that_cancels_is_not_a_mistake() -> None:
    """After a saturated softmax, the gradient is 0 up to rounding, however it is written."""

    def right(x: Tensor, y: Tensor) -> Tensor:
        return (400 * x).softmax(-1) * y

    def answer(x: Tensor, y: Tensor) -> Tensor:
        shifted = (400 * x - (400 * x).amax(-1, keepdim=True)).exp()
        return y * (shifted / shifted.sum(-1, keepdim=True))

    TRIES[right] = of_two
    verdict = judged(right, answer)
    del TRIES[right]
    assert verdict.outcome == "passed"


def shared(x: Tensor, y: Tensor) -> Tensor:
    sums = x.sum(-1, keepdim=True)
    return y * 3 / sums.masked_fill(sums == 0, 1)


def of_shared(draw: Draw) -> Iterator[Try]:
    yield from of_two(draw)
    yield Try("zeros", torch.zeros(3, 2).double(), torch.zeros(3, 2).double())


def test_a_fully_masked_row_hides_no_other_mistake() -> None:
    TRIES[shared] = of_shared
    verdict = judged(shared, lambda x, y: y / x.sum(-1, keepdim=True))
    del TRIES[shared]
    assert verdict.hint.startswith("a factor is missing, in a step that uses y; with this one mistake")


def test_an_input_that_ends_in_an_error_counts_as_wrong() -> None:
    def answer(x: Tensor, y: Tensor) -> Tensor:
        if len(x) == 4:
            raise ValueError
        return shared(x, y) if x.any() else y + 1

    TRIES[shared] = lambda draw: reversed(list(of_shared(draw)))
    verdict = judged(shared, answer)
    del TRIES[shared]
    assert "right on 1 of 3 inputs: “two rows”" in verdict.hint


def online(x: Tensor, y: Tensor) -> Tensor:
    """Section 3.1 of FlashAttention, with blocks of one number."""
    maximum, total, weighted = torch.full_like(x[:, :1], -1e9), torch.zeros(()), torch.zeros(())
    for block in range(3):
        new = torch.maximum(maximum, x[:, block, None])
        correction, weight = (maximum - new).exp(), (x[:, block, None] - new).exp()
        total = total * correction + weight
        weighted = weighted * correction + weight * y[:, block, None]
        maximum = new
    return weighted / total


def unscaled(x: Tensor, y: Tensor) -> Tensor:
    maximum, total, weighted = torch.full_like(x[:, :1], -1e9), torch.zeros(()), torch.zeros(())
    for one, value in zip(x.split(1, 1), y.split(1, 1), strict=True):
        maximum = torch.maximum(maximum, one)
        weight = (one - maximum).exp()
        total, weighted = total + weight, weighted + weight * value
    return weighted / total


def test_sums_that_are_not_rescaled_are_recognised() -> None:
    TRIES[online] = of_two
    verdict = judged(online, unscaled)
    del TRIES[online]
    assert verdict.hint.startswith("the same factor is missing from 2 places; with this one mistake")


def test_a_gradient_that_is_lost_behind_a_condition_is_explained() -> None:
    def answer(x: Tensor, y: Tensor) -> Tensor:
        sums = x.sum(-1, keepdim=True)
        return torch.where(sums == 0, y * 3, y * 3 / sums)

    TRIES[shared] = of_shared
    verdict = judged(shared, answer)
    del TRIES[shared]
    assert "this gradient is not finite: torch.where and masked_fill hide a NaN" in verdict.hint
