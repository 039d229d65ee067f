"""The mixture compared with torch's distributions, the window with loops, and the experiment's arms."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.data.strokes import LETTERS, Strokes, write
from readtrack.papers import graves
from readtrack.papers.graves import Mixture, Writer, window_weights

EXPERIMENT = importlib.import_module("readtrack.papers.graves.experiment")  # the hook has the same name
BENCHMARK = importlib.import_module("readtrack.papers.graves.benchmark")


@pytest.mark.parametrize(("shape", "components"), [((4,), 1), ((2, 3), 5)])
def test_the_density_matches_torchs_distributions(assert_parity, shape, components):
    points = torch.randn(*shape, 3)
    points[..., 2] = (points[..., 2] > 0).float()

    def ours(outputs, points):
        return Mixture.of(outputs).log_density(torch.cat((points, ends), -1))

    def theirs(outputs, points):
        return BENCHMARK.distributions(outputs, torch.cat((points, ends), -1))

    ends = points[..., 2:].double()
    assert_parity(ours, theirs, (torch.randn(*shape, 6 * components + 1), points[..., :2]), rtol=1e-8)


def test_points_far_away_have_a_finite_density():
    outputs = torch.zeros(1, 13)
    found = Mixture.of(outputs).log_density(torch.tensor([[100.0, -100.0, 0.0]]))
    assert found.item() == pytest.approx(-10_000 - math.log(2 * math.pi) - math.log(2), rel=1e-5)


def test_samples_follow_the_mixture():
    outputs = torch.randn(1, 13, generator=torch.Generator().manual_seed(3))
    mixture = Mixture.of(outputs.expand(40_000, -1))
    drawn = mixture.sample(torch.Generator().manual_seed(0))
    weights, mean = mixture.log_pi[0].exp(), mixture.mean[0]
    assert_close(drawn[:, :2].mean(0), weights @ mean, rtol=0, atol=0.05)
    assert drawn[:, 2].mean().item() == pytest.approx(mixture.end[0].sigmoid().item(), abs=0.02)
    sigma = mixture.log_sigma[0].exp()
    variance = weights @ (sigma**2 + mean**2) - (weights @ mean) ** 2
    assert_close(drawn[:, :2].var(0), variance, rtol=0.1, atol=0)
    shared = weights @ (mixture.rho[0] * sigma.prod(-1) + mean.prod(-1)) - (weights @ mean).prod()
    assert torch.cov(drawn[:, :2].T)[0, 1].item() == pytest.approx(shared.item(), abs=0.1)


def test_a_bias_narrows_and_chooses():
    outputs = torch.randn(3, 25)
    plain, biased = Mixture.of(outputs), Mixture.of(outputs, bias=2.0)
    assert_close(biased.log_sigma, plain.log_sigma - 2)
    assert_close(biased.log_pi, (outputs[:, :4] * 3).log_softmax(-1))
    assert torch.equal(biased.mean, plain.mean)


def test_the_window_is_the_sum_of_its_gaussians_and_only_moves_on():
    outputs, kappa = torch.randn(2, 6).double(), torch.rand(2, 2).double()
    weights, moved = window_weights(outputs, kappa, 4)
    for b in range(2):
        for u in range(4):
            expected = 0.0
            for k in range(2):
                alpha, beta, step = (outputs[b, i * 2 + k].exp().item() for i in range(3))
                place = kappa[b, k].item() + step
                assert moved[b, k].item() == pytest.approx(place)
                expected += alpha * math.exp(-beta * (place - u) ** 2)
            assert weights[b, u].item() == pytest.approx(expected)
    assert (moved > kappa).all()


def writer(text: str = "window") -> tuple[Writer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    points = torch.randn(2, 6, 3).double()
    points[..., 2] = (points[..., 2] > 0.5).double()
    network = Writer(4, hidden=5, components=2, gaussians=2, text=text).double()
    return network, points, torch.tensor([[0, 1, 2], [3, 3, 1]])


def test_writing_in_two_parts_equals_writing_at_once():
    network, points, words = writer()
    whole, weights, _ = network(points, words)
    first, early, state = network(points[:, :2], words)
    rest, late, _ = network(points[:, 2:], words, state)
    assert_close(torch.cat((first, rest), 1), whole)
    assert_close(torch.cat((early, late), 1), weights)


def test_nats_are_conditioned_on_earlier_points():
    network, points, words = writer()
    lengths, total = torch.tensor([6, 4]), 0.0
    for b in range(2):
        for t in range(int(lengths[b])):
            before = torch.cat((torch.zeros(1, 1, 3).double(), points[b : b + 1, :t]), 1)
            outputs = network(before, words[b : b + 1])[0][:, -1]
            total -= Mixture.of(outputs).log_density(points[b : b + 1, t]).item()
    assert network.nats(points, words, lengths).item() == pytest.approx(total / 10)
    changed = points.clone()
    changed[1, 4:] = 9.0
    assert_close(network.nats(changed, words, lengths), network.nats(points, words, lengths))


@pytest.mark.parametrize(
    ("text", "sees_letters", "sees_order"),
    [("window", True, True), ("mean", True, False), ("none", False, False)],
)
def test_the_part_of_the_text_that_a_network_sees(text, sees_letters, sees_order):
    network, points, words = writer(text)
    plain = network(points, words)[0]
    other = network(points, torch.tensor([[3, 1, 2], [0, 3, 1]]))[0]
    turned = network(points, words.flip(1))[0]
    assert (not torch.allclose(plain, other)) == sees_letters
    assert (not torch.allclose(plain, turned)) == sees_order


def test_written_strokes_have_ends_and_a_window():
    network, _, words = writer()
    points, weights = network.write(words, 5, torch.Generator().manual_seed(0))
    assert points.shape == (2, 5, 3)
    assert weights.shape == (2, 5, 3)
    assert set(points[..., 2].flatten().tolist()) <= {0.0, 1.0}


def test_the_papers_output_has_121_numbers_and_its_window_30():
    with torch.device("meta"):
        network = Writer(57)
    assert network.readout.out_features == 121  # 20 components with 6 numbers each, and the end
    assert network.window.out_features == 30
    assert network.first.recurrent.in_features == network.second.recurrent.in_features == 400


# Experiment and benchmark


def test_the_rival_moves_a_letter_in_eleven_points():
    writer = EXPERIMENT.Steady(4, hidden=5, components=2, gaussians=2).double()
    points, words = torch.randn(2, 6, 3).double(), torch.tensor([[0, 1, 2], [3, 3, 1]])
    _, _, state = writer(points, words)
    assert_close(state.kappa, torch.full((2, 2), 6 / 11, dtype=torch.float64))


def test_the_second_rival_looks_at_the_letter_under_the_pen():
    """The points of a letter lie on average at the centre of the window."""
    words = torch.randint(len(LETTERS), (300, 3), generator=torch.Generator().manual_seed(0))
    strokes = write(words, torch.Generator().manual_seed(1), spacing=EXPERIMENT.UNIT)
    width = EXPERIMENT.mean_letter_width(strokes)
    writer = EXPERIMENT.AtPen(len(LETTERS), letter_width=width, hidden=5, components=2, gaussians=2)
    kappa, apart = writer.begin(300).kappa, []
    for point, letter in zip(strokes.points.unbind(1), strokes.letter.unbind(1), strict=True):
        point = torch.cat((point[:, :2] / EXPERIMENT.UNIT, point[:, 2:]), 1)
        _, kappa = writer.look(torch.randn(300, 5), point, kappa, 3)
        apart.append((kappa[:, 0] - letter)[letter >= 0])
    apart = torch.cat(apart)
    assert apart.mean().abs() < 0.1
    assert apart.std() < 0.5


def test_the_second_rivals_weights_are_the_papers_at_the_positions_of_the_pen():
    writer = EXPERIMENT.AtPen(4, letter_width=2.0, hidden=5, components=2, gaussians=2).double()
    points = torch.tensor([[[1.0, 7, 0], [-0.5, 7, 1]]]).double()
    _, weights, state = writer(points, torch.tensor([[0, 1, 2]]))
    assert_close(state.kappa, torch.full((1, 2), (1.0 - 0.5) / 2 - 0.5, dtype=torch.float64))
    (h, _), kappa = state.first, state.kappa[0]
    alpha, beta = writer.window(h)[0].exp()[:4].view(2, 2)
    for u in range(3):
        expected = (alpha * torch.exp(-beta * (kappa - u) ** 2)).sum()
        assert_close(weights[0, 1, u], expected)


def test_the_width_of_a_letter_is_measured_on_whole_words():
    points = torch.zeros(2, 3, 3)
    points[0, :, 0] = torch.tensor([1.0, 2.0, -0.6])
    points[1, :2, 0] = torch.tensor([0.8, 0.4])
    strokes = Strokes(points, torch.tensor([3, 2]), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
    assert EXPERIMENT.mean_letter_width(strokes) == pytest.approx((2.4 + 1.2) / 2 / 3 / EXPERIMENT.UNIT)


def test_the_breaks_replace_the_window_alone(comparisons):
    (given,) = comparisons(graves)
    made = {}
    for name, arms in given.breaks.items():
        assert arms.keys() == {"window"}
        recipe = arms["window"].make
        assert recipe.text == "window"
        made[name] = recipe.make(4, hidden=5, components=2, gaussians=2)
    kinds = EXPERIMENT.Misread, EXPERIMENT.Steady, EXPERIMENT.AtPen
    assert [type(writer) for writer in made.values()] == list(kinds)
    train = EXPERIMENT.mean_letter_width(given.world.train)
    assert made["window at the pen"].letter_width == train
    assert train != EXPERIMENT.mean_letter_width(given.world.judge)


def test_the_near_miss_reads_the_next_word():
    torch.manual_seed(0)
    own = Writer(4, hidden=5, components=2, gaussians=2).double()
    other = EXPERIMENT.Misread(4, hidden=5, components=2, gaussians=2).double()
    other.load_state_dict(own.state_dict())
    points, words = torch.randn(2, 6, 3).double(), torch.tensor([[0, 1, 2], [3, 3, 1]])
    assert_close(other(points, words)[0], own(points, words.flip(0))[0])


def test_no_part_has_the_words_of_another(part_of_run):
    run = part_of_run()
    drawn = [EXPERIMENT.inked(run, part, 40) for part in ("train", "choose", "judge")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(drawn[one].words, drawn[other].words)
        assert not torch.equal(drawn[one].points[:, :20], drawn[other].points[:, :20])


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "00859d9fb750"


def test_a_page_has_ink_where_the_pen_was_down():
    points = torch.tensor([[0.0, 0, 0], [4, 0, 1], [4, 0, 0], [0, 4, 0]])
    ink = EXPERIMENT.page(points)
    assert ink[64 - 1 - 14, 12:45].sum() == 0
    assert ink[64 - 1 - 14, 46:75].min() == 1  # between the strokes
    assert ink[64 - 1 - 46 : 64 - 14, 76].sum() == 0


def test_the_experiment_runs(run_experiment):
    record = run_experiment(graves)
    assert len(record.curves["nats a point while learning"]) == 2
    assert [artifact["name"] for artifact in record.artifacts] == ["written", "window"]
    assert not run_experiment(graves, null=True).artifacts


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(graves)] == ["density of a mixture", "handwriting"]


def test_the_benchmarks_lstm_cells_write_what_the_writer_writes():
    writer = Writer(BENCHMARK.ALPHABET, hidden=5, components=3, gaussians=2).double()
    with torch.device("meta"):
        cells = BENCHMARK.Cells(BENCHMARK.ALPHABET, hidden=5, components=3, gaussians=2)
    weights, words = BENCHMARK.for_cells(
        dict(writer.named_parameters()), torch.tensor([[3, 1, 2], [0, 59, 7]])
    )
    cells.load_state_dict(weights, assign=True)
    found = BENCHMARK.with_cells(cells, words, 8, torch.Generator().manual_seed(0))
    expected, _ = writer.write(words, 8, torch.Generator().manual_seed(0))
    assert_close(found, expected)
