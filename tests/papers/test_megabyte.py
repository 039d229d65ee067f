"""Patches in parallel compared with a loop, causality byte by byte, generation with caches, and the
control arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.data.sources import DataSource
from readtrack.papers import megabyte
from readtrack.papers.megabyte import Megabyte
from readtrack.papers.megabyte.benchmark import by_loops, training_cost
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.megabyte.experiment")
benchmark = importlib.import_module("readtrack.papers.megabyte.benchmark")


def small(**settings: object) -> Megabyte:
    shape = {"patch": 4, "patches": 5, "D_G": 16, "D_L": 8, "layers": (2, 1), "heads": (2, 2)}
    return Megabyte(**{**shape, **settings}).double()


@pytest.mark.parametrize(
    "shape", [{}, {"patch": 1, "patches": 9}, {"patch": 8, "patches": 1}, {"layers": (1, 3)}]
)
def test_all_patches_at_once_match_a_loop(assert_parity, shape):
    network = small(**shape)
    ids = torch.randint(256, (3, network.positions.shape[0]))

    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = network

        def forward(self) -> torch.Tensor:
            return by_loops(self.inside, ids)

    assert_parity(
        lambda w: F.cross_entropy(functional_call(network, w, (ids,)).flatten(0, 1), ids.flatten()),
        lambda w: functional_call(Loop(), {f"inside.{name}": weight for name, weight in w.items()}, ()),
        (),
        weights={name: torch.randn(weight.shape) / 3 for name, weight in network.named_parameters()},
    )


@pytest.mark.parametrize("changed", [0, 3, 4, 9, 19])
def test_a_byte_is_predicted_from_those_before_it(changed):
    network, ids = small(), torch.randint(256, (2, 20))
    other = ids.clone()
    other[:, changed] = (other[:, changed] + 1) % 256
    moved = (network(other) - network(ids)).abs().amax((0, 2)) > 0
    assert moved.tolist() == [place > changed for place in range(20)]


@pytest.mark.parametrize("known", [1, 2, 4])
def test_writing_with_caches_matches_reading_from_the_start(known):
    network, ids = small(), torch.randint(256, (2, 4 * known))
    written = network.generate(ids, 5 - known, lambda logits: logits.argmax(-1))
    assert torch.equal(written[:, : 4 * known], ids)
    for place in range(4 * known, 20):
        assert torch.equal(network(written)[:, place].argmax(-1), written[:, place])


def test_shorter_texts_are_read_as_well():
    network, ids = small(), torch.randint(256, (2, 20))
    assert_close(network(ids[:, :8]), network(ids)[:, :8])


def test_the_loss_is_of_all_bytes():
    network, ids = small(), torch.randint(256, (2, 20))
    expected = -network(ids).log_softmax(-1).gather(-1, ids[..., None]).mean()
    assert_close(network.loss(ids), expected)


def test_half_precision_is_as_accurate_as_the_loop(assert_half_precision):
    network, ids = small().float(), torch.randint(256, (8, 20))
    assert_half_precision(
        lambda w: functional_call(network, w, (ids,)),
        lambda w: torch.cat(
            [functional_call(network, w, (ids[:, :end],))[:, end - 4 :] for end in range(4, 21, 4)], 1
        ),
        [],
        weights=dict(network.named_parameters()),
    )


def test_a_width_that_bytes_do_not_share_is_refused():
    with pytest.raises(ValueError, match="width of 18 cannot be split over 4 bytes"):
        small(D_G=18)


def test_initial_embeddings_have_the_requested_size():
    torch.manual_seed(0)
    for settings, std in (({}, 0.02), ({"std": 0.3}, 0.3)):
        network = small(**settings)
        drawn = (network.bytes.weight, network.positions, network.first_patch, network.local_bytes.weight)
        drawn = torch.cat([weight.flatten() for weight in (*drawn, network.local_positions)])
        assert drawn.std().item() == pytest.approx(std, rel=0.05)
    assert (its.GLOBAL["std"], its.PLAIN["std"]) == (0.3, 0.07)  # the best of three for each


def test_the_two_models_cost_as_much_a_byte():
    ours = its.operations(Megabyte(patches=its.WINDOW // its.PATCH, **its.GLOBAL), its.WINDOW)
    plain = its.operations(its.PlainBytes(its.WINDOW), its.WINDOW)
    assert 0.9 < ours / plain <= 1.02
    stated = training_cost(2, its.WINDOW, its.GLOBAL, 4)["forward"].flops / (2 * its.WINDOW)
    assert stated == pytest.approx(ours, rel=0.05)  # torch also counts the masked pairs


def test_the_plain_model_predicts_every_byte():
    plain, ids = its.PlainBytes(8), torch.randint(256, (2, 8))
    logits = plain(torch.cat((torch.zeros(2, 1, dtype=torch.long), ids[:, :-1]), 1))
    assert_close(plain.loss(ids), -logits.log_softmax(-1).gather(-1, ids[..., None]).mean())


@pytest.mark.parametrize("make", [Megabyte, its.PlainBytes])
def test_both_arms_are_judged_on_their_training_objective(part_of_run, make):
    network = small().float() if make is Megabyte else make(20)
    run, text = part_of_run(), torch.randint(256, (90,))
    ids = data.windows(text, 20, 4, run.data("windows to judge", "judge"))
    found = its.losses(run, network, its.World(data.Parts((), (), (text,)), 20), "judge")
    assert found.shape == (4, 20)
    assert found.mean().item() == pytest.approx(network.loss(ids).item(), rel=1e-5)


def test_bits_are_of_the_judged_windows(part_of_run, monkeypatch):
    windows = {"judge": torch.full((3, 16), 2.0), "choose": torch.zeros(3, 16)}
    monkeypatch.setattr(its, "losses", lambda run, network, world, part: windows[part])
    monkeypatch.setattr(its, "operations", lambda network, window: window)
    at = Trial(Workshop(part_of_run(), its.World(None, 16)), Work(arm="any"), arm="any")
    found = its.judge(at, Sweep(None, None, {}))
    assert_close(found["bits a byte"], torch.full((3,), 2 / math.log(2)))
    assert found["operations a byte"] == 16


def test_without_the_global_model_patches_are_independent():
    alone = its.Unheard(patch=4, patches=5, D_G=16, D_L=8, layers=(1, 1), heads=(2, 2))
    ids = torch.randint(256, (2, 20))
    other = ids.clone()
    other[:, :8] = (other[:, :8] + 1) % 256
    assert torch.equal(alone(other)[:, 8:], alone(ids)[:, 8:])


@pytest.mark.parametrize("make", [small, lambda: its.PlainBytes(20).double()])
def test_both_arms_continue_from_the_given_text(monkeypatch, make):
    network, ids = make(), torch.randint(256, (1, 8))
    monkeypatch.setattr(its, "PATCH", 4)
    monkeypatch.setattr(its, "TEMPERATURE", 1e-4)  # always the most likely byte
    found = its.continued(network, ids, 8, torch.Generator().manual_seed(0))
    whole = torch.cat((ids, found[None]), 1)
    given = whole if isinstance(network, Megabyte) else F.pad(whole[:, :-1], (1, 0))
    assert torch.equal(network(given)[0, 8:].argmax(-1), found)


def test_unprintable_bytes_are_shown_as_dots():
    assert its.readable(torch.tensor([72, 105, 10, 0, 200, 126])) == "Hi\n··~"


@pytest.mark.parametrize(
    ("broken", "ours"),
    [("", Megabyte), ("no global model", its.Unheard), ("LSTM", its.RecurrentBytes)],
)
def test_the_arms_match_their_names(part_of_run, monkeypatch, broken, ours):
    made = {}

    def watched(at, make, rate):
        network = make()
        made[at.name] = type(network)
        return 1.0, network

    monkeypatch.setattr(its, "train", watched)
    monkeypatch.setattr(its, "operations", lambda *_: 1.0)
    monkeypatch.setattr(its, "show", lambda *_: None)
    its.compare(part_of_run(broken=broken))
    assert made == {"MEGABYTE": ours, "plain": its.PlainBytes}


def test_the_experiment_shows_the_generated_text(run_experiment):
    assert [artifact["name"] for artifact in run_experiment(megabyte).artifacts] == ["written"]


def test_the_lstm_costs_no_more_than_the_plain_model():
    """Counts multiply-adds per byte: four gates of the input and the state, and the readout."""
    lstm = 2 * (8 * 146**2 + 256 * 146)
    assert its.operations(its.RecurrentBytes(), its.WINDOW) == lstm
    assert 0.9 < lstm / its.operations(its.PlainBytes(its.WINDOW), its.WINDOW) <= 1.02


def test_the_plain_model_of_one_layer_costs_no_more_a_byte():
    def multiply_adds(sizes):
        return 12 * sizes["model"] ** 2 * sizes["layers"] + 256 * sizes["model"]

    attention = 2 * (64 + 192) * 104 * 1, 2 * (64 + 192) * 72 * 2  # at most: all bytes before
    assert multiply_adds(its.ONE_LAYER) + attention[0] < multiply_adds(its.PLAIN) + attention[1]


def test_the_plain_model_writes_the_most_likely_bytes(monkeypatch):
    network, chosen = its.PlainBytes(24), []
    choose = benchmark.choose_by_rule
    monkeypatch.setattr(benchmark, "choose_by_rule", lambda x: chosen.append(choose(x)) or chosen[-1])
    ids = torch.randint(256, (1, 8))
    assert benchmark.write_plainly(network, ids, 16) == {"reached": True, "bytes": 16}
    greedy = network.generate(ids, 16, torch.Generator(), temperature=0.0)
    assert torch.equal(torch.cat((ids, *chosen), 1), greedy)


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "bff55190fc0b"
    assert (its.STEPS, its.WINDOW, its.PATCH) == (150, 256, 8)


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(megabyte)
    assert [case.name for case in cases] == ["a training step", "64 bytes written"]


@pytest.mark.parametrize(
    ("text", "coded"), [("a\xe9b", "a\xe9b".encode("latin-1")), ("a\u2019", "a\u2019".encode())]
)
def test_a_text_is_read_as_latin_1_where_it_can_be(text, coded):
    ids, alphabet = data.characters(text)
    source = DataSource("a text", data.Parts((ids,), (ids,), (ids,)), alphabet)
    (found,) = its.bytes_of(source).judge
    assert bytes(found.tolist()) == coded
