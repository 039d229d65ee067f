"""Explanations of wrong results: each of these mistakes is named."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

from readtrack.plugins.find import shipped
from readtrack.practice import skeleton
from readtrack.practice.asif import term
from readtrack.practice.exercise import Try
from readtrack.practice.parts import mapped
from readtrack.practice.relations import factors_of, region, relation
from readtrack.practice.sheet import sheets

RIGHT = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (RIGHT * math.sqrt(8), "2.828 = √8 (the size of dimension 1 of q)"),
        (RIGHT / 8, "1/(8 (the size of dimension 1 of q))"),
        (RIGHT * 0.1, "0.1 = 1 − beta"),
        (-RIGHT, "the sign is wrong"),
        (RIGHT + 0.9, "0.9 = beta"),
        (1 - RIGHT, "it is 1 − 1 · the expected result"),
        (RIGHT.mT, "transposed: dimensions 0 and 1"),
        (RIGHT.flip(0), "reversed along dimension 0"),
        (RIGHT.roll(1, 1), "shifted by 1 along dimension 1"),
        (RIGHT.square(), "a square root is missing"),
        (RIGHT.exp(), "a log is missing"),
        (RIGHT * torch.tensor([1.0, 2, 3, 4])[:, None], "dimension 0 has a different factor (1, 2, 3, 4)"),
        (RIGHT + torch.tensor([1.0, 2, 3, 4]), "dimension 1 has a different term"),
        (RIGHT + 1e-4, "a term is missing or superfluous"),
        (RIGHT * (1 + 1e-4 * RIGHT), "nearly right"),
        (RIGHT.float(), "the dtype is float32, expected float64"),
        (RIGHT[:3], "dimension 0 has 3 entries, expected 4: one is missing"),
        (RIGHT[None], "a dimension of size 1 is left over"),
        (RIGHT.sum(), "it was reduced over all dimensions"),
        (torch.zeros_like(RIGHT), "everything is 0"),
        (RIGHT / 0, "infinite where the paper's code is finite"),
        (RIGHT * math.nan, "NaN where the paper's code is finite"),
    ],
)
def test_a_mistake_is_named(wrong: Tensor, says: str) -> None:
    factors = factors_of({"q": torch.zeros(3, 8), "beta": 0.9})
    assert says in relation(RIGHT, wrong, factors)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (RIGHT, "a relu is missing"),
        (RIGHT.abs(), "but the rest is right: mask or clamp them"),
        (RIGHT.exp(), "mask with -inf, before the softmax"),
    ],
)
def test_numbers_where_zeros_should_be(wrong: Tensor, says: str) -> None:
    assert says in relation(RIGHT.relu(), wrong, {})


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (torch.eye(4), "only the diagonal is wrong: a mask is off by one"),
        (torch.ones(4, 4).triu(1).tril(1), "next to the diagonal are wrong: a mask is off by one"),
        (torch.ones(4, 4).triu(1), "above the diagonal"),
        (torch.tensor([1.0, 0, 0, 0])[:, None], "only the first entry of dimension 0 is wrong"),
        (torch.tensor([0.0, 1, 1, 1]), "only the first entry of dimension 1 is right"),
        (torch.tensor([0.0, 1, 0, 1]), "only the odd entries of dimension 1"),
    ],
)
def test_the_place_of_a_mistake_is_named(where: Tensor, says: str) -> None:
    wrong = RIGHT + where * (1 + RIGHT.abs())
    assert says in region(RIGHT, wrong)


def test_a_factor_before_a_softmax_is_found() -> None:
    said = relation(RIGHT.softmax(-1), (2 * RIGHT).softmax(-1), factors_of({"q": torch.zeros(3, 4)}))
    assert said.startswith("before the softmax over dimension 1, it is 2 times the expected result")
    assert "2 = √4 (the size of dimension 1 of q)" in said


def test_a_correct_result_has_no_relation() -> None:
    assert region(RIGHT, RIGHT + 1e-12) == ""


def test_a_sum_that_should_be_one_or_zero_is_named() -> None:
    wrong = RIGHT.exp()
    assert "its sums over dimension 1 should be 1 and are" in relation(RIGHT.softmax(1), 0.3 * wrong + 1, {})


def test_a_single_number_of_an_argument_is_named() -> None:
    gate = torch.tensor([0.3, 0.8], dtype=torch.float64)
    assert "0.8367 = √(1 − gate[0])" in relation(RIGHT, RIGHT * math.sqrt(0.7), factors_of({"gate": gate}))


def test_the_part_of_a_sum_that_has_a_wrong_factor_is_named() -> None:
    def noised(x: Tensor, noise: Tensor, keep: float) -> Tensor:
        return keep * x + math.sqrt(1 - keep) * noise

    def call(one: Try) -> dict[str, Tensor]:
        return {"result": noised(*one.arguments)}

    x, noise = RIGHT[0], RIGHT[1]
    one = Try("", x, noise, 0.4)
    pair = (noised(x, noise, 0.4), 0.4 * x + (1 - 0.4) * noise)
    said = term(call, one, inspect.signature(noised), "result", pair, factors_of({"keep": 0.4}))
    assert said.startswith("the part that noise adds is 0.7746 times what it should be: a factor")
    assert term(call, one, inspect.signature(noised), "result", (x, noise), {}) == ""


def test_a_copy_of_a_module_shares_no_tensor_and_keeps_its_ties() -> None:
    module = nn.ModuleDict({"one": nn.Linear(2, 2), "lstm": nn.LSTM(2, 2)})
    module["two"] = module["one"]
    made = mapped(torch.clone, module)
    assert made["one"] is made["two"]
    assert made["one"] is not module["one"]
    assert made["lstm"]._flat_weights[0] is made["lstm"].weight_ih_l0
    with torch.no_grad():
        made["one"].weight.zero_()
    made["one"].register_forward_hook(lambda *_: None)
    assert module["one"].weight.any()
    assert not module["one"]._forward_hooks


def test_methods_unrelated_to_the_exercise_are_left_out() -> None:
    found = sheets(shipped()["ddpm"])
    empty = skeleton.text("DDPM", found)
    assert "def alpha_bar(" in empty
    assert "def predict_x0" not in empty
    assert "def predict_x0" in skeleton.text("DDPM", found, solved=True)


def test_methods_that_another_function_to_write_uses_are_shown() -> None:
    text = skeleton.text("FlashAttention", sheets(shipped()["flashattention"]))
    assert "def columns(self, rows: slice)" in text  # part of the schedule that `forward` uses
    assert "heappush(" not in skeleton.text("BPE", sheets(shipped()["byte_bpe"]))  # `merge` is the answer


def test_shapes_that_have_a_name_are_written_out() -> None:
    text = skeleton.text("LSTM", sheets(shipped()["lstm"]))
    assert 'State = Float[Tensor, "batch hidden"]\n' in text
    assert "import State" not in text
    assert "from readtrack.papers.lstm.model import unroll_again\n" in text
