"""Checks that recurrence and convolution agree, and compares HiPPO and random matrices on pixel sequences."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
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
    Speedup,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)

from ..ssm import hippo_legs
from ..ssm.layers import correct
from .model import (
    DPLR,
    S4,
    diagonalised,
    hippo_dplr,
    kernel_by_cauchy,
    kernel_by_powers,
    recurrent_c,
    whole,
)

VIEWS = Claim(
    name="equivalence of DPLR form, kernel and recurrence",
    sentence="The diagonal plus low-rank form is equivalent to HiPPO's matrix. The kernel computed with "
    "Cauchy sums equals the kernel computed from powers of the matrix, and the layer's recurrence gives the "
    "same outputs as its convolution.",
    paper=Figure("Theorems 1 to 3", where="sections 3.2 and 3.3", read="text"),
    rule=(
        Bound("largest relative error of the transfer function", "<=", 1e-9),
        Bound("largest error of the kernel", "<=", 1e-10),
        Bound("largest difference of recurrence and convolution", "<=", 1e-9),
    ),
    kind="identity",
    deviations="The state size is 16, and 200 samples are computed in float64.",
)

NO_FREQUENCIES = Break(
    "real eigenvalues", "All eigenvalues are real, so the states decay and do not oscillate.", "near miss"
)
AS_FAST = Break(
    "random matrix with HiPPO's highest frequency",
    "The matrix is random, and its frequencies are scaled so that the largest one equals HiPPO's.",
    "rival",
)
EVEN = Break(
    "evenly spaced frequencies",
    "The initial matrix is diagonal, with eigenvalues -1/2 ± iπn for n = 0, 1, ..., and B is 1 (S4D-Lin, "
    "Gu et al. 2022). P is 0 and stays 0 during training.",
    "rival",
)

HIPPO = Claim(
    name="HiPPO against random initialisation",
    sentence="After 100 steps, a layer initialised with HiPPO's matrix classifies pixel sequences more "
    "accurately than a layer initialised with a random matrix of the same form.",
    paper=Figure(
        "On sequential MNIST, accuracy rises from 60 % to 98 % (with the dense matrix)",
        where="section 2.2",
        read="text",
    ),
    rule=(at_least("accuracy", "HiPPO", 0.05, minus="random", toward=0.0),),
    control="the same layer with random matrices: normally distributed skew-symmetric and low-rank parts",
    control_arm="random",
    control_reaches=(at_least("accuracy", "random", 0.2),),
    after_steps=100,
    breaks=(NO_FREQUENCIES, AS_FAST, EVEN, UNTRAINED),
    chosen_on=(0, 1),
    deviations="One layer of 16 channels with state size 32 reads 8 × 8 digits, enlarged to 144 pixels, "
    "pixel by pixel. The digit is predicted from the last output. Training takes 100 Adam steps with "
    "batches of 32 digits. The learning rate of the matrix, B and the step sizes is at most 0.001. Each "
    "accuracy is the mean of three networks. The control's three networks have different matrices.",
    history=(
        (
            "Until November 2026 each layer used its best frequency scale, and there was one random matrix "
            'per seed. The verdict was "inconclusive" (2 of 10 seeds). '
            "The paper's statement is about matrices whose frequencies are not rescaled. The rival is now a "
            "random matrix with HiPPO's largest frequency."
        ),
        (
            "The rival with evenly spaced frequencies was added later that month. On seed 7101, with one "
            "network per arm, its accuracy is 0.106 higher than the random matrix's. HiPPO's accuracy is "
            "only 0.045 higher, which misses the bound."
        ),
        (
            'Then the verdict was "not judged", because a fifth of the digits was too few to judge the '
            "rivals. Now two fifths are test digits. The seeds are the same."
        ),
    ),
)

GENERATION = Claim(
    name="time per generated sample",
    sentence="After 4,096 samples, the recurrence computes a new sample at least twice as fast as a "
    "convolution over the whole past.",
    paper=Figure("Generation is 60 times faster than with a Transformer", where="abstract", read="abstract"),
    rule=(Speedup("one more sample", over="strong", threshold=2.0, axes={"samples": 4096}, mode="decode"),),
    control="the last output of the convolution, computed as one product with a cached kernel",
    deviations="The baseline is the same layer's convolution, not a Transformer. Like a Transformer, it "
    "reads the whole past. With 1,024 samples, the recurrence is not faster.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (2.96 times as fast, same bound). The '
            "convolution copied the past for each sample. It now writes each sample into a buffer, and reads "
            "the past once. The recurrence as one matrix product per sample is new, too."
        ),
    ),
)

ORDER, CHANNELS = 32, 16
SIDE = 12  # pixels
RATES = (0.01, 0.03, 0.1)
MATRIX_RATE = 0.001  # the largest learning rate of the matrix, B and the step sizes
NETWORKS = 3  # networks per arm, whose accuracies are averaged


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(VIEWS):
        compare_views(run)
    if run.wants(HIPPO):
        read_pixels(run)


def compare_views(run: Run) -> None:
    order, time, channels = 16, 200, 4
    exact = hippo_dplr(order)
    a = torch.diag(whole(exact.lamb)) - whole(exact.p)[:, None] * whole(exact.p).conj()
    hippo_a, hippo_b = hippo_legs(order)
    answers = []
    for s in (0.5, 1.0, 2.0, 4.0):  # b* (s - A)⁻¹ b, the response to e^(st), is the same in every basis
        shift = s * torch.eye(order, dtype=torch.float64)
        ours = (whole(exact.b).conj() * torch.linalg.solve(shift - a, whole(exact.b))).sum().real
        theirs = hippo_b @ torch.linalg.solve(shift + hippo_a, hippo_b)
        answers.append(abs(ours / theirs - 1).item())
    torch.manual_seed(run.seed)
    layer = S4(channels, order, time).double()
    u = torch.randn(2, time, channels, generator=run.generator("signal"), dtype=torch.float64)
    with torch.no_grad():
        lamb, p, b, c_tilde, step = layer.system()
        c = recurrent_c(lamb, p, b, c_tilde, step, time)
        by_powers = kernel_by_powers(lamb, p, b, c, step, time)
        by_cauchy = kernel_by_cauchy(lamb, p, b, c_tilde, step, time)
        recurrence, outputs = layer.recurrence(), []
        state = recurrence.empty(2)
        for sample in u.unbind(1):
            y, state = recurrence.step(sample, state)
            outputs.append(y)
        difference = (torch.stack(outputs, 1) - layer(u)).abs().max().item()
    run.metric("largest value of the kernel", by_powers.abs().max().item())
    run.claim(
        VIEWS,
        {
            "largest relative error of the transfer function": max(answers),
            "largest error of the kernel": (by_powers - by_cauchy).abs().max().item()
            / by_powers.abs().max().item(),
            "largest difference of recurrence and convolution": difference,
        },
    )


# Digits, pixel by pixel


def random_dplr(generator: torch.Generator) -> DPLR:
    a, b = torch.randn(ORDER, ORDER, generator=generator), torch.randn(ORDER, generator=generator)
    p = torch.randn(ORDER, generator=generator).double()
    skew = ((a - a.T) / 2**0.5).double()
    normal = skew - 0.5 * torch.eye(ORDER, dtype=torch.float64)
    return diagonalised(normal - p[:, None] * p, p, b.double())


def hippo(generator: torch.Generator) -> DPLR:
    return hippo_dplr(ORDER)


def without_frequencies(generator: torch.Generator) -> DPLR:
    """Real decay rates 1, 3, 5, ... in the range of HiPPO's eigenvalues, without a low-rank term."""
    found = hippo_dplr(ORDER)
    decays = torch.arange(1, ORDER, 2, dtype=torch.float64)
    return DPLR(torch.complex(-decays, torch.zeros_like(decays)), torch.zeros_like(found.p), found.b)


def evenly_spaced(generator: torch.Generator) -> DPLR:
    """Eigenvalues -1/2 ± iπn for n = 0, 1, ..., without a low-rank term, and B = 1 (S4D-Lin)."""
    frequencies = torch.pi * torch.arange(ORDER // 2, dtype=torch.float64)
    lamb = torch.complex(torch.full_like(frequencies, -0.5), frequencies)
    return DPLR(lamb, torch.zeros_like(lamb), torch.ones_like(lamb))


def as_fast(generator: torch.Generator) -> DPLR:
    """A random matrix whose largest frequency is HiPPO's."""
    system = random_dplr(generator)
    scale = hippo_dplr(ORDER).lamb.imag.max() / system.lamb.imag.max()
    return system._replace(lamb=torch.complex(system.lamb.real, scale * system.lamb.imag))


class PixelReader(nn.Module):
    """One S4 layer in a residual branch. The digit is predicted from the last step only."""

    def __init__(self, system: DPLR) -> None:
        super().__init__()
        self.into, self.norm = nn.Linear(1, CHANNELS), nn.LayerNorm(CHANNELS)
        self.layer = S4(CHANNELS, ORDER, SIDE**2, system=system)
        self.mix, self.readout = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 10)

    def forward(self, pixels: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 10"]:
        x = self.into(pixels[..., None])
        x = x + self.mix(F.gelu(self.layer(self.norm(x))))
        return self.readout(x[:, -1])


Make = Callable[[torch.Generator], DPLR]


def read_pixels(run: Run) -> None:
    images, labels = data.digits()
    larger = F.interpolate(images[:, None], size=(SIDE, SIDE), mode="bilinear", antialias=False)
    pixels = larger.flatten(1).to(run.device, run.dtype)
    # With a fifth of the digits, the standard error is too large to judge a difference of 0.05.
    parts = data.parts(pixels, labels.to(run.device), seed=run.seed, judge=0.4)
    rows = run.rows(len(parts.judge[0]), "judge")
    parts = parts._replace(judge=(parts.judge[0][rows], parts.judge[1][rows]))
    table = run.compare(
        HIPPO,
        arms={"HiPPO": Arm(hippo), "random": Arm(random_dplr)},
        attempt=train,
        read=judged,
        grid=run.pick(smoke=RATES[:1], quick=RATES, full=RATES),
        score="validation accuracy",
        keep="highest",
        breaks={
            NO_FREQUENCIES.name: {"HiPPO": Arm(without_frequencies)},
            AS_FAST.name: {"HiPPO": Arm(as_fast)},
            EVEN.name: {"HiPPO": Arm(evenly_spaced)},
        },
        world=parts,
        unequal={
            "random": "how much they draw: random matrices are drawn, and HiPPO's matrix is not, "
            "which favours neither arm"
        },
    )
    run.headline("loss on pixels")
    show_kernels(run, {arm: sweep.chosen[0] for arm, sweep in table.sweeps.items()})


def show_kernels(run: Run, networks: dict[str, PixelReader]) -> None:
    pictures = []
    for network in networks.values():
        with torch.no_grad():
            kernel = kernel_by_cauchy(*network.layer.system(), network.layer.time).cpu()
        largest = kernel.abs().amax(1, keepdim=True)
        pictures.append((0.5 + 0.5 * kernel / largest).repeat_interleave(6, 0).repeat_interleave(3, 1))
    run.image(
        "kernels",
        torch.stack(pictures)[:, None],
        columns=1,
        rows=list(networks),
        caption=f"Kernels after training: each channel's response to an impulse, over {SIDE**2} samples from "
        "left to right, slow channels first. Grey is 0, and each channel is scaled by its largest value.",
    )


def train(at: Trial, make: Make, rate: float) -> tuple[float, list[PixelReader]]:
    """Train networks, each with its own matrix, and return their validation accuracy and the networks."""
    run, matrices = at.run, at.generator("matrices")
    curves = ["loss on pixels"] + (NETWORKS - 1) * [""]  # one of the curves is enough
    networks = [learn(at, make(matrices), rate, curve) for curve in curves]
    run.phase("evaluate")
    return correct(run, networks, at.world.choose).mean().item(), networks


def learn(at: Trial, system: DPLR, rate: float, curve: str) -> PixelReader:
    run = at.run
    network = PixelReader(system).to(run.device, run.dtype)
    slow = [weight for name, weight in network.layer.named_parameters() if name not in ("c_tilde", "bypass")]
    fast = [weight for weight in network.parameters() if all(weight is not one for one in slow)]
    optimizer = torch.optim.Adam([{"params": fast}, {"params": slow, "lr": min(rate, MATRIX_RATE)}], lr=rate)
    steps = at.length(run.pick(smoke=2, quick=100, full=2000))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches, name = at.generator("batches"), f"{at.name}, rate {rate:g}"
    x, y = at.world.train
    run.phase("train")
    for step in at.steps(steps, f"pixels, {name}", state=(network, optimizer, schedule)):
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(network(x[rows]), y[rows])
        at.descend(loss, optimizer, step=step, metric=curve, arm=name, clip=1.0)
        schedule.step()
    return network


def judged(at: Trial, found: Sweep[list[PixelReader]]) -> dict[str, Tensor]:
    right = correct(at.run, found.chosen, at.world.judge)
    at.metric("accuracy on new digits", right.mean().item())
    return {"accuracy": right}
