"""The claims: the largest size, and what examples in the prompt are worth to models of three sizes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import GPT3, SIZES

SIZE = Claim(
    name="the largest size",
    sentence="The largest model of the table has 175 billion parameters.",
    paper=Figure("175.0B: 96 layers, width 12,288, 96 heads", where="table 2.1", read="table"),
    rule=(Bound("parameters, billions", "==", 175),),
    kind="identity",
)

UNRELATED = Break("examples of other rules", "Each example in the prompt is of a rule of its own.")

STEEPER = Claim(
    name="larger models make more of examples",
    sentence="Without any training for it, examples in the prompt raise the accuracy, and the more the "
    "larger the model is.",
    paper=Figure(
        "accuracy over the number of examples rises more steeply for larger models",
        where="figure 1.2",
        read="text",
    ),
    rule=(
        Bound("accuracy that 7 examples add, large - small", ">=", 0.3, direction=0.0),
        Bound("accuracy that 7 examples add, large", ">=", 0.4, direction=0.1),
    ),
    control="the smallest, of as many layers; each size at its best rate, after as many steps",
    control_reaches=(Bound("accuracy of the smallest without an example", ">=", 0.125),),
    breaks=(UNRELATED,),
    shortcuts=("accuracy of who knows all rules, 7 examples",),
    chosen_on=(0, 1),
    deviations="Rules from a pool that all training documents draw on, so that a rule is recognised, not "
    "learned; widths 8, 16 and 64, two layers.",
)

RULES, KEYS, VALUES, EXAMPLES = 32, 8, 8, 8
WIDTHS = {"small": (8, 1), "medium": (16, 2), "large": (64, 4)}  # width, heads
RATES = (1e-2, 3e-2, 1e-1)  # of the smallest; others by the root of their width


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            counts = {name: parameters(GPT3(**size)) for name, size in SIZES.items()}
        rows = [[name, *SIZES[name].values(), count] for name, count in counts.items()]
        run.table("sizes", ["table 2.1", "width", "heads", "layers", "parameters"], rows)
        run.claim(SIZE, {"parameters, billions": round(counts["175B"] / 1e9)})
    if run.wants(STEEPER):
        compare_sizes(run)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@dataclass(frozen=True)
class Rules:
    """A pool of rules, each of which gives every key a value.

    A document is a rule's examples: a key, then its answer, a token that names key and value both.
    """

    value: Int[Tensor, "rules keys"]

    @classmethod
    def made(cls, generator: torch.Generator) -> "Rules":
        return cls(torch.randint(VALUES, (RULES, KEYS), generator=generator))

    def draw(
        self, count: int, generator: torch.Generator, *, unrelated: bool = False
    ) -> tuple[Int[Tensor, "count tokens"], Int[Tensor, "count examples"]]:
        """Documents, and the rule of each example: the same in a document, unless they are `unrelated`."""
        rule = torch.randint(RULES, (count, EXAMPLES if unrelated else 1), generator=generator)
        rule = rule.expand(count, EXAMPLES)
        keys = torch.rand(count, KEYS, generator=generator).argsort(1)[:, :EXAMPLES]
        answers = KEYS + keys * VALUES + self.value[rule, keys]
        return torch.stack((keys, answers), 2).flatten(1), rule

    def best(self, ids: Int[Tensor, "count tokens"]) -> Float[Tensor, "count examples"]:
        """The chance of the right answer to each key, for who knows all rules and answers with the
        likeliest."""
        keys, values = ids[:, ::2], (ids[:, 1::2] - KEYS) % VALUES
        fits = (self.value[:, keys] == values).double()  # rules, documents, examples
        before = torch.cat((torch.ones_like(fits[..., :1]), fits[..., :-1]), 2).cumprod(2)
        belief = before / before.sum(0).clamp(min=1e-9)
        votes = torch.stack([(belief * (self.value[:, keys] == v)).sum(0) for v in range(VALUES)])
        return votes.amax(0)


def compare_sizes(run: Run) -> None:
    run.phase("setup")
    rules = Rules.made(run.generator("rules"))
    unrelated = run.without(UNRELATED.name)
    count = run.pick(smoke=40, quick=1000, full=4000)
    chosen, judged = (
        rules.draw(count, run.generator(name), unrelated=unrelated)[0]
        for name in ("to choose by", "to judge by")
    )
    arms = run.arms({size: partial(network, run, *shape) for size, shape in WIDTHS.items()}, control="small")
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[Float[Tensor, " examples"]]] = {}
    for arm, make in arms.items():
        attempt = partial(train, run, arm, make, rules, chosen, judged)
        best[arm] = run.sweep(arm, rates, attempt, what="rate of the smallest", score="validation nats")
        for examples, value in enumerate(best[arm].result.tolist()):
            run.metric("accuracy over examples", value, step=examples, arm=arm)
    ceiling = rules.best(judged).mean(0)
    for examples, value in enumerate(ceiling.tolist()):
        run.metric("accuracy over examples", value, step=examples, arm="who knows all rules")
    run.headline("accuracy over examples")
    added = {arm: (one.result[-1] - one.result[0]).item() for arm, one in best.items()}
    for arm, value in added.items():
        run.metric("accuracy that 7 examples add", value, arm=arm)
    run.claim(
        STEEPER,
        {
            "accuracy that 7 examples add, large - small": added["large"] - added["small"],
            "accuracy that 7 examples add, large": added["large"],
            "accuracy of the smallest without an example": best["small"].result[0].item(),
            "accuracy of who knows all rules, 7 examples": ceiling[-1].item(),
        },
        tuned=list(best.values()),
    )


def network(run: Run, width: int, heads: int) -> GPT3:
    torch.manual_seed(run.seed)
    vocab, tokens = KEYS + KEYS * VALUES, 2 * EXAMPLES
    std = 0.02 * math.sqrt(768 / width)  # as large beside the width as the paper's 0.02 is at 768
    net = GPT3(vocab, context=tokens, model=width, heads=heads, layers=2, window=tokens // 2, std=std)
    return net.to(run.device, run.dtype)


def train(
    run: Run, arm: str, make: Callable[[], GPT3], rules: Rules, chosen: Tensor, judged: Tensor, rate: float
) -> tuple[float, Float[Tensor, " examples"]]:
    """Plain next-token loss, of the answers, which alone can be known; the nats on `chosen`, and the accuracy
    on `judged` by the number of examples before."""
    net = make()
    own = rate * math.sqrt(WIDTHS["small"][0] / net.tokens.embedding_dim)
    steps, generator = run.pick(smoke=2, quick=160, full=3000), run.generator("documents")
    optimizer = torch.optim.AdamW(net.parameters(), lr=own, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, own, steps + 1, pct_start=0.1)
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {own:.2g}"):
        ids, _ = rules.draw(64, generator, unrelated=run.without(UNRELATED.name))
        loss = answer_nats(net, ids.to(run.device)).mean()
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    with torch.no_grad():
        found = net(judged.to(run.device))[:, ::2].argmax(2).cpu()
        right = (found == judged[:, 1::2]).double().mean(0)
        return answer_nats(net, chosen.to(run.device)).mean().item(), right


def answer_nats(net: GPT3, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch examples"]:
    """Nats of the answer to each key."""
    return F.cross_entropy(net(ids)[:, ::2].transpose(1, 2), ids[:, 1::2], reduction="none")
