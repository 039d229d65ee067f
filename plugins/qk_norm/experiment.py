"""A character model whose attention goes by dot products or by cosines, at all rates."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..attention import attention_weights, split_heads
from ..rope import RotaryAttention
from ..rope.experiment import TOKENS, Characters, Make, bigram_loss
from .model import Heads, QKNormAttention, normalised

BOUNDED = Claim(
    name="bounded scores",
    sentence="However large queries and keys grow, no score is above the learned scale: softmax does not "
    "saturate.",
    paper=Figure("Softmax is less prone to arbitrary saturation", where="abstract", read="abstract"),
    rule=(
        Bound("largest score over the scale g, queries and keys × 100", "<=", 1.0001),
        Bound("change of the weights when queries and keys grow a hundredfold", "<=", 1e-5),
        Bound("entropy of dot products' weights then, over the uniform ones'", "<=", 0.1),
    ),
    kind="identity",
    control="scaled dot products of the same vectors",
)

SCALE_1 = Break("scale 1", "The scale stays 1: no score is above 1, and no query can look at one key alone.")
UNNORMALISED = Break("unnormalised", "Dot products as they are, and the learned scale.")

QUALITY = Claim(
    name="better translations",
    sentence="At its best rate a model with cosines predicts better than one with dot products.",
    paper=Figure(
        "0.928 BLEU more on average, five low-resource translation pairs", where="abstract", read="abstract"
    ),
    rule=(Bound("loss saved at the best rate", ">=", 0.02, direction=0.0),),
    control="the same model with scaled dot products",
    control_reaches=(Bound("loss over a bigram's, dot products", "<=", 0.1),),
    breaks=(SCALE_1,),
    chosen_on=(0,),
    deviations="A causal character model of two layers and width 48 with rotary positions, windows of "
    "48, 250 steps; nats a character on another part of the text; each arm at the best of four rates. The "
    "paper's models translate, and have positions added.",
)

HIGH_RATES = Claim(
    name="high rates",
    sentence="Far above the best rate a model with cosines loses less than one with dot products.",
    paper=Figure(
        "Not this paper's: at high rates small models turn unstable like large ones, and the "
        "same remedies help (Wortsman et al.)",
        where="abstract of 2309.14322",
        read="abstract",
    ),
    rule=(
        Bound("loss lost at a rate of 0.1, cosines / dot products", "<=", 0.75, direction=1.0, ratio=True),
    ),
    control="the same model with scaled dot products",
    control_reaches=(Bound("loss lost at a rate of 0.1, dot products", ">=", 0.1),),
    breaks=(UNNORMALISED,),
    chosen_on=(0,),
    deviations="As above; what is lost is against the best of four rates.",
)

HIGH = 0.1


class Cosines(QKNormAttention):
    def __init__(self, model: int, heads: int) -> None:
        super().__init__(model, heads, tokens=TOKENS)


class _Scale1(Cosines):
    def __init__(self, model: int, heads: int) -> None:
        super().__init__(model, heads)
        self.g = nn.Parameter(torch.ones(1), requires_grad=False)


class _Unnormalised(Cosines):
    def attend(self, q: Heads, k: Heads, v: Heads, *, causal: bool) -> Heads:
        scale = self.g * q.shape[-1] ** -0.5 / self.g.detach()  # as dot products are scaled at the start
        return attention_weights(q * scale, k, causal=causal, scale=1.0) @ v


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(BOUNDED):
        grow(run)
    if run.wants(QUALITY, HIGH_RATES):
        compare(run)


def grow(run: Run) -> None:
    """Queries and keys of one layer, as they are and a hundred times larger."""
    torch.manual_seed(run.seed)
    layer = QKNormAttention(32, 4, tokens=TOKENS).to(run.device)
    x = torch.randn(2, TOKENS, 32, generator=run.generator("vectors")).to(run.device)
    with torch.no_grad():
        q, k = (split_heads(project(x), 4) for project in (layer.query, layer.key))

        def weights(size: float) -> Tensor:
            return attention_weights(normalised(q * size, layer.g), normalised(k * size), scale=1.0)

        scores = normalised(q * 100, layer.g) @ normalised(k * 100).mT
        dots = attention_weights(q * 100, k * 100)
        entropy = -(dots * dots.clamp_min(1e-30).log()).sum(-1).mean().item() / math.log(TOKENS)
        run.claim(
            BOUNDED,
            {
                "largest score over the scale g, queries and keys × 100": (
                    scores.abs().max() / layer.g
                ).item(),
                "change of the weights when queries and keys grow a hundredfold": (
                    (weights(100.0) - weights(1.0)).abs().max().item()
                ),
                "entropy of dot products' weights then, over the uniform ones'": entropy,
            },
        )


class Trained(NamedTuple):
    """loss: on the part of the text that nothing was chosen by; curve: step to training loss."""

    loss: float
    curve: dict[int, float]


def train(run: Run, arm: str, make: Make, rate: float, text: data.Parts, vocab: int) -> tuple[float, Trained]:
    """Train one arm at one rate: the loss to choose by, and what came of it."""
    steps, model_width = run.pick(smoke=3, quick=250, full=3000), run.pick(smoke=16, quick=48, full=64)
    torch.manual_seed(run.seed)
    model = make(vocab, model_width).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batches, curve = run.generator("batches"), {}
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        loss = model.loss(data.windows(text.train, TOKENS + 1, 8, batches).to(run.device))
        value = run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
        if step % 10 == 0:
            curve[step] = value

    run.phase("evaluate")
    with torch.no_grad():
        to_choose_by, to_judge = (
            model.loss(data.windows(part, TOKENS + 1, 128, run.generator(name)).to(run.device)).item()
            for name, part in (("windows to choose by", text.choose), ("windows to judge", text.judge))
        )
    return to_choose_by, Trained(to_judge, curve)


def compare(run: Run) -> None:
    cosines = Cosines
    if run.without(SCALE_1.name):
        cosines = _Scale1
    if run.without(UNNORMALISED.name):
        cosines = _Unnormalised
    attentions = {"cosines": cosines, "dot products": RotaryAttention}
    ids, alphabet = data.characters(data.text())
    text = data.stretches(ids, run.seed)
    rates = run.pick(smoke=(0.01, HIGH), quick=(0.001, 0.003, 0.01, HIGH), full=(0.001, 0.003, 0.01, HIGH))
    best: dict[str, Best[Trained]] = {}
    at_high: dict[str, float] = {}
    for arm, attention in run.arms(attentions, control="dot products").items():

        def train_at(rate: float, arm: str = arm, attention: type = attention) -> tuple[float, Trained]:
            chosen_by, trained = train(
                run,
                arm,
                lambda vocab, model: Characters(vocab, attention, None, model=model),
                rate,
                text,
                len(alphabet),
            )
            if rate == HIGH:
                at_high[arm] = trained.loss
            run.metric("held-out loss over rate", trained.loss, step=rate, arm=arm)
            return chosen_by, trained

        best[arm] = run.sweep(arm, rates, train_at, score="validation loss")
        run.metric("held-out loss", best[arm].result.loss, arm=arm)
    run.headline("held-out loss over rate")
    loss = {arm: found.result.loss for arm, found in best.items()}
    lost = {arm: at_high[arm] - loss[arm] for arm in loss}
    judged = data.windows(text.judge, TOKENS + 1, 128, run.generator("windows to judge"))
    bigram = bigram_loss(text, judged, len(alphabet))
    run.metric("held-out loss", bigram, arm="bigram")
    if run.wants(QUALITY):
        values = {
            "loss saved at the best rate": loss["dot products"] - loss["cosines"],
            "loss over a bigram's, dot products": loss["dot products"] - bigram,
        }
        run.claim(QUALITY, values, tuned=list(best.values()))
    if run.wants(HIGH_RATES):
        values = {
            "loss lost at a rate of 0.1, cosines / dot products": lost["cosines"] / lost["dot products"]
            if lost["dot products"] > 0
            else math.nan,
            "loss lost at a rate of 0.1, dot products": lost["dot products"],
        }
        run.claim(HIGH_RATES, values, tuned=list(best.values()))
