"""Table 1, small batches (figure 6), and a recurrent network that starts from large weights."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..batchnorm import BatchNorm
from .invariances import IN_USE, KEPT, OverFeatures, changes, show
from .model import LayerNorm
from .recurrent import Bias, Centring, Norm, Scores, best_of_rates, score

ALONE = Claim(
    name="each example alone",
    sentence="An example's result does not depend on the other examples of its batch, and is the same in "
    "training and in use.",
    paper=Figure("No new dependence between training cases", where="introduction", read="text"),
    rule=(
        Bound("layer norm: other examples", "==", 0.0),
        Bound(f"layer norm: {IN_USE}", "==", 0.0),
        Bound("batch norm: other examples", ">", 0.1),
        Bound(f"batch norm: {IN_USE}", ">", 0.1),
    ),
    kind="identity",
    control="batch normalisation",
)

# Table 1's columns, and whether batch and layer normalisation are invariant to them.
_INVARIANT = {
    "all weights × 3": (True, True),
    "all weights + a vector": (False, True),
    "one unit's weights × 3": (True, False),
    "all examples × 3": (True, True),
    "all examples + a vector": (True, False),
    "this example × 3": (False, True),
}

TABLE_1 = Claim(
    name="table 1",
    sentence="Layer normalisation does not see its weights scaled and shifted together, nor one example "
    "scaled; batch normalisation sees those, and does not see one unit's weights scaled.",
    paper=Figure("The rows of batch and layer normalisation", where="table 1", read="table"),
    rule=tuple(
        Bound(f"{norm}: {change}", "<=", KEPT) if invariant else Bound(f"{norm}: {change}", ">=", 0.1)
        for change, both in _INVARIANT.items()
        for norm, invariant in zip(("batch norm", "layer norm"), both, strict=True)
    ),
    kind="identity",
    control="batch normalisation",
    deviations="Up to rounding; without the small number under the root.",
)

OVER_THE_BATCH = Break(
    "over the batch", "Mean and variance are those of a feature over the batch, in training and in use."
)
NO_DIVISION = Break("no division", "The mean is taken off, and nothing is divided.")

SMALL_BATCHES = Claim(
    name="small batches",
    sentence="Batches of 4 do layer normalisation no harm, and it does better with them than batch "
    "normalisation.",
    paper=Figure(
        "On MNIST robust to the batch size, and trains faster than batch normalisation",
        where="section 6.6, figure 6",
        read="text",
    ),
    rule=(
        Bound("loss at batches of 4, batch norm / layer norm", ">=", 1.2, direction=1.0, ratio=True),
        Bound("layer norm's loss, batches of 4 / of 32", "<=", 1.1, ratio=True),
    ),
    control="batch normalisation; each arm and batch size at the best of five rates",
    control_reaches=(Bound("batch norm's loss at batches of 32", "<=", 0.3),),
    breaks=(OVER_THE_BATCH,),
    chosen_on=(0, 1, 2),
    deviations="8 × 8 digits, two layers of 64 instead of 1000, batches of 32 instead of 128, three passes "
    "over the digits at either size; SGD whose rate falls to zero; held-out negative log-likelihood.",
)

RECURRENT = Claim(
    name="steady recurrent state",
    sentence="A recurrent network whose weights start too large trains, and one without normalisation does "
    "not at any rate.",
    paper=Figure(
        "Very effective at stabilizing the hidden state dynamics", where="abstract", read="abstract"
    ),
    rule=(Bound("loss from weights × 4, without / with", ">=", 3.0, direction=1.0, ratio=True),),
    control="the same network with a bias alone",
    control_reaches=(Bound("loss from orthogonal weights, without", "<=", 0.8),),
    breaks=(NO_DIVISION,),
    shortcuts=("loss from orthogonal weights, without / with",),
    chosen_on=(0, 1, 2),
    deviations="Equation 4's network of width 64 on digits, 4 pixels at a time, 150 steps of Adam, where the "
    "paper has LSTMs and GRUs on texts; from orthogonal weights it learns without normalisation, too.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(ALONE, TABLE_1):
        table_1(run)
    if run.wants(SMALL_BATCHES):
        small_batches(run)
    if run.wants(RECURRENT):
        recurrent(run)


def table_1(run: Run) -> None:
    norms = {
        "none": nn.Identity,
        "batch norm": partial(BatchNorm, eps=0.0),
        "layer norm": lambda features: OverFeatures(LayerNorm(features, eps=0.0)),
    }
    rows = {name: changes(run, norm) for name, norm in norms.items()}
    show(run, rows)
    values = {f"{name}: {change}": value for name, row in rows.items() for change, value in row.items()}
    for claim in (ALONE, TABLE_1):
        run.claim(claim, {metric: values[metric] for metric in claim.metrics})


# Figure 6


class _OverTheBatch(BatchNorm):
    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        self.train()
        return super().forward(x)


def small_batches(run: Run) -> None:
    layer = _OverTheBatch if run.without(OVER_THE_BATCH.name) else LayerNorm
    arms = run.arms({"layer norm": layer, "batch norm": BatchNorm}, control="batch norm")
    rates = run.pick(smoke=(0.1,), quick=(0.03, 0.1, 0.3, 1.0, 3.0), full=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
    best: dict[tuple[str, int], Best[Scores]] = {}
    for arm, norm in arms.items():
        for size in (32, 4):
            best[arm, size] = run.sweep(
                f"{arm}, batches of {size}",
                rates,
                lambda rate, arm=arm, norm=norm, size=size: train(run, arm, norm, size, rate),
                score="validation loss",
            )
        # Of two examples batch normalisation leaves the sign of their difference: every value is 1 or -1.
        rate = best[arm, 4].value
        best[arm, 2] = run.sweep(
            f"{arm}, batches of 2", [rate], partial(train, run, arm, norm, 2), score="validation loss"
        )
        for size in (2, 4, 32):
            run.metric("loss over examples in a batch", best[arm, size].result.loss, step=size, arm=arm)
            run.metric("error over examples in a batch", best[arm, size].result.error, step=size, arm=arm)
    run.headline("loss over examples in a batch")
    loss = {place: found.result.loss for place, found in best.items()}
    run.claim(
        SMALL_BATCHES,
        {
            "loss at batches of 4, batch norm / layer norm": loss["batch norm", 4] / loss["layer norm", 4],
            "layer norm's loss, batches of 4 / of 32": loss["layer norm", 4] / loss["layer norm", 32],
            "batch norm's loss at batches of 32": loss["batch norm", 32],
        },
        tuned=[found for (_, size), found in best.items() if size > 2],
    )


def network(norm: Norm, *, width: int = 64) -> nn.Sequential:
    """Figure 6's: two hidden layers."""
    hidden: list[nn.Module] = []
    for inputs in (64, width):
        hidden += [nn.Linear(inputs, width), norm(width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def train(run: Run, arm: str, norm: Norm, size: int, rate: float) -> tuple[float, Scores]:
    """Train with batches of `size`; the loss on digits to choose by, and the scores on the others."""
    images, labels = data.digits()
    (x, y), choose, judge = data.parts(
        images.flatten(1).to(run.device, run.dtype), labels.to(run.device), seed=run.seed
    )
    torch.manual_seed(run.seed)
    model = network(norm).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    steps = run.pick(smoke=64, quick=3 * len(x), full=10 * len(x)) // size
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    batches = run.generator("batches")
    name = f"{arm}, batches of {size}"
    run.phase("train")
    for step in run.steps(steps, f"{name}, rate {rate:g}"):
        rows = torch.randint(len(x), (size,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=name)
        decay.step()

    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        (chosen_by, _), scores = (score(model(images), labels) for images, labels in (choose, judge))
    return chosen_by, scores


# Section 3.1


def recurrent(run: Run) -> None:
    layer: Norm = Centring if run.without(NO_DIVISION.name) else LayerNorm
    arms: Mapping[str, Norm] = run.arms({"with": layer, "without": Bias}, control="without")
    rates = run.pick(
        smoke=(0.006,), quick=(0.002, 0.006, 0.02, 0.06), full=(0.0006, 0.002, 0.006, 0.02, 0.06)
    )
    found = {
        scale: best_of_rates(
            run, arms, scale=scale, rates=rates, steps=run.pick(smoke=2, quick=150, full=1500)
        )
        for scale in (1.0, 4.0)
    }
    loss = {(arm, scale): best.result.loss for scale, arms in found.items() for arm, best in arms.items()}
    for (arm, scale), value in loss.items():
        run.metric("recurrent loss over the scale of the weights", value, step=scale, arm=arm)
    run.claim(
        RECURRENT,
        {
            "loss from weights × 4, without / with": loss["without", 4.0] / loss["with", 4.0],
            "loss from orthogonal weights, without": loss["without", 1.0],
            "loss from orthogonal weights, without / with": loss["without", 1.0] / loss["with", 1.0],
        },
        tuned=[best for arms in found.values() for best in arms.values()],
    )
