"""Exact likelihoods of digits by diagonals, rows and convolutions; halves of digits completed."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import DiagonalBiLSTM, PixelNetwork, ResidualBlock, RowLSTM, sample

NO_STATE = Break("no state", "Nothing is carried from one row or diagonal to the next.")

DEVIATIONS = (
    "8 × 8 digits in black and white; two recurrent layers of 16 or 17 units against six residual blocks, "
    "about 20 thousand weights each; 200 steps of 32 digits, Adam, its rate, the best of runs of 40 steps, "
    "falling to 0, in place of RMSprop; nothing is trained to its end. On so small an image the "
    "convolutions' view holds nearly everything, too."
)

CAUSAL = Claim(
    name="a likelihood",
    sentence="No pixel sees itself or a later one, in colour no red its green, no green its blue, and the "
    "probabilities of all images sum to one.",
    paper=Figure("Equation 1.", where="section 2.1", read="secondary"),
    kind="identity",
    rule=(
        Bound("largest slope of a pixel's odds by a pixel not before it", "==", 0.0),
        Bound("sum of all probabilities - 1", "<=", 1e-4),
    ),
    control="the Jacobian of all three networks, in grey and in colour; all images of 3 × 3 pixels, of 2 × 2 "
    "in colour",
)

DIAGONAL = Claim(
    name="diagonals before convolutions",
    sentence="With as many weights, the diagonal BiLSTM gives held-out digits a higher likelihood than the "
    "PixelCNN.",
    paper=Figure("3.00 bits a dimension on CIFAR-10, PixelCNN 3.14.", where="table 5", read="secondary"),
    rule=(Bound("PixelCNN's - diagonal BiLSTM's (nats a digit)", ">=", 0.2, direction=0.0),),
    control="PixelCNN: equal ends, weights in number, batches and rates, each at its best",
    control_reaches=(Bound("independent pixels' - PixelCNN's (nats a digit)", ">=", 4.0),),
    breaks=(NO_STATE,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

ROW = Claim(
    name="rows before convolutions",
    sentence="With as many weights, the row LSTM gives held-out digits a higher likelihood than PixelCNN.",
    paper=Figure("3.07 bits a dimension on CIFAR-10, PixelCNN 3.14.", where="table 5", read="secondary"),
    rule=(Bound("PixelCNN's - row LSTM's (nats a digit)", ">=", 0.1, direction=0.0),),
    control=DIAGONAL.control,
    control_reaches=DIAGONAL.control_reaches,
    breaks=(NO_STATE,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

RATES = (0.008, 0.02, 0.05)
Images = Float[Tensor, "_ 1 8 8"]


class Trained(NamedTuple):
    """A network, and the nats that it takes for a digit that it was not trained on."""

    network: PixelNetwork
    nats: float


def diagonal() -> PixelNetwork:
    return PixelNetwork(DiagonalBiLSTM, 2, 16)


def row() -> PixelNetwork:
    return PixelNetwork(RowLSTM, 2, 17)


def convolutions() -> PixelNetwork:
    return PixelNetwork(ResidualBlock, 6, 18)


class Alone(nn.Module):
    """A break: a recurrent layer for which each row, or for diagonals each place, is an image of its own."""

    def __init__(self, layer: DiagonalBiLSTM | RowLSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        batch, channels, height, width = x.shape
        wide = width if isinstance(self.layer, RowLSTM) else 1
        places = x.permute(0, 2, 3, 1).reshape(-1, 1, wide, channels).permute(0, 3, 1, 2)
        return (
            self.layer(places).permute(0, 2, 3, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        )


def without_state(make: Callable[[], PixelNetwork]) -> PixelNetwork:
    """A break: nothing goes from one row or diagonal to the next."""
    network = make()
    network.layers = nn.ModuleList([Alone(layer) for layer in network.layers])
    return network


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(CAUSAL):
        look_ahead(run)
    if not run.wants(DIAGONAL, ROW):
        return
    x = (data.digits()[0] > 0.5)[:, None].to(run.device, run.dtype)
    (train,), (choose,), (judge,) = data.parts(x, seed=run.seed)
    makers = run.arms({"diagonal": diagonal, "row": row, "PixelCNN": convolutions}, control="PixelCNN")
    if run.without(NO_STATE.name):
        makers |= {arm: partial(without_state, makers[arm]) for arm in ("diagonal", "row")}
    rates = run.pick(smoke=(0.02,), quick=RATES, full=RATES)
    best: dict[str, Best[None]] = {}
    found: dict[str, Trained] = {}
    short, long = run.pick(smoke=(1, 2), quick=(40, 200), full=(400, 2000))
    for arm, make in makers.items():
        best[arm] = run.sweep(
            arm,
            rates,
            lambda rate, arm=arm, make=make: (
                learn(run, arm, make, (train, choose), rate, short).nats,
                None,
            ),
            score="nats a digit on choose",
        )
        found[arm] = learn(run, arm, make, (train, judge), best[arm].value, long)
        run.metric("nats a digit on judge", found[arm].nats, arm=arm)
        run.metric("weights", found[arm].network.size(), arm=arm)
    ink = (train.mean(0) + 1 / len(train)) / (1 + 2 / len(train))
    independent = -torch.distributions.Bernoulli(ink).log_prob(judge).sum((1, 2, 3)).mean().item()
    run.metric("nats a digit on judge", independent, arm="independent pixels")
    theirs = found["PixelCNN"].nats
    reached = {"independent pixels' - PixelCNN's (nats a digit)": independent - theirs}
    for claim, arm, metric in (
        (DIAGONAL, "diagonal", "PixelCNN's - diagonal BiLSTM's (nats a digit)"),
        (ROW, "row", "PixelCNN's - row LSTM's (nats a digit)"),
    ):
        if run.wants(claim):
            values = {metric: theirs - found[arm].nats, **reached}
            run.claim(claim, values, tuned=[best[arm], best["PixelCNN"]])
    if not (run.null or run.broken):
        complete(run, found["diagonal"].network, judge)
    run.headline("nats a digit on choose over rate")


def look_ahead(run: Run) -> None:
    """Slopes of every pixel's odds by every pixel, and the sum over all images of nine pixels; both also for
    images of three colours."""
    torch.manual_seed(run.seed)
    worst, off = 0.0, 0.0
    grey, coloured = all_images(run, 1, 3), all_images(run, 3, 2)
    for make in (diagonal, row, convolutions):
        network = make().to(run.device, run.dtype)
        one_layer = type(network.layers[0])
        in_colour = PixelNetwork(one_layer, 1, 6, colours=3).to(run.device, run.dtype)
        for one, side, images in ((network, 8, grey), (in_colour, 3, coloured)):
            x = torch.rand(1, images.shape[1], side, side, generator=run.generator("image"))
            slopes = slopes_in_order(one, x.to(run.device, run.dtype))
            worst = max(worst, slopes.triu().abs().max().item())
            with torch.no_grad():
                off = max(off, abs(one.log_likelihood(images).exp().sum().item() - 1))
            if one is network:
                seen = (slopes[-1] != 0).sum().item()
                run.metric("pixels in view of the last of 64", seen, arm=make.__name__)
    run.claim(
        CAUSAL,
        {
            "largest slope of a pixel's odds by a pixel not before it": worst,
            "sum of all probabilities - 1": off,
        },
    )


def all_images(run: Run, colours: int, side: int) -> Float[Tensor, "n {colours} {side} {side}"]:
    """Every image of so many places, each there or not."""
    places = torch.tensor(list(itertools.product((0.0, 1.0), repeat=colours * side * side)))
    return places.view(-1, colours, side, side).to(run.device, run.dtype)


def slopes_in_order(
    network: PixelNetwork, x: Float[Tensor, "1 colours height width"]
) -> Float[Tensor, "places places"]:
    """Of every place's odds by every place, both in the order in which they are drawn."""
    slopes = torch.autograd.functional.jacobian(network, x)[0, :, :, :, 0]
    return slopes.permute(1, 2, 0, 4, 5, 3).reshape(x.numel(), x.numel())


def learn(
    run: Run,
    arm: str,
    make: Callable[[], PixelNetwork],
    parts: tuple[Images, Images],
    rate: float,
    steps: int,
) -> Trained:
    """Lower the nats a digit of the first part; those of the other, and what came of it."""
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype)
    train, other = parts
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    generator, metric = run.generator("batches"), f"nats a digit, {steps} steps, rate {rate:g}"
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    run.phase("train")
    for step in run.steps(steps, f"{arm}, {steps} steps, rate {rate:g}"):
        x = train[torch.randint(len(train), (32,), generator=generator)]
        loss = -network.log_likelihood(x).mean()
        run.descend(loss, optimizer, step=step, metric=metric, arm=arm, clip=10.0)
        decay.step()
    with torch.no_grad():
        return Trained(network, -network.log_likelihood(other).mean().item())


def complete(run: Run, network: PixelNetwork, judge: Images) -> None:
    """Figure 1: lower halves drawn to the upper ones of held-out digits; and digits drawn from nothing."""
    count = run.pick(smoke=1, quick=8, full=8)
    real, generator = judge[:count], run.generator("completions")
    drawn = sample(network, real.repeat_interleave(3, 0), 4, generator).view(count, 3, 1, 8, 8)
    occluded = real.clone()
    occluded[:, :, 4:] = 0.5
    columns = torch.cat((occluded[:, None], drawn, real[:, None]), 1)
    run.image(
        "completions",
        large(columns.transpose(0, 1).flatten(0, 1)),
        columns=count,
        caption="Top: the half that is given; three halves drawn to it; the digit itself (as in figure 1).",
    )
    whole = sample(network, torch.zeros(2 * count, 1, 8, 8).to(judge), 0, generator)
    run.image("samples", large(whole), columns=count, caption="Digits drawn from nothing, a pixel at a time.")


def large(x: Images) -> Float[Tensor, "_ 1 36 36"]:
    """Ink is black, a pixel becomes 4 × 4, and a frame parts the digits."""
    return F.pad((1 - x.float()).repeat_interleave(4, 2).repeat_interleave(4, 3), (2, 2, 2, 2), value=0.8)
