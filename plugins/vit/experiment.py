"""What a ViT lacks with few images and with many, beside convolutions of equal cost; what positions give."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.plugin import Arm, Bound, Break, Claim, Figure, Run, Sweep, Trial, at_least, at_most, hookimpl

from ..alexnet.task import CLASSES, SIDE, Pictures, error
from .model import HUGE, LARGE, Block, Positions2D, ViT, attention_distance, rollout

SHUFFLED = Break("shuffled pixels", "The pixels of all images are in another order, the same for all images.")
NO_POSITIONS = Break("no positions", "No ViT is told where its patches were.")

SIZE = Claim(
    name="size",
    sentence="ViT-B/16 without its head has 86 million parameters and ViT-H/14 with its head 632; ViT-L/16 "
    "has 304 where the paper says 307.",
    paper=Figure("86, 307 and 632 million parameters", where="table 1", read="table"),
    rule=(
        Bound("parameters of ViT-B/16 without its head, in millions", "==", 86),
        Bound("parameters of ViT-L/16, in millions", "==", 304),
        Bound("parameters of ViT-H/14, in millions", "==", 632),
    ),
    kind="identity",
    deviations="The paper does not say which patches and heads its table counts. Ours: 1,000 classes.",
)

FIGURE_4 = (
    "ViT-B/32, slightly faster than ResNet50, is much worse when trained on 9 million images, better on 90 "
    "million and more"
)
DEVIATIONS = (
    "Not JFT but pictures of 16 × 16 with one of five digits, 9 to 11 pixels high, anywhere on a dark "
    "photograph. The ViT has two blocks of width 48 and patches of 4 × 4, the convolutional network six "
    "layers of 3 × 3 with group normalisation; both learn in equally many steps of 32 images, "
    "150 with few images and 400 with many. "
)

EQUAL_COST = (
    Bound("multiply-adds, ViT / convolutions", ">=", 0.95),
    Bound("multiply-adds, ViT / convolutions", "<=", 1.05),
)

FEW = Claim(
    name="few images",
    sentence="Trained on 300 images, a ViT errs more than convolutions of as many multiply-adds.",
    paper=Figure(FIGURE_4, where="section 4.3 and figure 4", read="text"),
    rule=(
        at_least(
            "error",
            "ViT",
            1.4,
            over="convolutions",
            toward=1.1,
            called="error with few images, ViT / convolutions",
        ),
    ),
    control_arm="convolutions",
    control="the convolutional network, at its best of the same rates",
    control_reaches=(at_most("error", "convolutions", 0.6, called="error with few images, convolutions"),),
    guards=EQUAL_COST,
    breaks=(SHUFFLED,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

MANY = Claim(
    name="many images",
    sentence="Trained on many images, a ViT errs no more than convolutions of as many multiply-adds.",
    paper=FEW.paper,
    rule=(
        at_most(
            "error",
            "ViT",
            0.95,
            over="convolutions",
            toward=1.1,
            called="error with many images, ViT / convolutions",
        ),
    ),
    control_arm="convolutions",
    control="the convolutional network, at its best of the same rates",
    control_reaches=(at_most("error", "convolutions", 0.25, called="error with many images, convolutions"),),
    guards=EQUAL_COST,
    breaks=(NO_POSITIONS,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "Many are as many as the steps can show, 12,800, none of them twice: nothing is "
    "learnt by heart. The convolutions fit them, a ViT needs far more steps.",
)

POSITIONS = Claim(
    name="positions",
    sentence="A ViT that is told where its patches were errs less than one whose patches are a set.",
    paper=Figure(
        "ImageNet, linear classifier on five images a class: 61.4 % without positions, 64.2 % with",
        where="table 8",
        read="table",
    ),
    rule=(at_most("error", "1-D", 0.7, over="none", toward=0.95),),
    control_arm="none",
    control="the same ViT without positions, at its best of the same rates",
    control_reaches=(at_most("error", "none", 0.6, called="error without positions"),),
    breaks=(NO_POSITIONS,),
    chosen_on=(0, 1),
    deviations="The digits are 11 to 14 pixels high and stand in the middle; 3,200 images, none twice, in "
    "100 steps. Two-dimensional positions are shown at the rate of the one-dimensional.",
)

# A grid for both arms of each claim: a ViT wants lower rates than convolutions, a set of patches higher ones.
RATES = {
    "few images": (0.0005, 0.0015, 0.005, 0.015),
    "many images": (0.0006, 0.0025, 0.01, 0.04),
    "positions": (0.0025, 0.005, 0.01, 0.02),
}
FEW_IMAGES = 300
DARK = 0.1  # what the photographs are multiplied by
MEAN = 0.1  # about that of all pixels

SmallViT = partial(ViT, side=SIDE, patch=4, model=48, heads=4, layers=2, hidden=96, classes=CLASSES)


class ConvNet(nn.Sequential):
    """Six 3 × 3 convolutions with group normalisation, the average over all places, a linear classifier."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, maps, stride in ((3, 8, 1), (8, 8, 1), (8, 20, 2), (20, 20, 1), (20, 30, 2), (30, 30, 1)):
            layers += [nn.Conv2d(inputs, maps, 3, stride=stride, padding=1), nn.GroupNorm(2, maps), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(30, CLASSES))


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        count(run)
    few, many = run.pick(smoke=(2, 2), quick=(150, 400), full=(10_000, 10_000))
    if run.wants(FEW, MANY):
        splits = draw_splits(run, 32 * many, moved=True)
        known = Pictures(splits.known.x[:FEW_IMAGES], splits.known.y[:FEW_IMAGES])
        compare(run, FEW, "few", splits._replace(known=known), few)
        compare(run, MANY, "many", splits, many)
    if run.wants(POSITIONS):
        place(run)
    run.headline("error over number of images")


def size(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def count(run: Run) -> None:
    run.phase("setup")
    with torch.device("meta"):
        base, large, huge = ViT(), ViT(**LARGE), ViT(**HUGE)
    sizes = {"ViT-B/16": size(base), "ViT-L/16": size(large), "ViT-H/14": size(huge)}
    run.table("table 1", ["network", "parameters"], [[name, found] for name, found in sizes.items()])
    values = {
        "parameters of ViT-B/16 without its head, in millions": round((size(base) - size(base.head)) / 1e6),
        "parameters of ViT-L/16, in millions": round(size(large) / 1e6),
        "parameters of ViT-H/14, in millions": round(size(huge) / 1e6),
    }
    run.claim(SIZE, values)


def multiply_adds(network: nn.Module) -> int:
    """For one image: of convolutions and linear layers, and of attention's two products."""
    found = 0

    def add(layer: nn.Module, _: object, result: Tensor) -> None:
        nonlocal found
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found += layer.weight[0].numel() * result[0].numel()
        elif isinstance(layer, Block):
            _, tokens, model = result.shape
            found += 2 * tokens**2 * model

    hooks = [layer.register_forward_hook(add) for layer in network.modules()]
    with torch.no_grad():
        network(next(network.parameters()).new_zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return found


def pictures(run: Run, part: scenes.Part, count: int, *, moved: bool) -> Pictures:
    """Digits on dark photographs: anywhere, or larger in the middle."""
    settings = (
        {"level": "photo", "digit": (9.0, 11.0)} if moved else {"level": "iconic", "digit": (11.0, 14.0)}
    )
    seed = run.data_seed(part)
    drawn = scenes.draw(count, seed, part, **settings, size=SIDE, classes=CLASSES, dim=DARK)
    return Pictures((drawn.images - MEAN).to(run.device, run.dtype), drawn.labels[:, 0].to(run.device))


class Splits(NamedTuple):
    known: Pictures
    choose: Pictures
    judge: Pictures


def draw_splits(run: Run, count: int, *, moved: bool) -> Splits:
    held_out = run.pick(smoke=50, quick=1000, full=4000)
    counts: dict[scenes.Part, int] = {"train": count, "choose": held_out, "judge": held_out}
    return Splits(*(pictures(run, part, n, moved=moved) for part, n in counts.items()))


def shuffled(order: Int64[Tensor, " pixels"], splits: Splits) -> Splits:
    """The same pictures with their pixels in another order."""

    def moved(known: Pictures) -> Pictures:
        return known._replace(x=known.x.flatten(2)[:, :, order].unflatten(2, (SIDE, SIDE)))

    return Splits(*map(moved, splits))


def learn(
    label: str, steps: int, at: Trial, make: Callable[[], nn.Module], rate: float
) -> tuple[float, nn.Module]:
    """The error to choose by, and the network; its rate rises for twenty steps and then falls to 0."""
    run, splits, label = at.run, at.world, f"{label} at rate {rate:g}"
    network = make().to(run.device, run.dtype).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 20) * (1 - s / steps))
    batches = at.generator("batches")
    run.phase("train")
    for step in at.steps(steps, f"{at.name}{label}"):
        rows = torch.randint(len(splits.known.x), (32,), generator=batches)
        loss = F.cross_entropy(network(splits.known.x[rows]), splits.known.y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss{label}")
        schedule.step()
    run.phase("evaluate")
    return error(network.eval(), splits.choose), network


def judged(at: Trial, found: Sweep[nn.Module]) -> dict[str, float]:
    """The errors on new pictures and on the first thousand to learn from; one in ten thousand at least."""
    splits = at.world
    known = Pictures(splits.known.x[:1000], splits.known.y[:1000])
    new, old = (error(found.chosen, part) for part in (splits.judge, known))
    return {"error": max(new, 1e-4), "training error": old}


def compare(run: Run, claim: Claim, amount: str, splits: Splits, steps: int) -> None:
    """ViT and convolutions, on few images again and again or on many that are seen once."""
    grid, order = RATES[claim.name], torch.randperm(SIDE**2, generator=run.data("order of pixels", "world"))
    table = run.compare(
        claim,
        arms={"ViT": Arm(SmallViT), "convolutions": Arm(ConvNet)},
        attempt=partial(learn, f", {amount} images", steps),
        read=judged,
        grid=run.pick(smoke=grid[1:2], quick=grid, full=grid),
        score=f"error on choose with {amount} images",
        references={
            "": {"multiply-adds, ViT / convolutions": multiply_adds(SmallViT()) / multiply_adds(ConvNet())}
        },
        breaks={
            name: change
            for name, change in {
                SHUFFLED.name: partial(shuffled, order),
                NO_POSITIONS.name: {"ViT": Arm(partial(SmallViT, positions=None))},
            }.items()
            if name in {one.name for one in claim.breaks}
        },
        world=splits,
    )
    for arm, found in table.of("error").items():
        run.metric("error over number of images", found, step=len(splits.known.x), arm=arm)


def place(run: Run) -> None:
    """With positions and without, and what a ViT that has them looks at."""
    steps = run.pick(smoke=2, quick=100, full=5000)
    splits, grid = draw_splits(run, 32 * steps, moved=False), RATES["positions"]
    none = Arm(partial(SmallViT, positions=None))
    table = run.compare(
        POSITIONS,
        arms={"1-D": Arm(SmallViT), "none": none, "2-D": Arm(partial(SmallViT, positions=Positions2D))},
        attempt=partial(learn, ", positions", steps),
        read=judged,
        grid=run.pick(smoke=grid[1:2], quick=grid, full=grid),
        score="error on choose, by positions",
        breaks={NO_POSITIONS.name: {"1-D": none}},
        world=splits,
    )
    for arm, found in table.of("error").items():
        run.metric("error, by positions", found, arm=arm)
    if not (run.null or run.broken):
        show(run, table.sweeps["1-D"].chosen, splits.judge)


@torch.no_grad()
def show(run: Run, network: ViT, judge: Pictures) -> None:
    """Attention from the class token (figure 6), likeness of positions and attention's reach (figure 7)."""
    x = judge.x[:20]
    attentions = network.attentions(x)
    grid = SIDE // network.patch
    maps = rollout(attentions).unflatten(1, (1, grid, grid))
    maps = F.interpolate(maps, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    maps = maps / maps.amax((2, 3), keepdim=True)
    seen = (x + MEAN).clamp(0, 1)
    rows = [part for ten in (0, 10) for part in (seen[ten : ten + 10], (seen * maps)[ten : ten + 10])]
    caption = "Pictures; below each, as bright as the class token looks there (attention rollout)."
    run.image("attention", enlarged(torch.cat(rows), 4), columns=min(10, len(x)), caption=caption)
    vectors = F.normalize(network.positions(grid, grid)[1:], dim=1)
    likeness = (vectors @ vectors.T).unflatten(1, (1, grid, grid))
    caption = "Cosine of each patch's position with all others'; black is -1, white 1."
    run.image("positions", enlarged((likeness + 1) / 2, 12), columns=grid, caption=caption)
    rows = [
        [block, head, round(distance, 3)]
        for block, weights in enumerate(attentions, 1)
        for head, distance in enumerate(attention_distance(weights, grid, grid).tolist(), 1)
    ]
    run.table("how far a patch looks", ["block", "head", "patches"], rows)


def enlarged(images: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c H W"]:
    return images.cpu().float().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
