"""Deep convolutions with length and direction apart, against the same network from the same start."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..batchnorm import BatchNorm
from ..batchnorm.convolutions import Norm, fit, network
from .model import MeanOnlyBatchNorm, WeightNorm, axes, start_from_data

INVARIANCE = Claim(
    name="length apart",
    sentence="The size of v does not matter to the result, its gradient is at right angles to it, and so v "
    "only grows.",
    paper=Figure(
        "v's length grows with every update: its gradient is at right angles to w",
        where="section 2.1",
        read="secondary",
    ),
    rule=(
        Bound("largest change of the result when v is tripled", "<=", 1e-5),
        Bound("largest cosine between v and its gradient", "<=", 1e-5),
        Bound("shrunk vectors v after 20 steps of plain SGD", "==", 0.0),
    ),
    kind="identity",
    deviations="In float64, up to rounding.",
)

CONSTANT_LENGTH = Break("constant length", "No gradient goes through the division by ‖v‖.")
NO_START = Break("no start", "The layers start as they are, not from data (section 3).")
NO_MEAN = Break("no mean", "Nothing is taken off: weight normalisation stays alone.")

FASTER = Claim(
    name="faster descent",
    sentence="With length and direction apart SGD comes further in as many steps, and not only by its start.",
    paper=Figure(
        "Much of the speed-up of batch normalisation",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound("loss, weight norm / plain", "<=", 0.65, direction=1.0, ratio=True),
        Bound("loss, weight norm / same start", "<=", 0.9, direction=1.0, ratio=True),
    ),
    control="the same network without, from He's weights and from those that the start from data gives",
    control_reaches=(Bound("loss, same start", "<=", 1.5),),
    breaks=(CONSTANT_LENGTH, NO_START),
    shortcuts=("loss, plain", "loss, same start / plain"),
    chosen_on=(0, 1, 2),
    deviations="Seven convolutions on 8 × 8 digits with noise, 70 steps of 32, SGD with momentum; held-out "
    "loss, each arm at the best of five rates. Most of the gain over the plain network is the start's: see "
    "what the same start alone gives. On some seeds the network hardly learns from He's weights in so few "
    "steps, so that it is the one from the same start that must have learned.",
)

MEAN_ONLY = Claim(
    name="mean-only batch normalisation",
    sentence="Weight normalisation with the batch's mean taken off does better than weight normalisation "
    "alone, and gives most of what batch normalisation gains.",
    paper=Figure("7.31 % error on CIFAR-10, the paper's best", where="table 1", read="secondary"),
    rule=(
        Bound("loss, mean-only / weight norm", "<=", 0.8, direction=1.0, ratio=True),
        Bound("share of batch norm's gain in log loss", ">=", 0.6, direction=0.0),
    ),
    control="weight normalisation alone; the same network without, and with batch normalisation",
    control_reaches=(Bound("loss, plain / batch norm", ">=", 1.5, ratio=True),),
    breaks=(NO_MEAN,),
    chosen_on=(0, 1, 2),
    deviations="As above; compared in what it gains here, not in the error that it ends at.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(INVARIANCE):
        look_at_one_layer(run)
    if run.wants(FASTER, MEAN_ONLY):
        compare(run)


def look_at_one_layer(run: Run) -> None:
    torch.manual_seed(run.seed)
    layer = WeightNorm(nn.Linear(20, 7)).double()
    x = torch.randn(30, 20, generator=run.generator("inputs"), dtype=torch.float64)
    target = torch.randn(30, 7, generator=run.generator("targets"), dtype=torch.float64)
    before = layer(x).detach()
    with torch.no_grad():
        layer.weight_v *= 3
        change = (layer(x) - before).abs().max() / before.abs().max()
        layer.weight_v /= 3
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    cosines, lengths = [], [layer.weight_v.norm(dim=1).detach()]
    for step in run.steps(20, "one layer"):
        v = layer.weight_v.detach().clone()
        run.descend(F.mse_loss(layer(x), target), optimizer, step=step, metric="loss of one layer")
        cosines.append(F.cosine_similarity(v, layer.weight_v.grad).abs().max().item())
        lengths.append(layer.weight_v.norm(dim=1).detach())
    shrunk = torch.stack(lengths).diff(dim=0) < 0
    run.claim(
        INVARIANCE,
        {
            "largest change of the result when v is tripled": change.item(),
            "largest cosine between v and its gradient": max(cosines),
            "shrunk vectors v after 20 steps of plain SGD": float(shrunk.sum()),
        },
    )


# Convolutions

Images = Float[Tensor, "batch 1 height width"]
Make = Callable[[Images], nn.Sequential]  # images to start from, to a network

OUTPUT_STD = 0.1  # that the scores start with; the authors' later code has it, the paper does not say


class _ConstantLength(WeightNorm):
    @staticmethod
    def normalise(v: Tensor, g: Tensor) -> Tensor:
        return g * v / torch.linalg.vector_norm(v.detach(), dim=axes(v), keepdim=True)


def plain(images: Images) -> nn.Sequential:
    return network(nn.Identity)


def batch_normalised(images: Images) -> nn.Sequential:
    return network(BatchNorm)


def apart(
    images: Images, *, layer: type[WeightNorm] = WeightNorm, norm: Norm = nn.Identity, start: bool = True
) -> nn.Sequential:
    """Every layer with weights has length and direction apart, and starts from the images."""
    parts = network(norm)
    net = nn.Sequential(*(layer(p) if isinstance(p, nn.Conv2d | nn.Linear) else p for p in parts))
    if start:
        start_from_data(net.to(images), images)
        with torch.no_grad():
            net[-1].weight_g *= OUTPUT_STD
            net[-1].bias *= OUTPUT_STD
    return net


def same_start(images: Images) -> nn.Sequential:
    """The network that computes what `apart` starts with, its weights as usual."""
    started = apart(images)
    net = network(nn.Identity).to(images)
    with torch.no_grad():
        for usual, separate in zip(net, started, strict=True):
            if isinstance(separate, WeightNorm):
                usual.weight.copy_(separate.normalise(separate.weight_v, separate.weight_g))
                usual.bias.copy_(separate.bias)
    return net


def compare(run: Run) -> None:
    start = not run.without(NO_START.name)
    layer = _ConstantLength if run.without(CONSTANT_LENGTH.name) else WeightNorm
    makes: dict[str, Make] = {"plain": plain, "weight norm": partial(apart, layer=layer, start=start)}
    if run.wants(MEAN_ONLY):
        norm = nn.Identity if run.without(NO_MEAN.name) else MeanOnlyBatchNorm
        makes["mean-only"] = partial(apart, norm=norm)
    arms = run.arms(makes, control="plain")
    # What says whether anything can be judged stays as it is in a null run.
    if run.wants(FASTER):
        arms["same start"] = same_start
    if run.wants(MEAN_ONLY):
        arms["batch norm"] = batch_normalised
    rates = run.pick(smoke=(0.02,), quick=(0.006, 0.02, 0.06, 0.2, 0.6), full=(0.006, 0.02, 0.06, 0.2, 0.6))
    steps = run.pick(smoke=2, quick=70, full=600)
    best = {
        arm: run.sweep(arm, rates, partial(fit, run, arm, make, steps=steps), score="validation loss")
        for arm, make in arms.items()
    }
    run.headline("validation loss over rate")
    loss = {arm: found.result.loss for arm, found in best.items()}
    for arm, found in best.items():
        run.metric("loss on images", found.result.loss, arm=arm)
        run.metric("error on images", found.result.error, arm=arm)
    if run.wants(FASTER):
        values = {
            "loss, weight norm / plain": loss["weight norm"] / loss["plain"],
            "loss, weight norm / same start": loss["weight norm"] / loss["same start"],
            "loss, same start": loss["same start"],
            "loss, plain": loss["plain"],
            "loss, same start / plain": loss["same start"] / loss["plain"],
        }
        run.claim(FASTER, values, tuned=[best[arm] for arm in ("plain", "weight norm", "same start")])
    if run.wants(MEAN_ONLY):
        gain = {arm: math.log(loss["plain"] / loss[arm]) for arm in ("mean-only", "batch norm")}
        values = {
            "loss, mean-only / weight norm": loss["mean-only"] / loss["weight norm"],
            "share of batch norm's gain in log loss": gain["mean-only"] / gain["batch norm"],
            "loss, plain / batch norm": loss["plain"] / loss["batch norm"],
        }
        run.claim(
            MEAN_ONLY,
            values,
            tuned=[best[arm] for arm in ("plain", "weight norm", "mean-only", "batch norm")],
        )
