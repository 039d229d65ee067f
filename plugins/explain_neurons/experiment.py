"""Explanations beside those of other neurons, of weaker explainers, and beside what a neuron is for."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..gpt2 import GPT2
from .drawing import Seen, page
from .model import (
    Predicates,
    Question,
    activations_of,
    answers,
    correlations,
    losses,
    questions,
    rise_without,
    wording,
)

SHUFFLED = Break("shuffled activations", "Explanations are chosen on activations in a random order.")

SCORES = Claim(
    name="explanations tell neurons apart",
    sentence="On a new text a neuron's explanation scores higher than that of another neuron.",
    paper=Figure(
        "Above 0.8 for over 1,000 of 307,200 neurons, most far below",
        where="OpenAI's announcement",
        read="secondary",
    ),
    rule=(Bound("mean score, own - another's explanation", ">=", 0.2, direction=0.0),),
    control="the explanation of another neuron, drawn at random",
    control_reaches=(Bound("nats that the model knows more than letter counts do", ">=", 0.4),),
    breaks=(SHUFFLED,),
    shortcuts=("mean score, untrained network", "part of neurons that score 0.8 or more"),
    chosen_on=(0,),
    deviations="512 neurons of a character model of two layers; predicates, found by search, in the place of "
    "GPT-4's sentences. Neurons of an untrained network are explained as well, if by fewer nats.",
)

STRENGTH = Claim(
    name="better explainers score higher",
    sentence="An explainer that has more to choose from writes explanations that score higher on a new text.",
    paper=Figure(
        "Average scores rise with the explainer's capability", where="OpenAI's announcement", read="secondary"
    ),
    rule=(Bound("mean score, 1000 - 30 predicates", ">=", 0.1, direction=0.0),),
    control="the same explainer with 30 of its predicates, drawn at random",
    control_reaches=(Bound("nats that the model knows more than letter counts do", ">=", 0.4),),
    breaks=(SHUFFLED,),
    chosen_on=(0,),
    deviations="512 neurons of a character model of two layers; predicates, found by search, in the place of "
    "GPT-4's sentences. The explainer's strength is how many predicates it may choose from.",
)

CAUSAL = Claim(
    name="explanations say where a neuron matters",
    sentence="Without a neuron the loss rises more where its explanation fires than elsewhere, more than by "
    "another neuron's explanation.",
    paper=Figure("Not claimed; Huang et al. (2309.10312) doubt it", read="abstract"),
    rule=(Bound("standardised rise where it fires, own - another's", ">=", 0.02, direction=0.0),),
    control="the explanation of another neuron, drawn at random",
    control_reaches=(Bound("nats that the model knows more than letter counts do", ">=", 0.4),),
    breaks=(SHUFFLED,),
    chosen_on=(0,),
    deviations="The 48 neurons of highest score on the text that explanations were chosen on; a neuron is "
    "set to its mean. Rises are correlated with the explanation, over tokens.",
)


class Texts(NamedTuple):
    """Windows of three parts of a text."""

    train: tuple[Tensor, ...]
    choose: Int[Tensor, "windows time"]
    judge: Int[Tensor, "windows time"]


TIME = 48


@hookimpl
def experiment(run: Run) -> None:
    ids, alphabet = data.characters(data.text())
    parts = data.stretches(ids, run.seed)
    count = run.pick(smoke=8, quick=160, full=600)
    choose, judge = (
        data.windows(part, TIME + 1, count, run.generator(name))
        for name, part in (("windows to choose by", parts.choose), ("windows to judge by", parts.judge))
    )
    texts = Texts(parts.train, choose, judge)
    width = run.pick(smoke=16, quick=64, full=128)

    def make() -> nn.Module:
        return GPT2(len(alphabet), context=TIME, model=width, heads=2, layers=2).to(run.device, run.dtype)

    networks = run.trained(f"explain_neurons {width}", make, lambda model: train(run, texts, model))
    look(run, networks.network, networks.untrained, texts, alphabet)


def train(run: Run, texts: Texts, model: nn.Module) -> None:
    steps = run.pick(smoke=3, quick=500, full=3000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = run.generator("batches")
    run.phase("train")
    for step in run.steps(steps, "the model to explain"):
        windows = data.windows(texts.train, TIME + 1, 16, batches).to(run.device)
        run.descend(model.loss(windows), optimizer, step=step, metric="training loss", clip=1.0)
        schedule.step()


class Explained(NamedTuple):
    """best: of each neuron the predicate; scores: of every neuron and every predicate, on the other text."""

    best: Int[Tensor, " neurons"]
    chosen_by: Float[Tensor, " neurons"]
    scores: Float[Tensor, "neurons predicates"]

    def mean(self, owners: Int[Tensor, " neurons"]) -> float:
        """The mean score when each neuron gets its owner's explanation."""
        return self.scores[torch.arange(len(owners)), self.best[owners]].mean().item()


def explain(
    run: Run,
    model: GPT2,
    texts: Texts,
    predicates: tuple[Predicates, Predicates],
    *,
    shuffled: bool = False,
) -> Explained:
    """Choose each neuron's predicate on one text (`shuffled`: by activations in a random order), and score
    all predicates on the other."""
    seen = activations_of(model, texts.choose)
    if shuffled or run.without(SHUFFLED.name):
        seen = seen[torch.randperm(len(seen), generator=run.generator("order"))]
    fits = correlations(seen, predicates[0].float())
    found = fits.max(1)
    scores = correlations(activations_of(model, texts.judge), predicates[1].float())
    return Explained(found.indices, found.values, scores)


def look(run: Run, model: GPT2, untrained: GPT2, texts: Texts, alphabet: str) -> None:
    run.phase("evaluate")
    asked = questions()
    predicates = tuple(answers(part, alphabet, asked) for part in (texts.choose, texts.judge))
    explained = explain(run, model, texts, predicates)
    neurons = len(explained.best)
    itself = torch.arange(neurons)
    another = (
        itself + 1 + torch.randint(neurons - 1, (neurons,), generator=run.generator("others"))
    ) % neurons
    arms = run.arms({"own": itself, "another's": another}, control="another's")
    whole = losses(model, texts.judge)
    counts = torch.bincount(torch.cat(texts.train), minlength=len(alphabet)).float() + 0.1
    known = (-(counts / counts.sum()).log()[texts.judge[:, 1:]].mean() - whole.mean()).item()
    reached = {"nats that the model knows more than letter counts do": known}
    means = {arm: explained.mean(owners) for arm, owners in arms.items()}
    own = explained.scores[itself, explained.best]
    for arm, value in means.items():
        run.metric("mean score", value, arm=arm)
    run.metric("mean score over layers", own[: neurons // 2].mean().item(), step=1, arm="own")
    run.metric("mean score over layers", own[neurons // 2 :].mean().item(), step=2, arm="own")
    if run.wants(SCORES):
        fresh = explain(run, untrained, texts, predicates).mean(itself)
        mixed = explain(run, model, texts, predicates, shuffled=True).mean(itself)
        run.metric("mean score", fresh, arm="untrained network")
        run.metric("mean score", mixed, arm="chosen on shuffled activations")
        values = {
            "mean score, own - another's explanation": means["own"] - means["another's"],
            "mean score, untrained network": fresh,
            "part of neurons that score 0.8 or more": (own >= 0.8).float().mean().item(),
        }
        run.claim(SCORES, values | reached)
    if run.wants(STRENGTH):
        run.claim(
            STRENGTH, {"mean score, 1000 - 30 predicates": stronger(run, model, texts, predicates)} | reached
        )
    if run.wants(CAUSAL):
        gain = matter(run, model, texts, predicates[1], explained, arms, whole)
        run.claim(CAUSAL, {"standardised rise where it fires, own - another's": gain} | reached)
    show(run, model, texts, alphabet, asked, explained, own, predicates[1])


def stronger(run: Run, model: GPT2, texts: Texts, predicates: tuple[Predicates, Predicates]) -> float:
    """How much higher the mean score is with all predicates than with 30 of them."""
    total = predicates[0].shape[1]
    order = torch.randperm(total, generator=run.generator("predicates"))
    counts = run.arms({"strong": 1000, "weak": 30}, control="weak")
    found = {}
    for name, count in {**counts, "one": 1, "few": 5, "some": 150}.items():
        kept = order[:count]
        explained = explain(run, model, texts, (predicates[0][:, kept], predicates[1][:, kept]))
        found[name] = explained.mean(torch.arange(len(explained.best)))
        run.metric("mean score over predicates", found[name], step=count, arm="explainer")
    run.headline("mean score over predicates")
    return found["strong"] - found["weak"]


def matter(
    run: Run,
    model: GPT2,
    texts: Texts,
    predicates: Predicates,
    explained: Explained,
    arms: dict[str, Tensor],
    whole: Float[Tensor, " tokens"],
) -> float:
    """How much better the rise of the loss goes along with the own explanation, over the best neurons."""
    best = explained.chosen_by.topk(min(48, len(explained.best))).indices.tolist()
    levels = activations_of(model, texts.choose).mean(0).tolist()
    gains = []
    for neuron in best:
        rise = rise_without(model, texts.judge, neuron, levels[neuron], whole)[:, None]
        along = {
            arm: correlations(rise, predicates[:, explained.best[owners[neuron]]][:, None].float()).item()
            for arm, owners in arms.items()
        }
        gains.append(along["own"] - along["another's"])
    return sum(gains) / len(gains)


def show(
    run: Run,
    model: GPT2,
    texts: Texts,
    alphabet: str,
    asked: list[tuple[Question, ...]],
    explained: Explained,
    own: Float[Tensor, " neurons"],
    predicates: Predicates,
) -> None:
    """The best, a middle and the worst neurons, each on the window where it is most active: a picture with
    colours, and the same in characters."""
    order = own.argsort(descending=True).tolist()
    middle = len(order) // 2
    best_of = {int(explained.best[neuron]): neuron for neuron in reversed(order)}  # of each explanation
    time = texts.judge.shape[1] - 1
    activations = activations_of(model, texts.judge).clamp_min(0)
    drawn, lines = [], []
    for name, neuron in (
        *(("best", neuron) for neuron in sorted(best_of.values(), key=order.index)[:3]),
        ("middle", order[middle]),
        *(("worst", neuron) for neuron in order[-3:]),
    ):
        window = int(activations[:, neuron].argmax()) // time
        rows = slice(window * time, (window + 1) * time)
        text = "".join(alphabet[i] for i in texts.judge[window, :-1].tolist()).replace("\n", "|")
        real = activations[rows, neuron]
        real = (real / real.max().clamp_min(1e-6)).tolist()
        simulated = predicates[rows, explained.best[neuron]].float().tolist()
        what = wording(asked[int(explained.best[neuron])])
        title = f"{name} neuron: {what} (score {own[neuron]:.2f})"
        drawn.append(Seen(title, text, real, simulated))
        lines += [title, f"  text       {text}"]
        for side, values in (("truth", real), ("simulated", simulated)):
            digits = (str(round(9 * value)) if value > 1 / 18 else "·" for value in values)
            lines.append(f"  {side:<10} {''.join(digits)}")
    run.image(
        "neurons on text",
        page(drawn),
        columns=1,
        caption="The best neurons of three explanations, one in the middle, the three worst. Orange: how "
        "active the neuron is. Blue: where its explanation says that it is. | ends a line.",
    )
    run.text("neurons", "\n".join(lines), caption="Activations from 0 to 9, and where the explanation fires.")
