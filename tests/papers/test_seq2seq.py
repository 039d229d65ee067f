"""The encoder-decoder compared with torch's LSTMs, beam search with all sentences, and the arms."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import seq2seq
from readtrack.papers.seq2seq import END, Seq2Seq, beam_search, greedy
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.seq2seq.experiment")  # the hook has the same name


class Torchs(nn.Module):
    def __init__(self, source: int, target: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(nn.Embedding(vocab, hidden) for vocab in (source, target))
        self.lstms = nn.ModuleList(nn.LSTM(hidden, hidden, layers, batch_first=True) for _ in range(2))
        self.readout = nn.Linear(hidden, target)

    def forward(self, source, target):
        _, state = self.lstms[0](self.embeds[0](source.flip(1)))
        before = torch.cat((torch.zeros_like(target[:, :1]), target[:, :-1]), 1)
        return self.readout(self.lstms[1](self.embeds[1](before), state)[0])


def renamed(weights):
    """Our parameters with the names of `Torchs`; torch has a second bias."""
    found = {}
    for name, weight in weights.items():
        stack, _, rest = name.partition(".")
        if stack == "readout":
            found[name] = weight
            continue
        index = ("reader", "writer").index(stack)
        if rest == "embed.weight":
            found[f"embeds.{index}.weight"] = weight
            continue
        _, layer, kind = rest.split(".", 2)
        new = {"input.weight": "weight_ih", "input.bias": "bias_ih", "recurrent.weight": "weight_hh"}[kind]
        found[f"lstms.{index}.{new}_l{layer}"] = weight
        if kind == "input.bias":
            found[f"lstms.{index}.bias_hh_l{layer}"] = torch.zeros_like(weight)
    return found


@pytest.mark.parametrize(("layers", "length"), [(2, 5), (1, 1)])
def test_it_matches_torchs(assert_parity, layers, length):
    ours, theirs = Seq2Seq(6, 7, hidden=4, layers=layers), Torchs(6, 7, 4, layers).double()
    source, target = torch.randint(6, (3, length)), torch.randint(7, (3, 4))
    assert_parity(
        lambda weights, *given: functional_call(ours, weights, given),
        lambda weights, *given: functional_call(theirs, renamed(weights), given),
        (source, target),
        weights=dict(ours.named_parameters()),
        atol=1e-10,
    )


def test_the_papers_network_has_about_384_million_parameters():
    with torch.device("meta"):
        network = Seq2Seq()
    sizes = {name: sum(w.numel() for w in part.parameters()) for name, part in network.named_children()}
    recurrent = sum(w.numel() for n, w in network.named_parameters() if ".layers." in n)
    assert recurrent == 2 * 4 * (8 * 1000 * 1000 + 4 * 1000)  # "64M are pure recurrent connections"
    assert 383e6 < sum(sizes.values()) < 385e6
    assert network.reverse


def test_only_the_order_of_reading_is_reversed():
    forward, backward = (Seq2Seq(6, 7, hidden=4, layers=2, reverse=reverse) for reverse in (False, True))
    backward.load_state_dict(forward.state_dict())
    source, target = torch.randint(6, (3, 5)), torch.randint(7, (3, 4))
    assert torch.equal(forward(source.flip(1), target), backward(source, target))
    assert not torch.equal(forward(source, target), backward(source, target))


def test_a_word_does_not_see_itself_nor_later_ones():
    network, source, target = (
        Seq2Seq(6, 7, hidden=4, layers=2),
        torch.randint(6, (1, 5)),
        torch.tensor([[1, 2, 3, 4]]),
    )
    changed = target.clone()
    changed[0, 2] = 6
    before, after = network(source, target), network(source, changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def peaked(seed: int) -> Seq2Seq:
    """A model whose most likely sentence sometimes begins with a less likely word."""
    torch.manual_seed(seed)
    network = Seq2Seq(5, 4, hidden=6, layers=2).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 4
    return network


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_likeliest_of_all_sentences(seed):
    network, source, limit = peaked(seed), torch.tensor([1, 2, 3]), 3
    every = {}
    for length in range(limit + 1):
        for words in itertools.product((1, 2, 3), repeat=length):
            target = torch.tensor([[*words, END]])
            log = network(source[None], target).log_softmax(-1)
            every[words] = log.gather(2, target[..., None]).sum().item()
    found = beam_search(network, source, beam=4 ** (limit + 1), limit=limit)
    expected = sorted(every.items(), key=lambda item: -item[1])
    assert [sentence.words for sentence in found] == [words for words, _ in expected]
    assert_close([s.log_probability for s in found], [value for _, value in expected])


def test_a_narrow_beam_keeps_the_best_and_scores_them_correctly():
    network, source = peaked(1), torch.tensor([1, 2, 3])
    for beam in (1, 2):
        found = beam_search(network, source, beam=beam, limit=6)
        assert len(found) <= beam
        for sentence in found:
            target = torch.tensor([[*sentence.words, END]])
            log = network(source[None], target).log_softmax(-1)
            assert_close(sentence.log_probability, log.gather(2, target[..., None]).sum().item())


def test_greedy_takes_the_likeliest_next_word():
    network, source = peaked(2), torch.randint(5, (3, 4))
    written = greedy(network, source, 5)
    assert torch.equal(network(source, written).argmax(-1), written)


# Experiment and benchmark


def test_a_translation_has_its_words_by_the_lexicon_and_pairs_in_the_right_order():
    lexicon = torch.cat((torch.zeros(1, dtype=torch.long), torch.randperm(11) + 1))
    source, target = EXPERIMENT.sentences(20, 6, lexicon, torch.Generator().manual_seed(0))
    assert (source > 0).all()
    assert (target[:, -1] == END).all()
    for words, translated in zip(source.tolist(), target.tolist(), strict=True):
        expected = []
        for a, b in zip(words[::2], words[1::2], strict=True):
            expected += [lexicon[b], lexicon[a]] if a < b else [lexicon[a], lexicon[b]]
        assert translated[:-1] == [int(word) for word in expected]


ACCURACY = {"reversed": 0.9, "not reversed": 0.5, "not reversed, four words": 0.95}


def arms_of(run_experiment, monkeypatch, **options):
    """The input order of each arm for 0, 1, ... and the bias of its forget gates, with made-up accuracies."""
    arms, biases = {}, {}

    def train(at, task, rate):
        model = task.make()
        arms[at.name] = model.ordered(torch.arange(task.length)[None]).flatten().tolist()
        hidden = EXPERIMENT.HIDDEN
        biases[at.name] = [
            layers[0].input.bias[hidden : 2 * hidden].mean().item()
            for layers in (model.reader.layers, model.writer.layers)
        ]
        at.metric("loss", 1.0, step=0)
        return 1.0, EXPERIMENT.Trained(model, task.length)

    monkeypatch.setattr(EXPERIMENT, "train", train)
    monkeypatch.setattr(EXPERIMENT, "judged", lambda at, found: {"accuracy": ACCURACY[at.name]})
    monkeypatch.setattr(EXPERIMENT, "show", lambda run, model, source, target: run.metric("shown", 1.0))
    return arms, biases, run_experiment(seq2seq, **options).claims


UPWARDS = list(range(EXPERIMENT.LENGTH))
SHORT = {"not reversed, four words": UPWARDS[: EXPERIMENT.SHORT]}


def test_the_arms(run_experiment, monkeypatch):
    arms, biases, claims = arms_of(run_experiment, monkeypatch)
    assert arms == {"reversed": UPWARDS[::-1], "not reversed": UPWARDS} | SHORT
    for pair in biases.values():
        assert pair == pytest.approx([1, 1], abs=0.1)
    assert claims[0]["values"]["accuracy gained by reversing"] == pytest.approx(0.4)
    assert claims[0]["values"]["accuracy on four-word sentences, not reversed"] == 0.95


def test_a_null_run_reads_as_it_is_under_every_name(run_experiment, monkeypatch):
    monkeypatch.setitem(globals(), "ACCURACY", dict.fromkeys(ACCURACY, 0.9))
    arms, _, _ = arms_of(run_experiment, monkeypatch, null=True)
    assert arms == {"reversed": UPWARDS, "not reversed": UPWARDS} | SHORT


@pytest.mark.parametrize(
    ("broken", "read", "bias"),
    [("shuffled source", [*UPWARDS[::2], *UPWARDS[1::2]], 1), ("open forget gates", UPWARDS, 5)],
)
def test_breaks_replace_the_reversed_arm_alone(run_experiment, monkeypatch, broken, read, bias):
    arms, biases, _ = arms_of(run_experiment, monkeypatch, broken=broken)
    assert arms == {"reversed": read, "not reversed": UPWARDS} | SHORT
    assert biases["reversed"] == pytest.approx([bias, bias], abs=0.1)
    assert biases["not reversed"] == pytest.approx([1, 1], abs=0.1)


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "2b0716853637"


def test_accuracy_counts_words_but_not_the_end(part_of_run):
    """A predictor that knows all words except the first, and never the end of a sentence."""
    run = part_of_run()
    words = EXPERIMENT.lexicon(run.data("lexicon", "world"))
    _, target = EXPERIMENT.drawn(run, words, 4, "judge")

    class Knows(EXPERIMENT.Reader):
        def forward(self, source, given):
            assert torch.equal(given, target)
            said = nn.functional.one_hot(target, EXPERIMENT.WORDS).float()
            said[:, (0, 4)] = said[:, (0, 4)].roll(1, -1)
            return said

    at = Trial(Workshop(run, words), Work(arm="reversed"), arm="reversed")
    found = EXPERIMENT.Trained(Knows(EXPERIMENT.as_it_is), 4)
    assert EXPERIMENT.judged(at, Sweep(found, 0.01, {})) == {"accuracy": 0.75}


def test_the_lexicon_gives_every_word_another_and_keeps_the_end():
    words = EXPERIMENT.lexicon(torch.Generator().manual_seed(0))
    assert words[END] == END
    assert sorted(words.tolist()) == list(range(EXPERIMENT.WORDS))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(seq2seq)
    assert record.curves["accuracy over position"].keys() == ACCURACY.keys()
    assert [step for step, _ in record.curves["BLEU over the beam's width"]["reversed"]] == [1, 2, 12]
    assert [artifact["name"] for artifact in record.artifacts] == ["translations"]


def test_samples_are_shown_with_their_likelihood(part_of_run):
    """A writer that always ends immediately."""
    network = EXPERIMENT.Reader(EXPERIMENT.backwards)
    with torch.no_grad():
        network.readout.weight.zero_()
        network.readout.bias.copy_(torch.eye(EXPERIMENT.WORDS)[END] * 9)
    words = torch.arange(1, 13)[None]
    target = torch.cat((words, torch.tensor([[END]])), 1)
    run = part_of_run()
    EXPERIMENT.show(run, network, words, target)
    lines = (run.artifacts / "translations.txt").read_text(encoding="utf-8").splitlines()
    source, right, by_greed, by_beam, *_ = lines
    assert (source.split()[0], right.split()[0]) == ("source", "target")
    assert len(source.split()) == len(right.split()) == 13
    assert source.split()[1:] == [word.lower() for word in right.split()[1:]]
    assert by_greed.split()[1:] == by_beam.split()[1:] == ["0", "right,", "ln", "p", "-0.0"]
    assert len({EXPERIMENT.spelled([word]) for word in range(1, EXPERIMENT.WORDS)}) == 30


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(seq2seq)] == ["word by word"]
