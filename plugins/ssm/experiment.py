"""The views of one system, the memory of a photograph, and digits at another speed."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

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
    name="three views",
    sentence="Recurrence and convolution are the same function of a system, however it was discretised; and "
    "where the input stands still between samples, so is the differential equation.",
    paper=Figure("An identity.", where="2110.13985, section 3.1", read="secondary"),
    rule=(
        Bound("recurrence to convolution, bilinear", "<=", 1e-10),
        Bound("recurrence to convolution, zero-order hold", "<=", 1e-10),
        Bound("recurrence to differential equation, zero-order hold", "<=", 1e-8),
    ),
    kind="identity",
    deviations="Largest differences, relative to the largest output: order 64, 500 samples, float64; the "
    "equation is solved to a relative tolerance of 1e-11, at order 8 over 50 samples.",
)

MEMORY = Claim(
    name="memory",
    sentence="The state recalls the whole past, the better the more coefficients it has, and nearly as well "
    "as a fit to all samples at once.",
    paper=Figure("By construction the coefficients are the best fit.", where="theorem 2", read="secondary"),
    rule=(
        Bound("error with 16 / with 4", "<=", 0.9, direction=1.0, ratio=True),
        Bound("error with 64 / with 16", "<=", 0.85, direction=1.0, ratio=True),
        Bound("error with 64 / of the best fit", "<=", 1.2, direction=2.0, ratio=True),
    ),
    control="four coefficients",
    breaks=(Break("no coupling", "Of the matrix only the diagonal is left: each coefficient for itself."),),
    chosen_on=(0, 1, 2),
    deviations="Rows of two photographs, 256 pixels each, their mean taken off.",
)

TIMESCALE = Claim(
    name="no time scale",
    sentence="A classifier of the state still works when the sequence is shown at a speed that it was not "
    "trained on, where a memory of fixed step fails.",
    paper=Figure("25 to 40 points of accuracy above RNN and neural ODE baselines.", "abstract", "abstract"),
    rule=(
        Bound("accuracy lost at a quarter of the speed, LegS", "<=", 0.1, direction=0.2),
        Bound("accuracy lost at a quarter of the speed, fixed step", ">=", 0.3, direction=0.2),
        Bound("accuracy, LegS", ">=", 0.75, direction=0.5),
    ),
    control="the same matrix with a fixed step, its reach the training sequence: same readout, same training",
    control_reaches=(Bound("accuracy, fixed step", ">=", 0.7),),
    breaks=(Break("constant step", "The step does not shrink: it is that of the slow sequence."),),
    chosen_on=(0, 1, 2),
    deviations="Digits shown pixel by pixel, a state that is not trained and a linear readout; the paper "
    "has a gated network on pen trajectories.",
)

READOUT_RATES = (0.03, 0.1, 0.3, 1.0)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("error of recall")
    if run.wants(VIEWS):
        hold_views_together(run)
    if run.wants(MEMORY):
        recall_photographs(run)
    if run.wants(TIMESCALE):
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
    """dx/dt = a x + b u, y = c·x, from x = 0, by SciPy's solver: y at the end of each sample's interval."""
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
    """As `legs_memory`, of the diagonal alone: in closed form, for coefficient n weighs the past by x^n."""
    _, b = hippo_legs(order)
    ends = torch.arange(time + 1, dtype=torch.float64) / time
    powers = ends ** torch.arange(1, order + 1, dtype=torch.float64)[:, None]
    return powers.diff(dim=1) / torch.arange(1, order + 1)[:, None] * b[:, None]


def recall(signals: Tensor, order: int, memory: Callable[[int, int], Tensor]) -> Tensor:
    """What states of `order` coefficients recall of the rows of `signals`."""
    time = signals.shape[1]
    return signals @ memory(order, time).mT @ legendre(order, time).mT


def recall_photographs(run: Run) -> None:
    pixels = data.photographs().mean(1).double()
    count, time = run.pick(smoke=4, quick=64, full=400), 256
    rows = torch.randint(pixels.shape[1], (count,), generator=run.generator("rows"))
    signals = pixels[:, rows, :time].flatten(0, 1)
    signals = signals - signals.mean(1, keepdim=True)
    memory = uncoupled_memory if run.without("no coupling") else legs_memory
    arms = run.arms({f"with {order}": order for order in (4, 16, 64)}, control="with 4")
    errors = {
        arm: ((recall(signals, order, memory) - signals).norm() / signals.norm()).item()
        for arm, order in arms.items()
    }
    run.axes("error of recall", x="coefficients")
    for arm, order in arms.items():
        basis = torch.linalg.qr(legendre(order, time))[0]
        best = ((signals @ basis @ basis.mT - signals).norm() / signals.norm()).item()
        run.metric("error of recall", errors[arm], step=order, arm="HiPPO")
        run.metric("error of recall", best, step=order, arm="best fit")
    run.metric("error of recall with 64", errors["with 64"])
    values = {
        "error with 4": errors["with 4"],
        "error with 16 / with 4": errors["with 16"] / errors["with 4"],
        "error with 64 / with 16": errors["with 64"] / errors["with 16"],
        "error with 64 / of the best fit": errors["with 64"] / best,
    }
    run.claim(MEMORY, values)
    temple = data.photographs(128)[0].mean(0).double()
    caption = (
        f"A temple; right, each row of {temple.shape[1]} pixels as a state of 64 coefficients recalls it."
    )
    run.image("memory", torch.cat((temple, recall(temple, 64, memory)), 1), caption=caption)


# Digits at another speed


def fixed_step_memory(order: int, time: int, reach: int) -> Float[Tensor, "order time"]:
    """As `legs_memory`, for the same matrix with a step of 1 / reach: it weighs the past exponentially."""
    a, b = hippo_legs(order)
    a, b = bilinear(-a, b, torch.tensor(1 / reach, dtype=torch.float64))
    columns = [b]
    for _ in range(time - 1):
        columns.append(a @ columns[-1])
    return torch.stack(columns[::-1], 1)


def read_digits_at_any_speed(run: Run) -> None:
    images, labels = data.digits()
    parts = data.parts(images.flatten(1).double(), labels, seed=run.seed)
    time, slower = 64, 4
    legs = legs_memory
    if run.without("constant step"):
        legs = partial(fixed_step_memory, reach=slower * time)
    memories = run.arms(
        {"LegS": legs, "fixed step": partial(fixed_step_memory, reach=time)}, control="fixed step"
    )
    values, best = {}, {}
    for arm, memory in memories.items():
        fast, slow = memory(ORDER, time).mT, memory(ORDER, slower * time).mT
        (train, train_labels), (choose, choose_labels), (judge, judge_labels) = parts
        best[arm] = run.sweep(
            arm,
            READOUT_RATES,
            partial(train_readout, run, arm, (train @ fast, train_labels), (choose @ fast, choose_labels)),
            score="accuracy on choose",
            keep="highest",
        )
        states = {
            "accuracy": judge @ fast,
            "accuracy at a quarter of the speed": judge.repeat_interleave(slower, 1) @ slow,
        }
        found = {name: accuracy(best[arm].result, state, judge_labels) for name, state in states.items()}
        for name, value in found.items():
            run.metric(name, value, arm=arm)
        values[f"accuracy, {arm}"], then = found.values()
        values[f"accuracy lost at a quarter of the speed, {arm}"] = values[f"accuracy, {arm}"] - then
    run.claim(TIMESCALE, values, tuned=list(best.values()))


Classifier = Callable[[Tensor], Tensor]  # inputs, anywhere and in any precision, to scores
Labelled = tuple[Tensor, Int[Tensor, " _"]]


def accuracy(classify: Classifier, inputs: Tensor, labels: Int[Tensor, " count"]) -> float:
    with torch.no_grad():
        return (classify(inputs).argmax(-1).cpu() == labels).double().mean().item()


def train_readout(
    run: Run, arm: str, train: Labelled, choose: Labelled, rate: float
) -> tuple[float, Classifier]:
    """Softmax regression on normalised states: its accuracy on `choose`, and the classifier."""
    mean, std = train[0].mean(0), train[0].std(0)
    torch.manual_seed(run.seed)
    readout = nn.Linear(ORDER, 10).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(readout.parameters(), lr=rate)
    name = f"{arm}, rate {rate:g}"

    def scores(states: Tensor) -> Tensor:
        return readout(((states - mean) / std).to(run.device, run.dtype))

    run.phase("train")
    for step in run.steps(run.pick(smoke=2, quick=300, full=1000), f"any speed, {name}"):
        loss = F.cross_entropy(scores(train[0]), train[1].to(run.device))
        run.descend(loss, optimizer, step=step, metric="loss of the readout", arm=name)
    run.phase("evaluate")
    return accuracy(scores, *choose), scores
