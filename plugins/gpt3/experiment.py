"""Checks the largest model's size, and measures how much examples in the prompt help three model sizes."""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)

from .model import GPT3, SIZES

SIZE = Claim(
    name="parameter count of the largest model",
    seeded_as="the largest size",
    sentence="The largest model in the table has 175 billion parameters.",
    paper=Figure("175.0B: 96 layers, hidden size 12,288, 96 heads", where="table 2.1", read="table"),
    rule=(Bound("parameters, billions", "==", 175),),
    kind="identity",
)

UNRELATED = Break(
    "examples of other rules", "Each example in the prompt follows a different rule.", "near miss"
)
LONGER = Break(
    "small, trained longer", "The smallest model is trained for four times as many steps.", "rival"
)
LONGEST = Break(
    "small, 16 times the steps",
    "The smallest model is trained for 16 times as many steps. This takes 39 % of the floating-point "
    "operations of the largest model's training.",
    "rival",
)

STEEPER = Claim(
    name="accuracy gained from examples, by model size",
    seeded_as="larger models make more of examples",
    sentence="After 160 steps on documents that each follow one of 32 rules, a model uses the examples in "
    "its prompt to recognise the rule, and larger models gain more accuracy from them.",
    paper=Figure(
        "Accuracy as a function of the number of examples rises more steeply for larger models",
        where="figure 1.2",
        read="text",
    ),
    rule=(
        at_least("accuracy that 7 examples add", "large", 0.3, minus="small", toward=0.0),
        at_least("accuracy that 7 examples add", "large", 0.4, toward=0.1),
    ),
    control_arm="small",
    control=(
        "the smallest model, with the same number of layers. Each size is trained at its best learning rate "
        "for the same number of steps"
    ),
    control_reaches=(
        at_least(
            "accuracy without an example",
            "small",
            0.125,
            called="accuracy of the smallest without an example",
        ),
    ),
    after_steps=160,
    breaks=(UNRELATED, LONGER, LONGEST, UNTRAINED),
    shortcuts=("accuracy of who knows all rules, 7 examples",),
    chosen_on=(0, 1),
    deviations="Rules come from a pool that all training documents share, so a model recognises a known "
    "rule and does not learn a new one from the prompt. With rules that occur in no training document, "
    "examples add nothing. The models have two layers and hidden sizes of 8, 16 and 64. Documents contain "
    "keys and answers, not natural language.",
    headline=True,
    history=(
        (
            "Until November 2026 the sentence ended with 'without any training for it'. However, the "
            "model is trained on the 32 rules that it is judged on. The bounds are unchanged."
        ),
        (
            "The rival with 16 times as many steps was added later in November 2026. With two other seeds, "
            "examples add 0.74 and 0.69 to its accuracy, which is 0.66 and 0.65 more than for the smallest "
            "model after 160 steps."
        ),
    ),
)

RULES, KEYS, VALUES, EXAMPLES = 32, 8, 8, 8


class Size(NamedTuple):
    """Hidden size and heads of a small model, and a factor on its number of training steps."""

    width: int
    heads: int
    times: int = 1


WIDTHS = {"small": Size(8, 1), "medium": Size(16, 2), "large": Size(64, 4)}
RATES = (1e-2, 3e-2, 1e-1)  # for the smallest model; scaled by 1 / sqrt(width) for the others


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            counts = {name: parameters(GPT3(**size)) for name, size in SIZES.items()}
        rows = [[name, *SIZES[name].values(), count] for name, count in counts.items()]
        run.table("sizes", ["model", "hidden size", "heads", "layers", "parameters"], rows)
        run.claim(SIZE, {"parameters, billions": round(counts["175B"] / 1e9)})
    if run.wants(STEEPER):
        compare_sizes(run)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@dataclass(frozen=True)
class Rules:
    """A pool of rules, each of which maps every key to a value.

    A document consists of examples of one rule. An example is a key followed by an answer token, which
    determines the key and its value.

    unrelated  whether every example of a document follows a different rule
    """

    value: Int[Tensor, "rules keys"]
    unrelated: bool = False

    @classmethod
    def made(cls, generator: torch.Generator) -> "Rules":
        return cls(torch.randint(VALUES, (RULES, KEYS), generator=generator))

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "count tokens"], Int[Tensor, "count examples"]]:
        """Documents, and the rule of each example."""
        rule = torch.randint(RULES, (count, EXAMPLES if self.unrelated else 1), generator=generator)
        rule = rule.expand(count, EXAMPLES)
        keys = torch.rand(count, KEYS, generator=generator).argsort(1)[:, :EXAMPLES]
        answers = KEYS + keys * VALUES + self.value[rule, keys]
        return torch.stack((keys, answers), 2).flatten(1), rule

    def best(self, ids: Int[Tensor, "count tokens"]) -> Float[Tensor, "count examples"]:
        """Probability of answering each key correctly, for the Bayes-optimal predictor that knows all
        rules."""
        keys, values = ids[:, ::2], (ids[:, 1::2] - KEYS) % VALUES
        fits = (self.value[:, keys] == values).double()  # rules, documents, examples
        before = torch.cat((torch.ones_like(fits[..., :1]), fits[..., :-1]), 2).cumprod(2)
        belief = before / before.sum(0).clamp(min=1e-9)
        votes = torch.stack([(belief * (self.value[:, keys] == v)).sum(0) for v in range(VALUES)])
        return votes.amax(0)


def compare_sizes(run: Run) -> None:
    run.phase("setup")
    table = run.compare(
        STEEPER,
        arms={name: Arm(size) for name, size in WIDTHS.items()},
        attempt=train,
        read=judged,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        what="rate of the smallest",
        score="validation nats",
        derive=lambda table: {
            "": {"accuracy of who knows all rules, 7 examples": ceiling(run, table.world)[-1].item()}
        },
        breaks={
            UNRELATED.name: lambda rules: replace(rules, unrelated=True),
            LONGER.name: {"large": Arm(WIDTHS["small"]._replace(times=4))},
            LONGEST.name: {"large": Arm(WIDTHS["small"]._replace(times=16))},
        },
        world=Rules.made(run.data("rules", "world")),
        unequal={
            name: f"learning rates are {rate_of(size.width, 1.0):.2g} of the grid's, by the root of the size"
            for name, size in WIDTHS.items()
            if name != "small"
        },
    )
    for examples, value in enumerate(ceiling(run, table.world).tolist()):
        run.metric("accuracy over examples", value, step=examples, arm="who knows all rules")
    run.headline("accuracy over examples")


def documents(run: Run, rules: Rules, part: Literal["choose", "judge"]) -> Int[Tensor, "count tokens"]:
    count = run.pick(smoke=40, quick=1000, full=4000)
    return rules.draw(count, run.data(f"to {part} by", part))[0]


def ceiling(run: Run, rules: Rules) -> Float[Tensor, " examples"]:
    """Accuracy of the optimal predictor on the test documents."""
    return rules.best(documents(run, rules, "judge")).mean(0)


def network(width: int, heads: int) -> GPT3:
    vocab, tokens = KEYS + KEYS * VALUES, 2 * EXAMPLES
    std = 0.02 * math.sqrt(768 / width)  # scaled from the paper's 0.02 at hidden size 768
    return GPT3(vocab, context=tokens, model=width, heads=heads, layers=2, window=tokens // 2, std=std)


def rate_of(width: int, rate: float) -> float:
    """The learning rate for a width, if the smallest model uses `rate`."""
    return rate * math.sqrt(WIDTHS["small"].width / width)


def train(at: Trial, size: Size, rate: float) -> tuple[float, GPT3]:
    """Train on the loss of the answers, the only predictable tokens, and return the validation loss in nats
    and the network."""
    run, rules = at.run, at.world
    net = network(size.width, size.heads).to(run.device, run.dtype)
    own = rate_of(size.width, rate)
    steps = at.length(size.times * run.pick(smoke=2, quick=160, full=3000))
    generator = at.generator("documents")
    optimizer = torch.optim.AdamW(net.parameters(), lr=own, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, own, steps + 1, pct_start=0.1)
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {own:.2g}", state=(net, optimizer, schedule)):
        ids, _ = rules.draw(64, generator)
        loss = answer_nats(net, ids.to(run.device)).mean()
        at.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", clip=1.0)
        schedule.step()
    run.phase("evaluate")
    with torch.no_grad():
        chosen = documents(run, rules, "choose").to(run.device)
        return answer_nats(net, chosen).mean().item(), net


def judged(at: Trial, found: Sweep[GPT3]) -> dict[str, Tensor]:
    """Each document's accuracy without examples, and the gain from seven. Also plots the accuracies."""
    ids = documents(at.run, at.world, "judge")
    with torch.no_grad():
        answers = found.chosen(ids.to(at.run.device))[:, ::2].argmax(2).cpu()
    right = (answers == ids[:, 1::2]).double()
    for examples, value in enumerate(right.mean(0).tolist()):
        at.metric("accuracy over examples", value, step=examples)
    added = right[:, -1] - right[:, 0]
    at.metric("accuracy that 7 examples add", added.mean().item())
    return {"accuracy that 7 examples add": added, "accuracy without an example": right[:, 0]}


def answer_nats(net: GPT3, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch examples"]:
    """Loss in nats of the answer to each key."""
    return F.cross_entropy(net(ids)[:, ::2].transpose(1, 2), ids[:, 1::2], reduction="none")
