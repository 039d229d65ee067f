"""Checks that a system's views agree, reconstructs photographs, and classifies digits at a new speed."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

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

from .layers import MATRIX, ORDER, train_layers
from .model import (
    bilinear,
    convolve,
    hippo_legs,
    kernel,
    legendre,
    legs_memory,
    recurrence,
    zero_order_hold,
)

VIEWS = Claim(
    name="recurrence, convolution and differential equation",
    sentence="For both discretisations, the recurrence and the convolution compute the same function. If the "
    "input is constant between samples, the differential equation also computes this function.",
    paper=Figure("This is an identity.", where="2110.13985, section 3.1", read="text"),
    rule=(
        Bound("recurrence to convolution, bilinear", "<=", 1e-10),
        Bound("recurrence to convolution, zero-order hold", "<=", 1e-10),
        Bound("recurrence to differential equation, zero-order hold", "<=", 1e-8),
    ),
    kind="identity",
    deviations="We measure the largest difference relative to the largest output, at order 64 over 500 "
    "samples in float64. The differential equation is solved to a relative tolerance of 1e-11, at order 8 "
    "over 50 samples.",
)

MEMORY = Claim(
    name="reconstruction from the LegS state",
    sentence="The whole past can be reconstructed from the LegS state. More coefficients reduce the error, "
    "which is nearly as low as that of a fit to all samples at once.",
    paper=Figure("By construction, the coefficients are the best fit.", where="theorem 2", read="secondary"),
    rule=(
        Bound("error, 16 / 4 coefficients", "<=", 0.9, direction=1.0, ratio=True),
        Bound("error, 64 / 16 coefficients", "<=", 0.85, direction=1.0, ratio=True),
        Bound("error, 64 coefficients / best fit", "<=", 1.2, direction=2.0, ratio=True),
    ),
    kind="theorem",
    deviations="The signals are rows of two photographs. Each has 256 pixels, from which the mean is "
    "subtracted.",
    history=(
        (
            "Until November 2026 this claim was classified as measured. However, nothing is trained, and "
            "adding coefficients of an orthogonal basis can only reduce the error. The bounds are unchanged."
        ),
    ),
)

ACCURACY, SLOW = "accuracy", "accuracy at a quarter of the speed"
LOST = "accuracy lost at a quarter of the speed"
CONSTANT = Break(
    "constant step",
    "The step size does not shrink. It is always the step size for the slow sequence.",
    "near miss",
)
LEAKY = Break(
    "leaky averages",
    "The memory consists of 16 leaky averages of the input, with time constants from 1 to 256 samples.",
    "rival",
)

TIMESCALE = Claim(
    name="accuracy at a quarter of the speed, LegS and fixed step",
    sentence="After 300 steps of training, a classifier that reads the LegS state stays accurate if "
    "sequences are shown at a quarter of the training speed. A classifier that reads a memory with a fixed "
    "step size loses far more accuracy.",
    paper=Figure(
        "The accuracy is 25 to 40 points above RNN and neural ODE baselines.", "abstract", "abstract"
    ),
    rule=(
        at_least(SLOW, "LegS", 0.3, minus="fixed step", toward=0.0),
        at_most(LOST, "LegS", 0.1, toward=0.2),
        at_least(ACCURACY, "LegS", 0.75, toward=0.5),
    ),
    control="the same matrix, readout and training, but with a fixed step size. The memory spans the "
    "whole training sequence. At the slow speed, it spans only the last quarter of the sequence",
    control_arm="fixed step",
    control_reaches=(at_least(ACCURACY, "fixed step", 0.7),),
    after_steps=300,
    breaks=(CONSTANT, LEAKY, UNTRAINED),
    chosen_on=(0, 1, 2, 7101),
    deviations="We show digits pixel by pixel to an untrained memory with a linear readout of its whitened "
    "states. The paper trains a gated network on pen trajectories.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (same bounds), and there was no rival. The '
            "rival is now the diagonal of the matrix, which has no time scale either."
        ),
        (
            'Later in November 2026 the verdict was "not judged". No bound compared the two memories, and '
            "each was also passed by an untrained classifier or by the control itself. On those seeds LegS "
            "lost 0.06 of its accuracy and the fixed step 0.69. The rule now bounds the difference by 0.3, "
            "which was the bound on the fixed step's loss. The rival lost nothing, but only 66 % of its "
            "answers were right at either speed."
        ),
        (
            'The verdict was still "not judged", because an untrained classifier has no accuracy to lose. '
            "The rule now bounds the difference in accuracy at the slow speed, also by 0.3. The other two "
            "bounds are unchanged, and the seeds are new."
        ),
        (
            "Until 27 November 2026 the rival was the diagonal of the matrix. However, its 16 states are "
            "sums over the same polynomials as those of LegS, with the same shrinking step size. On seed "
            "7101 its accuracy was 0.63, and 0.85 after its correlated states had been whitened. All arms "
            "now whiten their states, and leaky averages, which have no step size that shrinks, are the "
            "rival."
        ),
    ),
)

READOUT_RATES = (0.01, 0.03, 0.1, 0.3)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("error of recall")
    if run.wants(VIEWS):
        hold_views_together(run)
    if run.wants(MEMORY):
        recall_photographs(run)
    read_digits_at_any_speed(run)
    if run.wants(MATRIX):
        train_layers(run)


# Three views


def hold_views_together(run: Run) -> None:
    generator = run.generator("signals and readouts")

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    a, b = hippo_legs(64)
    c, u, step = draw(64), draw(3, 500), torch.tensor(0.01, dtype=torch.float64)
    values = {}
    for name, method in (("bilinear", bilinear), ("zero-order hold", zero_order_hold)):
        system = *method(-a, b, step), c
        by_steps = recurrence(*system, u)
        difference = (by_steps - convolve(u, kernel(*system, u.shape[-1]))).abs().max() / by_steps.abs().max()
        values[f"recurrence to convolution, {name}"] = difference.item()
    a, b = hippo_legs(8)
    c, u = draw(8), draw(50)
    by_steps = recurrence(*zero_order_hold(-a, b, step), c, u)
    difference = (by_steps - solve(-a, b, c, u, step.item())).abs().max() / by_steps.abs().max()
    values["recurrence to differential equation, zero-order hold"] = difference.item()
    for name, value in values.items():
        run.metric("largest difference", value, arm=name)
    run.claim(VIEWS, values)


def solve(
    a: Float[Tensor, "order order"],
    b: Float[Tensor, " order"],
    c: Float[Tensor, " order"],
    u: Float[Tensor, " time"],
    step: float,
) -> Float[Tensor, " time"]:
    """Solve dx/dt = a x + b u from x = 0 with SciPy, and return y = c·x at the end of each sample."""
    from scipy.integrate import solve_ivp

    matrix, vector = a.numpy(), b.numpy()
    state, outputs = torch.zeros(len(b), dtype=torch.float64).numpy(), []
    for sample in u.tolist():
        drive = vector * sample
        solution = solve_ivp(
            lambda _, x, d=drive: matrix @ x + d, (0, step), state, method="DOP853", rtol=1e-11, atol=1e-13
        )
        state = solution.y[:, -1]
        outputs.append(c @ torch.from_numpy(state))
    return torch.stack(outputs)


# The memory of a photograph


def uncoupled_memory(order: int, time: int) -> Float[Tensor, "order time"]:
    """`legs_memory` with only the matrix's diagonal, where coefficient n weights the past by x^n."""
    _, b = hippo_legs(order)
    ends = torch.arange(time + 1, dtype=torch.float64) / time
    powers = ends ** torch.arange(1, order + 1, dtype=torch.float64)[:, None]
    return powers.diff(dim=1) / torch.arange(1, order + 1)[:, None] * b[:, None]


def recall(signals: Tensor, order: int, memory: Callable[[int, int], Tensor]) -> Tensor:
    """Reconstruct the rows of `signals` from states of `order` coefficients."""
    time = signals.shape[1]
    return signals @ memory(order, time).mT @ legendre(order, time).mT


def recall_photographs(run: Run) -> None:
    pixels = data.photographs().mean(1).double()
    count, time = run.pick(smoke=4, quick=64, full=400), 256
    rows = torch.randint(pixels.shape[1], (count,), generator=run.generator("rows"))
    signals = pixels[:, rows, :time].flatten(0, 1)
    signals = signals - signals.mean(1, keepdim=True)
    run.axes("error of recall", x="coefficients")
    errors, best = {}, math.nan
    for order in (4, 16, 64):
        basis = torch.linalg.qr(legendre(order, time))[0]
        best = ((signals @ basis @ basis.mT - signals).norm() / signals.norm()).item()
        for arm, memory in (("HiPPO", legs_memory), ("its diagonal", uncoupled_memory)):
            error = ((recall(signals, order, memory) - signals).norm() / signals.norm()).item()
            errors[arm, order] = error
            run.metric("error of recall", error, step=order, arm=arm)
        run.metric("error of recall", best, step=order, arm="best fit")
    small, middle, large = (errors["HiPPO", order] for order in (4, 16, 64))
    run.metric("error of recall with 64", large)
    values = {
        "error with 4": small,
        "error, 16 / 4 coefficients": middle / small,
        "error, 64 / 16 coefficients": large / middle,
        "error, 64 coefficients / best fit": large / best,
    }
    run.claim(MEMORY, values)
    temple = data.photographs(128)[0].mean(0).double()
    caption = (
        f"A temple. On the right, each row of {temple.shape[1]} pixels is rebuilt from 64 LegS coefficients."
    )
    run.image("memory", torch.cat((temple, recall(temple, 64, legs_memory)), 1), caption=caption)


# Digits at another speed


def leaky_averages(order: int, time: int, longest: int) -> Float[Tensor, "order time"]:
    """Averages that weight the past exponentially. Their time constants rise from 1 to `longest` samples."""
    constants = torch.logspace(0, math.log10(longest), order, dtype=torch.float64)[:, None]
    age = torch.arange(time - 1, -1, -1, dtype=torch.float64)
    return torch.exp(-age / constants) / constants


def fixed_step_memory(order: int, time: int, reach: int) -> Float[Tensor, "order time"]:
    """Like `legs_memory`, but with a fixed step size of 1 / reach, which weights the past exponentially."""
    a, b = hippo_legs(order)
    a, b = bilinear(-a, b, torch.tensor(1 / reach, dtype=torch.float64))
    columns = [b]
    for _ in range(time - 1):
        columns.append(a @ columns[-1])
    return torch.stack(columns[::-1], 1)


TIME, SLOWER = 64, 4
Memory = Callable[[int, int], Float[Tensor, "order time"]]
Classifier = Callable[[Tensor], Tensor]  # maps pixels over time to scores


def read_digits_at_any_speed(run: Run) -> None:
    images, labels = data.digits()
    parts = data.parts(images.flatten(1).double(), labels, seed=run.seed)
    rows = run.rows(len(parts.judge[0]), "judge")
    run.compare(
        TIMESCALE,
        arms={"LegS": Arm(legs_memory), "fixed step": Arm(partial(fixed_step_memory, reach=TIME))},
        attempt=train_readout,
        read=at_both_speeds,
        grid=READOUT_RATES,
        score="validation accuracy",
        keep="highest",
        breaks={
            CONSTANT.name: {"LegS": Arm(partial(fixed_step_memory, reach=SLOWER * TIME))},
            LEAKY.name: {"LegS": Arm(partial(leaky_averages, longest=SLOWER * TIME))},
        },
        world=parts._replace(judge=(parts.judge[0][rows], parts.judge[1][rows])),
    )


class Readout(NamedTuple):
    """Maps sequences to scores of the digits. A class, because checkpoints cannot store a local function.

    mean, whitening  of the states of the training sequences
    """

    memory: Memory
    mean: Float[Tensor, " order"]
    whitening: Float[Tensor, "order order"]
    layer: nn.Linear

    def __call__(self, sequences: Float[Tensor, "count time"]) -> Float[Tensor, "count 10"]:
        return self.scores(sequences @ self.memory(ORDER, sequences.shape[1]).mT)

    def scores(self, states: Float[Tensor, "count order"]) -> Float[Tensor, "count 10"]:
        return self.layer(((states - self.mean) @ self.whitening).to(self.layer.weight))


def whitening(states: Float[Tensor, "count order"]) -> Float[Tensor, "order order"]:
    """The matrix that makes centred states uncorrelated, with variance 1."""
    _, s, v = torch.linalg.svd(states, full_matrices=False)
    return v.mT / s * len(states) ** 0.5


def train_readout(at: Trial, memory: Memory, rate: float) -> tuple[float, Classifier]:
    """Fit softmax regression to whitened states, and return its validation accuracy and the classifier."""
    run, (pixels, labels) = at.run, at.world.train
    states = pixels @ memory(ORDER, TIME).mT
    mean = states.mean(0)
    readout = nn.Linear(ORDER, 10).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(readout.parameters(), lr=rate)
    name = f"{at.name}, rate {rate:g}"

    classifier = Readout(memory, mean, whitening(states - mean), readout)
    steps, labels = at.length(run.pick(smoke=2, quick=300, full=1000)), labels.to(run.device)
    run.phase("train")
    for step in at.steps(steps, f"any speed, {name}", state=(readout, optimizer)):
        loss = F.cross_entropy(classifier.scores(states), labels)
        at.descend(loss, optimizer, step=step, metric="loss of the readout", arm=name)
    run.phase("evaluate")
    return correct(classifier, *at.world.choose).mean().item(), classifier


def at_both_speeds(at: Trial, found: Sweep[Classifier]) -> dict[str, Tensor]:
    """Whether each digit is classified correctly, and the accuracy lost at a quarter of the speed."""
    pixels, labels = at.world.judge
    fast = correct(found.chosen, pixels, labels)
    slow = correct(found.chosen, pixels.repeat_interleave(SLOWER, 1), labels)
    at.metric("accuracy", fast.mean().item())
    at.metric(SLOW, slow.mean().item())
    return {ACCURACY: fast, SLOW: slow, LOST: fast - slow}


@torch.no_grad()
def correct(
    classify: Classifier, pixels: Float[Tensor, "count time"], labels: Int[Tensor, " count"]
) -> Float[Tensor, " count"]:
    """1 for each digit that is classified correctly, else 0."""
    return (classify(pixels).argmax(-1).cpu() == labels).double()
