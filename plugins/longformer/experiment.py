"""The claims: the released size, questions about a whole text through a global token, and linear cost."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Growth, Run, Speedup, hookimpl

from .benchmark import pairs
from .model import Longformer

SIZE = Claim(
    name="the released size",
    sentence="The base configuration has the parameters of the released model.",
    paper=Figure(
        "RoBERTa's checkpoint with positions to 4,096 and second projections for global tokens; the paper "
        "counts no parameters, the released file holds 148,659,456",
        where="sections 3.1 and 5",
        read="text",
    ),
    rule=(Bound("parameters", "==", 148_659_456),),
    kind="identity",
)

NO_GLOBAL = Break("no global token", "The question is a token like all others.")

QUESTIONS = Claim(
    name="a global token answers for the whole text",
    sentence="With a narrow window and the question as a global token, an answer is found anywhere in the "
    "text, as with full attention, and for a fraction of its scores.",
    paper=Figure(
        "without global attention and its separate projections 8.3 points less on WikiHop; without the "
        "projections alone 1.6 less",
        where="table 10",
        read="memory",
    ),
    rule=(
        Bound("accuracy far away, global token - window alone", ">=", 0.3, direction=0.0),
        Bound("accuracy far away, full attention - global token", "<=", 0.1),
        Bound("scores at 4,096 tokens, full / band", ">=", 4.0, ratio=True),
    ),
    control="the same network with the window alone, its answer read from the mean of all tokens, so that it "
    "can see all of them but not ask; each arm at its best rate",
    control_reaches=(Bound("accuracy far away, full attention", ">=", 0.9),),
    breaks=(NO_GLOBAL,),
    chosen_on=(0, 1),
    deviations="Texts of 24 tokens with 3 facts among noise; the first token asks for one of them. One layer "
    "of width 64, a window of 2 to either side.",
)

LINEAR = Claim(
    name="linear in length",
    sentence="Time and memory of the band grow linearly with the text, and it is faster than full attention "
    "under a mask.",
    paper=Figure(
        "memory grows linearly where full attention's grows quadratically",
        where="section 3.2, figure 1",
        read="text",
    ),
    rule=(
        Growth("attention", what="time", axis="tokens", threshold=1.25),
        Growth("attention", what="memory", axis="tokens", threshold=1.1),
        Speedup("attention", over="strong", threshold=1.5, axes={"tokens": 4096}),
    ),
    control="torch's fused attention with the same mask",
)

LENGTH, WINDOW, WIDTH = 24, 2, 64
KINDS, VALUES, NOISE = 3, 6, 16
FACTS = 2 + KINDS  # tokens: 0 unused, 1 fills, then questions, facts, noise
RATES = (1e-3, 3e-3, 1e-2)

Task = tuple[Int[Tensor, "_ _"], Int[Tensor, " _"], Int[Tensor, " _"]]  # texts, answers, where they stand


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in Longformer().parameters())})
    if run.wants(QUESTIONS):
        ask(run)


def draw(count: int, generator: torch.Generator) -> Task:
    """A question (which kind?), then noise with one fact of each kind (a token of that kind and a value)."""
    ids = torch.randint(NOISE, (count, LENGTH), generator=generator) + FACTS + KINDS * VALUES
    places = torch.rand(count, LENGTH - 1, generator=generator).argsort(1)[:, :KINDS] + 1
    values = torch.randint(VALUES, (count, KINDS), generator=generator)
    ids.scatter_(1, places, FACTS + torch.arange(KINDS) * VALUES + values)
    kind = torch.randint(KINDS, (count, 1), generator=generator)
    ids[:, 0] = 2 + kind[:, 0]
    return ids, values.gather(1, kind)[:, 0], places.gather(1, kind)[:, 0]


class Reader(nn.Module):
    """An encoder whose answer is read at the question, or from the mean of all tokens.

    everywhere  the question is a global token
    """

    def __init__(self, window: int, *, everywhere: bool, pooled: bool) -> None:
        super().__init__()
        self.everywhere, self.pooled = everywhere, pooled
        sizes = {"context": LENGTH, "model": WIDTH, "heads": 4, "layers": 1}
        std = 0.02 * (768 / WIDTH) ** 0.5  # as large beside its width as the paper's 0.02 is at 768
        vocab = FACTS + KINDS * VALUES + NOISE
        self.encoder = Longformer(vocab, **sizes, window=window, std=std, dropout=0.0)
        self.output = nn.Linear(WIDTH, VALUES)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch values"]:
        hidden = self.encoder(ids, everywhere=torch.zeros_like(ids[:, :1]) if self.everywhere else None)
        return self.output(hidden.mean(1) if self.pooled else hidden[:, 0])


def ask(run: Run) -> None:
    chosen, judged = (
        draw(run.pick(smoke=60, quick=400, full=2000), run.generator(name))
        for name in ("to choose by", "to judge by")
    )
    window_alone = partial(Reader, WINDOW, everywhere=False, pooled=True)
    arms: dict[str, Callable[[], Reader]] = run.arms(
        {
            "global token": partial(Reader, WINDOW, everywhere=True, pooled=False),
            "window alone": window_alone,
        },
        control="window alone",
    )
    # What the control is judged by stays as it is, also in a null run.
    arms["full attention"] = partial(Reader, LENGTH, everywhere=False, pooled=False)
    if run.without(NO_GLOBAL.name):
        arms["global token"] = partial(Reader, WINDOW, everywhere=False, pooled=False)
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[Float[Tensor, " thirds"]]] = {}
    for arm, make in arms.items():
        attempt = partial(train, run, arm, make, chosen, judged)
        best[arm] = run.sweep(arm, rates, attempt, score="validation accuracy", keep="highest")
        for third, value in enumerate(best[arm].result.tolist()):
            place = (third + 0.5) * (LENGTH - 1) / 3
            run.metric("accuracy over distance", value, step=place, arm=arm)
    run.headline("accuracy over distance")
    far = {arm: one.result[-1].item() for arm, one in best.items()}
    with torch.device("meta"):
        window = Longformer().blocks[0].attention.window
    banded = pairs(4096, window, 1) if arms["global token"] is not window_alone else 4096**2
    run.claim(
        QUESTIONS,
        {
            "accuracy far away, global token - window alone": far["global token"] - far["window alone"],
            "accuracy far away, full attention - global token": far["full attention"] - far["global token"],
            "scores at 4,096 tokens, full / band": 4096**2 / banded,
            "accuracy far away, full attention": far["full attention"],
        },
        tuned=list(best.values()),
    )


def train(
    run: Run, arm: str, make: Callable[[], Reader], chosen: Task, judged: Task, rate: float
) -> tuple[float, Float[Tensor, " thirds"]]:
    """On fresh texts; the accuracy on `chosen`, and on `judged` by thirds of the distance to the answer."""
    torch.manual_seed(run.seed)
    reader = make().to(run.device, run.dtype)
    steps, generator = run.pick(smoke=2, quick=180, full=2000), run.generator("texts")
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        ids, answer, _ = draw(32, generator)
        loss = F.cross_entropy(reader(ids.to(run.device)), answer.to(run.device))
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    return right(run, reader, chosen).mean().item(), by_thirds(right(run, reader, judged), judged[2])


@torch.no_grad()
def right(run: Run, reader: Reader, task: Task) -> Float[Tensor, " texts"]:
    return (reader(task[0].to(run.device)).argmax(1).cpu() == task[1]).double()


def by_thirds(right: Float[Tensor, " texts"], place: Int[Tensor, " texts"]) -> Float[Tensor, " thirds"]:
    third = (place - 1) * 3 // (LENGTH - 1)
    return torch.stack([right[third == index].mean() for index in range(3)])
