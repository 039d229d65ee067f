"""Computes table 1, and tests layer normalisation with small batches and with large recurrent weights."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from readtrack import data
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
    at_most,
    hookimpl,
)

from ..batchnorm import BatchNorm
from .invariances import IN_USE, KEPT, OverFeatures, changes, show
from .model import LayerNorm
from .recurrent import (
    Bias,
    Centring,
    Norm,
    Scores,
    Setting,
    attempt,
    judged_rows,
    read_off,
    score,
    sequences,
)

ALONE = Claim(
    name="independence of other examples",
    sentence="Layer normalisation's output for an example does not depend on the other examples in the "
    "batch, and is the same in training and at inference.",
    paper=Figure("There is no new dependence between training cases", where="introduction", read="text"),
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
    name="invariances",
    sentence="Layer normalisation is invariant to shifting all weights and to scaling one example, and "
    "batch normalisation is not. Batch normalisation is invariant to scaling one unit's weights, and layer "
    "normalisation is not.",
    paper=Figure("The table's rows for batch and layer normalisation", where="table 1", read="table"),
    rule=tuple(
        Bound(f"{norm}: {change}", "<=", KEPT) if invariant else Bound(f"{norm}: {change}", ">=", 0.1)
        for change, both in _INVARIANT.items()
        for norm, invariant in zip(("batch norm", "layer norm"), both, strict=True)
    ),
    kind="identity",
    control="batch normalisation",
    deviations="Invariance holds up to rounding. We leave out the ε under the root.",
)

CENTRED = Break(
    "no division", "The mean is subtracted, but there is no division by the standard deviation.", "near miss"
)
NOTHING = Break(
    "no normalisation",
    "The layer only adds a bias. Without normalisation, an example's output does not depend on other "
    "examples either.",
    "rival",
)
SCALED_START = Break(
    "orthogonal start",
    "There is no normalisation. The initial recurrent weights are an orthogonal matrix, without the factor "
    "of four.",
    "rival",
)

STEPS_OF_4 = 809  # three epochs of batches of 4

SMALL_BATCHES = Claim(
    name="loss at batches of 4, layer against batch normalisation",
    sentence="After 809 steps on batches of 4 (three epochs), a network with layer normalisation has a lower "
    "held-out loss than one with batch normalisation. The loss is at most 1.1 times that of layer "
    "normalisation after three epochs on batches of 32.",
    paper=Figure(
        "On MNIST, layer normalisation is robust to the batch size and trains faster than batch norm",
        where="section 6.6, figure 6",
        read="text",
    ),
    rule=(
        at_least("loss", "batch norm@4", 1.2, over="layer norm@4", toward=1.0),
        at_most("loss", "layer norm@4", 1.1, over="layer norm@32"),
    ),
    control="batch normalisation. For each batch size, each network uses the best of five learning rates",
    control_arm="batch norm",
    control_reaches=(at_most("loss", "batch norm@32", 0.3),),
    after_steps=STEPS_OF_4,
    breaks=(CENTRED, NOTHING, UNTRAINED),
    chosen_on=(0, 1),
    deviations="We train on 8 × 8 digits. The network has two layers of 64 units instead of 1000, and the "
    "large batches have 32 examples instead of 128. The learning rate of SGD decays to zero. We measure "
    "the held-out negative log-likelihood. Three epochs on batches of 4 take eight times as many steps as "
    "on batches of 32, which helps both normalisations and hides the cost of small batches.",
    history=(
        (
            'Until November 2026 the verdict was "weak" (2 of 5 seeds, same bounds). There was no rival, and '
            "the sentence did not state that training on small batches takes eight times as many steps. The "
            "setup was chosen on seeds 0, 1 and 2."
        ),
    ),
)

RECURRENT_STEPS = 150

RECURRENT = Claim(
    name="loss of a recurrent network from large weights, with and without",
    sentence="When the initial weights of a recurrent network are four times too large, its held-out loss "
    "after 150 steps with layer normalisation is at most a third of the loss without normalisation.",
    paper=Figure(
        "Layer normalisation is very effective at stabilizing the hidden state dynamics",
        where="abstract",
        read="abstract",
    ),
    rule=(at_least("loss", "without", 3.0, over="with", toward=1.0),),
    control="the same network with a bias in place of the normalisation",
    control_arm="without",
    control_reaches=(at_most("loss", "orthogonal, without", 0.8),),
    after_steps=RECURRENT_STEPS,
    breaks=(CENTRED, SCALED_START, UNTRAINED),
    chosen_on=(0, 1),
    deviations="We train equation 4's network, with hidden size 64, for 150 steps of Adam on digits, which "
    "it reads 4 pixels at a time. The paper trains LSTMs and GRUs on texts. By construction, normalisation "
    "removes the handicap of the large weights. From orthogonal weights, the losses with and without "
    "normalisation are nearly equal.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bound). The orthogonal '
            "start was reported, but did not count as a rival. The setup was chosen on seeds 0, 1 and 2."
        ),
    ),
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(ALONE, TABLE_1):
        table_1(run)
    small_batches(run)
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


SIZES = (32, 4)
UNEQUAL = (
    "loop lengths, step counts, updates, learning rates, how much they draw: batch "
    "sizes are compared after the same number of epochs, which favours small batches"
)
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
OVER_SIZE = "loss over examples in a batch"


def small_batches(run: Run) -> None:
    images, labels = data.digits()
    x = images.flatten(1).to(run.device, run.dtype)
    norms: dict[str, Norm] = {"layer norm": LayerNorm, "batch norm": BatchNorm}
    run.compare(
        SMALL_BATCHES,
        arms={name: Arm(norm) for name, norm in norms.items()},
        levels=dict.fromkeys(norms, SIZES),
        attempt=train,
        read=of_size,
        grid=run.pick(smoke=(0.1,), quick=RATES, full=(0.01, *RATES)),
        score="validation loss",
        breaks={CENTRED.name: {"layer norm": Arm(Centring)}, NOTHING.name: {"layer norm": Arm(Bias)}},
        world=judged_rows(run, data.parts(x, labels.to(run.device), seed=run.seed)),
        unequal=dict.fromkeys(norms, UNEQUAL),
    )
    run.headline(OVER_SIZE)


def of_size(at: Trial, found: Sweep[Scores]) -> Scores:
    at.metric(OVER_SIZE, found.chosen["loss"], step=at.level, arm=at.name.partition("@")[0])
    at.metric("error", found.chosen["error"])
    return found.chosen


def network(norm: Norm, *, width: int = 64) -> nn.Sequential:
    """Figure 6's network: two hidden layers."""
    hidden: list[nn.Module] = []
    for inputs in (64, width):
        hidden += [nn.Linear(inputs, width), norm(width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def train(at: Trial, norm: Norm, rate: float) -> tuple[float, Scores]:
    """Train with batches of the level's size. Return the validation loss and the test scores."""
    run, (x, y), size = at.run, at.world.train, at.level
    model = network(norm).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    steps = at.length(run.pick(smoke=16, quick=STEPS_OF_4, full=2697) * 4 // size)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    batches = at.generator("batches")
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(model, optimizer, decay)):
        rows = torch.randint(len(x), (size,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}")
        decay.step()
    run.phase("evaluate")
    with run.evaluating(model):
        chosen_by, judged = (score(model(images), labels) for images, labels in at.world[1:])
    return chosen_by["loss"], judged


# Section 3.1


def recurrent(run: Run) -> None:
    rates = (0.002, 0.006, 0.02, 0.06)
    table = run.compare(
        RECURRENT,
        arms={"with": Arm(Setting(LayerNorm)), "without": Arm(Setting(Bias))},
        yardsticks={
            "orthogonal, with": Arm(Setting(LayerNorm, 1.0)),
            "orthogonal, without": Arm(Setting(Bias, 1.0)),
        },
        attempt=partial(attempt, steps=run.pick(smoke=2, quick=RECURRENT_STEPS, full=1500)),
        read=read_off,
        grid=run.pick(smoke=(0.006,), quick=rates, full=(0.0006, *rates)),
        score="validation loss, recurrent",
        breaks={
            CENTRED.name: {"with": Arm(Setting(Centring))},
            SCALED_START.name: {"with": Arm(Setting(Bias, 1.0))},
        },
        world=sequences(run),
    )
    for row, loss in table.of("loss").items():
        if isinstance(loss, float):
            scale = 1.0 if row.startswith("orthogonal") else 4.0
            arm = row.removeprefix("orthogonal, ")
            run.metric("recurrent loss over the scale of the weights", loss, step=scale, arm=arm)
