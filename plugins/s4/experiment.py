"""Three views of one system, and a layer on long rows of pixels from HiPPO and from random matrices."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from ..ssm import hippo_legs
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
    name="one system, three views",
    sentence="The diagonal and low-rank form is HiPPO's matrix; its kernel by Cauchy sums is that by powers, "
    "and the layer's recurrence gives what its convolution gives.",
    paper=Figure("Theorems 1 to 3", where="sections 3.2 and 3.3", read="text"),
    rule=(
        Bound("largest relative error of its answers", "<=", 1e-9),
        Bound("largest error of the kernel", "<=", 1e-10),
        Bound("largest difference of recurrence and convolution", "<=", 1e-9),
    ),
    kind="identity",
    deviations="A state of 16, 200 samples, in float64.",
)

NO_FREQUENCIES = Break("no frequencies", "All eigenvalues are real: the states decay and do not swing.")

HIPPO = Claim(
    name="HiPPO at the start",
    sentence="From HiPPO's matrix a layer learns long sequences better than one from a random matrix of the "
    "same form, as long trained, each at its best scale of frequencies.",
    paper=Figure("60 % to 98 % on sequential MNIST (for the dense matrix)", where="section 2.2", read="text"),
    rule=(Bound("accuracy gained by HiPPO", ">=", 0.05, direction=0.0),),
    control="the same layer from a random matrix: normal numbers in its skew and its low-rank part; its "
    "frequencies multiplied by as many factors as HiPPO's are, and the best kept",
    control_reaches=(Bound("accuracy, random", ">=", 0.2),),
    breaks=(NO_FREQUENCIES,),
    shortcuts=("accuracy gained by HiPPO, frequencies as they are",),
    chosen_on=(0,),
    deviations="Digits of 8 × 8 enlarged to 144 pixels, read one by one by one layer of 16 channels with "
    "states of 32, the digit told by its last output; 100 steps of 32, each arm at the best of four scales "
    "and three rates. The paper does not tune its random matrices so: with frequencies as they are HiPPO "
    "leads, but a random matrix with higher ones may do as well.",
)

GENERATION = Claim(
    name="fast generation",
    sentence="As a recurrence the layer makes a new sample many times faster than from all that it has read.",
    paper=Figure("Generation 60 times faster than a Transformer's", where="abstract", read="abstract"),
    rule=(Speedup("one more sample", over="strong", threshold=2.0, axes={"samples": 4096}, mode="decode"),),
    control="the last output of the convolution as one product with a kernel that is kept",
    deviations="The same layer in its other view stands for the Transformer: both read all of the past.",
)

ORDER, CHANNELS = 32, 16
SIDE = 12  # pixels


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
    for s in (0.5, 1.0, 2.0, 4.0):  # of both systems to e^(st): b* (s - A)⁻¹ b, the same in every basis
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
            "largest relative error of its answers": max(answers),
            "largest error of the kernel": (by_powers - by_cauchy).abs().max().item()
            / by_powers.abs().max().item(),
            "largest difference of recurrence and convolution": difference,
        },
    )


# Pixels


def random_dplr(generator: torch.Generator) -> DPLR:
    a, b = torch.randn(ORDER, ORDER, generator=generator), torch.randn(ORDER, generator=generator)
    p = torch.randn(ORDER, generator=generator).double()
    skew = ((a - a.T) / 2**0.5).double()
    normal = skew - 0.5 * torch.eye(ORDER, dtype=torch.float64)
    return diagonalised(normal - p[:, None] * p, p, b.double())


def hippo(generator: torch.Generator) -> DPLR:
    return hippo_dplr(ORDER)


def without_frequencies(generator: torch.Generator) -> DPLR:
    """Its poles, 1 to `ORDER`, as real decays; nothing of low rank."""
    found = hippo_dplr(ORDER)
    decays = torch.arange(1, ORDER, 2, dtype=torch.float64)
    return DPLR(torch.complex(-decays, torch.zeros_like(decays)), torch.zeros_like(found.p), found.b)


def scaled(system: DPLR, scale: float) -> DPLR:
    """With all frequencies multiplied."""
    return system._replace(lamb=torch.complex(system.lamb.real, scale * system.lamb.imag))


class PixelReader(nn.Module):
    """One layer in a residual branch; the digit is read from the last step alone."""

    def __init__(self, system: DPLR) -> None:
        super().__init__()
        self.into, self.norm = nn.Linear(1, CHANNELS), nn.LayerNorm(CHANNELS)
        self.layer = S4(CHANNELS, ORDER, SIDE**2, system=system)
        self.mix, self.readout = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 10)

    def forward(self, pixels: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 10"]:
        x = self.into(pixels[..., None])
        x = x + self.mix(F.gelu(self.layer(self.norm(x))))
        return self.readout(x[:, -1])


Trained = tuple[float, PixelReader]  # the accuracy on new digits, and the network
Labelled = tuple[Float[Tensor, "count time"], Int[Tensor, " count"]]


def read_pixels(run: Run) -> None:
    images, labels = data.digits()
    larger = F.interpolate(images[:, None], size=(SIDE, SIDE), mode="bilinear", antialias=False)
    parts = data.parts(larger.flatten(1).to(run.device, run.dtype), labels.to(run.device), seed=run.seed)
    start = without_frequencies if run.without(NO_FREQUENCIES.name) else hippo
    systems: dict[str, Callable[[torch.Generator], DPLR]] = {"HiPPO": start, "random": random_dplr}
    scales = run.pick(smoke=(1.0,), quick=(0.25, 1.0, 4.0, 16.0), full=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0))
    rates = run.pick(smoke=(0.01,), quick=(0.01, 0.03, 0.1), full=(0.003, 0.01, 0.03, 0.1))
    by_scale: dict[tuple[str, float], Trained] = {}

    def at_best_rate(arm: str, system: DPLR, scale: float) -> tuple[float, Trained]:
        name = f"{arm}, frequencies × {scale:g}"
        best = run.sweep(
            name,
            rates,
            partial(train, run, name, scaled(system, scale), parts),
            score="accuracy on choose",
            keep="highest",
        )
        by_scale[arm, scale] = best.result
        run.metric("accuracy over the scale of frequencies", best.result[0], step=scale, arm=arm)
        return best.score, best.result

    best = {
        arm: run.sweep(
            arm,
            scales,
            partial(at_best_rate, arm, make(run.generator("matrix"))),
            what="scale of frequencies",
            score="accuracy on choose",
            keep="highest",
        )
        for arm, make in run.arms(systems, control="random").items()
    }
    run.headline("accuracy over the scale of frequencies")
    values = {f"accuracy, {arm}": found.result[0] for arm, found in best.items()}
    for arm, found in best.items():
        run.metric("accuracy on new digits", found.result[0], arm=arm)
        run.metric("accuracy on new digits", by_scale[arm, 1.0][0], arm=f"{arm}, frequencies as they are")
    gained = values["accuracy, HiPPO"] - values["accuracy, random"]
    values["accuracy gained by HiPPO, frequencies as they are"] = (
        by_scale["HiPPO", 1.0][0] - by_scale["random", 1.0][0]
    )
    run.claim(HIPPO, {"accuracy gained by HiPPO": gained, **values}, tuned=list(best.values()))
    show_kernels(run, {arm: found.result[1] for arm, found in best.items()})


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
        caption=f"What each channel makes of one pulse, over {SIDE**2} samples, trained; above from HiPPO, "
        "below from a random matrix. Slow channels first; grey is 0, each channel by its largest value.",
    )


def train(run: Run, arm: str, system: DPLR, parts: data.Parts, rate: float) -> tuple[float, Trained]:
    """The accuracy to choose by, and what came of it."""
    torch.manual_seed(run.seed)
    network = PixelReader(system).to(run.device, run.dtype)
    steps = run.pick(smoke=2, quick=100, full=2000)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches, name = run.generator("batches"), f"{arm}, rate {rate:g}"
    x, y = parts.train
    run.phase("train")
    for step in run.steps(steps, f"pixels, {name}"):
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(network(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric="loss on pixels", arm=name, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    chosen_by, found = (accuracy(network, part) for part in (parts.choose, parts.judge))
    return chosen_by, (found, network)


def accuracy(network: nn.Module, part: Labelled) -> float:
    with torch.no_grad():
        return (network(part[0]).argmax(1) == part[1]).float().mean().item()
