"""What depth costs a plain network and gains a residual one; the sizes that the paper states."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import Block, Convolution, Shortcut, cifar, imagenet, multiply_adds, parameters

NO_SHORTCUT = Break("no shortcut", "The residual networks lose their shortcuts.")
SHORTCUT = Break("with shortcuts", "The networks that are called plain have shortcuts as well.")

SIZES = Claim(
    name="the paper's sizes",
    sentence="This folder's networks have the parameters and the multiply-adds that the paper prints, but "
    "for the multiply-adds of 50 layers: 3.86 billion, where the paper has 3.8.",
    paper=Figure(
        "0.27, 0.46, 0.66, 0.85 and 1.7 million parameters for 20 to 110 layers (table 6); 1.8, 3.6, 3.8, "
        "7.6 and 11.3 billion multiply-adds for 18 to 152 layers (table 1).",
        where="tables 1 and 6",
        read="table",
    ),
    rule=(
        Bound("parameters of table 6 that print otherwise", "==", 0),
        Bound("multiply-adds of table 1 that print otherwise, 50 layers apart", "==", 0),
    ),
    kind="identity",
    deviations="Shortcuts as the paper compares them: A for 18 and 34 layers (table 2) and on CIFAR-10, B "
    "for 50, 101 and 152. Rounded to the paper's digits; 3.86 is cut off there, or counted otherwise.",
)

LENGTH, WALLS, BATCH, STEPS = 24, 0.1, 16, 120
DEVIATIONS = (
    f"Not ImageNet but strips of {LENGTH} cells, each a wall with probability {WALLS}: one is marked, and "
    "what can be reached from it without crossing a wall is to be found. 10 layers see 9 cells to either "
    f"side. All blocks have 16 features, there are no stages; {STEPS} steps of {BATCH} new strips, so that "
    "there is nothing to overfit: with more steps the plain networks come closer. The rate falls linearly."
)

DEPTH_COSTS = Claim(
    name="what depth costs",
    sentence="With 34 layers instead of 10 a plain network trains worse, though it could do whatever the "
    "shallow one does.",
    paper=Figure(
        "Top-1 error on ImageNet with 18 and 34 plain layers: 27.94 and 28.54 %; the training error shows "
        "the same (figure 4).",
        where="table 2",
        read="secondary",
    ),
    rule=(Bound("training loss, plain, 34 layers / 10", ">=", 1.4, direction=1.05, ratio=True),),
    control="10 plain layers at their best rate of the same three",
    control_reaches=(Bound("training loss, plain, 10 layers", "<=", 0.35),),
    breaks=(SHORTCUT,),
    chosen_on=(0, 1, 2),
    deviations=DEVIATIONS,
)

DEPTH_GAINS = Claim(
    name="what depth gains",
    sentence="A residual network becomes better with depth, and better than a plain one of its depth.",
    paper=Figure(
        "Top-1 error on ImageNet with 18 and 34 layers: residual 27.88 and 25.03 %, plain 27.94 and 28.54 %.",
        where="table 2",
        read="secondary",
    ),
    rule=(
        Bound("loss on new strips, residual, 34 layers / 10", "<=", 0.6, direction=0.95, ratio=True),
        Bound("loss on new strips, 34 layers, residual / plain", "<=", 0.6, direction=0.95, ratio=True),
    ),
    control="10 residual and 34 plain layers, each at its best rate of the same three",
    control_reaches=(Bound("loss on new strips, residual, 10 layers", "<=", 0.35),),
    breaks=(NO_SHORTCUT,),
    chosen_on=(0, 1, 2),
    deviations=DEVIATIONS,
)

# As printed: billions of multiply-adds for an image of 224 × 224 pixels, millions of parameters.
TABLE_1 = {18: "1.8", 34: "3.6", 50: "3.8", 101: "7.6", 152: "11.3"}
TABLE_6 = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7"}


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZES):
        sizes(run)
    if run.wants(DEPTH_COSTS, DEPTH_GAINS):
        depth(run)


def sizes(run: Run) -> None:
    """Parameters and work of the paper's networks, without storing any."""
    run.phase("setup")
    rows: list[list[object]] = []
    with torch.device("meta"):
        for layers, printed in TABLE_6.items():
            count = parameters(cifar(layers)) / 1e6
            rows.append(["parameters, millions", layers, count, as_printed(count, printed), printed])
        for layers, printed in TABLE_1.items():
            network = imagenet(layers, shortcut="A" if layers < 50 else "B")
            work = multiply_adds(network, 224, 224) / 1e9
            rows.append(["multiply-adds, billions", layers, work, as_printed(work, printed), printed])
    run.table("sizes", ["size", "layers", "ours", "ours, rounded", "the paper's"], rows)
    differ = [(size, layers) for size, layers, _, ours, printed in rows if ours != printed]
    run.log(f"printed otherwise: {', '.join(f'{size} of {layers} layers' for size, layers in differ)}")
    work = [layers for size, layers in differ if size == "multiply-adds, billions" and layers != 50]
    values = {
        "parameters of table 6 that print otherwise": sum(size.startswith("par") for size, _ in differ),
        "multiply-adds of table 1 that print otherwise, 50 layers apart": len(work),
    }
    run.claim(SIZES, values)


def as_printed(value: float, printed: str) -> str:
    """The value with as many decimals as what is printed."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


def strips(
    count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "{count} 2 1 cells"], Float[Tensor, "{count} cells"]]:
    """Walls and the marked cell, as two features of an image of height 1; 1 where a cell can be reached."""
    wall = torch.rand(count, LENGTH, generator=generator) < WALLS
    start = torch.randint(LENGTH, (count, 1), generator=generator)
    wall.scatter_(1, start, False)
    passed = wall.cumsum(1)  # cells with as many walls to their left have none between them
    reached = (passed == passed.gather(1, start)) & ~wall
    marked = torch.zeros_like(wall).scatter_(1, start, True)
    return torch.stack((wall, marked), 1)[:, :, None].float(), reached.float()


class Marker(nn.Module):
    """Blocks of 16 features on a stem, and a score for each cell: `layers` layers with weights."""

    def __init__(self, layers: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.stem = Convolution(2, 16, 3)
        self.blocks = nn.Sequential(*(Block(16, 16, shortcut=shortcut) for _ in range((layers - 2) // 2)))
        self.score = nn.Conv2d(16, 1, 1)

    def forward(self, x: Float[Tensor, "batch 2 1 cells"]) -> Float[Tensor, "batch cells"]:
        """The log-odds that a cell can be reached."""
        return self.score(self.blocks(self.stem(x).relu()))[:, 0, 0]


class Arm(NamedTuple):
    shortcut: Shortcut
    layers: int


class Losses(NamedTuple):
    """Cross-entropies, in nats a cell: the mean over the last fifth of the steps, and on new strips."""

    training: float
    new: float


ARMS = {
    "residual, 34 layers": Arm("A", 34),
    "plain, 34 layers": Arm("none", 34),
    "residual, 10 layers": Arm("A", 10),
    "plain, 10 layers": Arm("none", 10),
}


def depth(run: Run) -> None:
    """Train each network that this run needs once, at each rate."""
    swap = {"none": "A"} if run.without(SHORTCUT.name) else {}
    swap |= {"A": "none"} if run.without(NO_SHORTCUT.name) else {}
    given = {name: Arm(swap.get(arm.shortcut, arm.shortcut), arm.layers) for name, arm in ARMS.items()}
    trained: dict[Arm, Best[Losses]] = {}

    def best(name: str, arms: dict[str, Arm]) -> Best[Losses]:
        arm = arms[name]
        if arm not in trained:
            rates = run.pick(smoke=(0.1,), quick=RATES, full=RATES)
            trained[arm] = run.sweep(name, rates, partial(train, run, name, arm), score="validation loss")
            for part, loss in trained[arm].result._asdict().items():
                run.metric(f"{part} loss", loss, arm=name)
        return trained[arm]

    if run.wants(DEPTH_COSTS):
        arms = run.arms(given, control="plain, 10 layers")
        deep, shallow = best("plain, 34 layers", arms), best("plain, 10 layers", arms)
        values = {
            "training loss, plain, 34 layers / 10": deep.result.training / shallow.result.training,
            "training loss, plain, 10 layers": shallow.result.training,
        }
        run.claim(DEPTH_COSTS, values, tuned=[deep, shallow])
    if run.wants(DEPTH_GAINS):
        arms = run.arms(given, control="residual, 10 layers")
        deep, shallow = best("residual, 34 layers", arms), best("residual, 10 layers", arms)
        plain = best("plain, 34 layers", arms)
        values = {
            "loss on new strips, residual, 34 layers / 10": deep.result.new / shallow.result.new,
            "loss on new strips, 34 layers, residual / plain": deep.result.new / plain.result.new,
            "loss on new strips, residual, 10 layers": shallow.result.new,
        }
        run.claim(DEPTH_GAINS, values, tuned=[deep, shallow, plain])
    run.headline("loss at rate 0.1")


RATES = (0.03, 0.1, 0.3)


def train(run: Run, name: str, arm: Arm, rate: float) -> tuple[float, Losses]:
    """Train one network at one rate; its loss on strips to choose by, and those that are reported."""
    torch.manual_seed(run.seed)
    network = Marker(arm.layers, arm.shortcut).to(run.device, run.dtype)
    steps = run.pick(smoke=3, quick=STEPS, full=2000)
    # Sections 3.4 and 4.2 but for the rate, which falls to 0: steps are too few for plateaus of the loss.
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator, losses = run.generator("batches"), []
    run.phase("train")
    for step in run.steps(steps, f"{name}, rate {rate:g}"):
        loss = error(network, *strips(BATCH, generator))
        losses.append(run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=name))
        schedule.step()
    run.phase("evaluate")
    last = losses[-max(steps // 5, 1) :]
    network.eval()
    with torch.no_grad():
        choose, new = (
            error(network, *strips(512, run.generator(part))).item() for part in ("choose", "judge")
        )
    return choose, Losses(sum(last) / len(last), new)


def error(
    network: Marker, x: Float[Tensor, "batch 2 1 cells"], reached: Float[Tensor, "batch cells"]
) -> Float[Tensor, ""]:
    weight = network.score.weight
    return F.binary_cross_entropy_with_logits(network(x.to(weight)), reached.to(weight))
