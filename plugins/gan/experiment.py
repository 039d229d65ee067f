"""Trains a discriminator to optimality, and trains GANs on one-dimensional data and on digits."""

import math
from collections.abc import Callable
from typing import NamedTuple

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
    Sweep,
    Trial,
    at_least,
    hookimpl,
)
from readtrack.scores.digit_features import DigitFeatures, digit_features

from .model import (
    Game,
    Logits,
    Loss,
    discriminator_loss,
    minimax_loss,
    non_saturating_loss,
    optimal_discriminator,
    parzen,
    value,
)

STILL = Break(
    "frozen discriminator",
    "The discriminator keeps its initial weights while the generator is trained.",
    "near miss",
)
BY_ADAM = Break(
    "minimax loss with Adam",
    "The minimax loss is minimised with Adam, which divides by the gradient's magnitude and so compensates "
    "for small gradients.",
    "rival",
)

OPTIMAL = Claim(
    name="optimal discriminator",
    sentence="Against a fixed generator, the trained discriminator approaches p / (p + q), and the value "
    "of the game approaches 2 JSD(p, q) - log 4.",
    paper=Figure("Proposition 1 and theorem 1.", where="section 4.1", read="text"),
    kind="theorem",
    rule=(
        Bound("mean distance of D from p / (p + q)", "<=", 0.05),
        Bound("distance of the value from 2 JSD - log 4 (nats)", "<=", 0.05),
    ),
    control="the closed form, on a grid",
    deviations="The data are one-dimensional and come from a mixture of two Gaussians. The samples come from "
    "a third Gaussian. The discriminator is a perceptron with two hidden layers of 64 units.",
)

SATURATES = Claim(
    name="samples with the non-saturating and the minimax loss",
    sentence="After 700 updates by gradient descent with momentum, a generator that maximises log D(G(z)) "
    "generates better samples than one that minimises log(1 - D(G(z))). Their Fréchet distance to real "
    "digits is smaller, and they cover at least three more of the ten digits.",
    paper=Figure(
        "Early in training log(1 - D(G(z))) saturates, and log D(G(z)) has much stronger gradients. The "
        "paper gives no number.",
        where="section 3",
        read="text",
    ),
    rule=(
        at_least("Fréchet distance", "minimax", 3.0, over="non-saturating", toward=1.0),
        at_least("digits generated", "non-saturating", 3, minus="minimax", toward=0),
    ),
    control="the same networks, batches and noise, trained with the minimax loss. Each GAN uses its best "
    "learning rate from the same grid",
    control_arm="minimax",
    after_steps=700,
    breaks=(STILL, BY_ADAM, UNTRAINED),
    chosen_on=(0, 1),
    deviations="The data are 8 × 8 digits. The generator has 128 hidden units, and the discriminator has 64 "
    "maxout units. As in the paper, the two networks are trained by gradient descent with momentum 0.5, and "
    "the discriminator has dropout. The discriminator takes one step for each step of the generator. The "
    "Fréchet distance is measured between features of a small classifier. The number of generated digits is "
    "the exponential of the entropy of the classes that the same classifier predicts. Table 1's Parzen "
    "windows are shown but not judged.",
    headline=True,
    history=(
        (
            "Until November 2026 the claim compared the gradients of the two losses for the same networks, "
            'and the verdict was "reproduced". For a single sample, the ratio of these gradients is (1 - D) '
            "/ D for every generator, so the ratio is now shown but not judged. Both GANs were trained with "
            "Adam, and their samples were equally good. The paper uses momentum."
        ),
    ),
)

RATES = (0.05, 0.2, 0.6)
ADAM = 0.05  # Adam's learning rate relative to gradient descent's
LATENT, HIDDEN = 16, 128
LOSSES = {"non-saturating": non_saturating_loss, "minimax": minimax_loss}
AWAY = "validation Fréchet distance while learning"


class Way(NamedTuple):
    """A variant of training: the generator's loss, the optimiser, and whether the discriminator is frozen."""

    wants: Callable[[Logits], Loss]
    adam: bool = False
    still: bool = False

    def optimizer(self, player: nn.Module, rate: float) -> torch.optim.Optimizer:
        """Gradient descent with momentum, as in section 5, or Adam."""
        if self.adam:
            return torch.optim.Adam(player.parameters(), ADAM * rate, betas=(0.5, 0.999))
        return torch.optim.SGD(player.parameters(), rate, momentum=0.5)


class Played(NamedTuple):
    """A trained GAN, and its samples from the same noise during training."""

    game: Game
    growth: list[Float[Tensor, "8 pixels"]]


class Digits(NamedTuple):
    """Flattened digits, and the features for the Fréchet distance."""

    train: Float[Tensor, "train pixels"]
    choose: Float[Tensor, "choose pixels"]
    judge: Float[Tensor, "judge pixels"]
    eye: DigitFeatures

    def distance(self, made: Float[Tensor, "n pixels"], real: Float[Tensor, "m pixels"]) -> float:
        if not made.isfinite().all():
            return math.nan
        return self.eye.distance(made, real)

    @torch.no_grad()
    def drawn(self, made: Float[Tensor, "n pixels"]) -> float:
        """Effective number of digits, from 1 to 10: the exponential of the classes' entropy."""
        shares = self.eye(made.nan_to_num()).softmax(1).mean(0)
        return torch.special.entr(shares).sum().exp().item()


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(OPTIMAL):
        judge_one_number(run)
    if run.wants(SATURATES):
        play_for_digits(run)


def mixture(count: int, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """One-dimensional data: a mixture of two Gaussians, around -1 and around 1.5."""
    centre = torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.5)
    return centre + 0.4 * torch.randn(count, 1, generator=generator)


def normal(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def data_density(x: Tensor) -> Tensor:
    return (normal(x, -1.0, 0.4) + normal(x, 1.5, 0.4)) / 2


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def judge_one_number(run: Run) -> None:
    """Train a discriminator against a fixed generator, N(0.3, 1), and compare it with p / (p + q)."""
    torch.manual_seed(run.seed)
    judge, generator = perceptron().to(run.device, run.dtype), run.generator("one number")
    optimizer = torch.optim.Adam(judge.parameters(), lr=0.01)
    steps = run.pick(smoke=10, quick=500, full=4000)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in run.steps(steps, "a judge of one number"):
        real = mixture(256, generator).to(run.device, run.dtype)
        fake = (0.3 + torch.randn(256, 1, generator=generator)).to(real)
        loss = discriminator_loss(judge(real)[:, 0], judge(fake)[:, 0])
        run.descend(loss, optimizer, step=step, metric="loss of the judge of one number")
        decay.step()
    x = torch.linspace(-4.5, 5, 1901, dtype=torch.float64)
    p, q = data_density(x), normal(x, 0.3, 1.0)
    spacing = (x[1] - x[0]).item()
    with torch.no_grad():
        logits = judge(x[:, None].to(run.device, run.dtype))[:, 0].double().cpu()
    away = ((logits.sigmoid() - optimal_discriminator(p, q)).abs() * (p + q) / 2).sum() * spacing
    worth = -(p * F.softplus(-logits) + q * F.softplus(logits)).sum() * spacing
    run.metric("value of the game", worth.item(), arm="trained judge")
    run.metric("value of the game", value(p, q, spacing), arm="2 JSD - log 4")
    run.claim(
        OPTIMAL,
        {
            "mean distance of D from p / (p + q)": away.item(),
            "distance of the value from 2 JSD - log 4 (nats)": abs(worth.item() - value(p, q, spacing)),
        },
    )
    play_for_one_number(run)


def play_for_one_number(run: Run) -> None:
    """Figure 1: data density, sample density and D during training on one-dimensional data."""
    torch.manual_seed(run.seed)
    made, judge = (perceptron().to(run.device, run.dtype) for _ in range(2))
    players = [torch.optim.Adam(one.parameters(), lr=0.002, betas=(0.5, 0.999)) for one in (judge, made)]
    generator = run.generator("the game for one number")
    steps = run.pick(smoke=4, quick=900, full=6000)
    shown = sorted({0, steps // 15, steps // 3, steps})
    x, panels = torch.linspace(-4, 4, 160), []

    def noise(count: int) -> Tensor:
        return (4 * torch.rand(count, 1, generator=generator) - 2).to(run.device, run.dtype)

    for step in run.steps(steps + 1, "the game for one number"):
        if step in shown:
            with torch.no_grad():
                samples = made(noise(20_000))[:, 0].float().cpu()
                judged = judge(x[:, None].to(run.device, run.dtype))[:, 0].sigmoid().float().cpu()
            width = 8 / 160
            counted = torch.histc(samples, 160, -4, 4) / (len(samples) * width)
            panels.append(panel(data_density(x) / 1.2, counted / 1.2, judged))
        real = mixture(128, generator).to(run.device, run.dtype)
        loss = discriminator_loss(judge(real)[:, 0], judge(made(noise(128)).detach())[:, 0])
        run.descend(loss, players[0], step=step, metric="one number: the judge's loss")
        run.descend(
            non_saturating_loss(judge(made(noise(128)))[:, 0]),
            players[1],
            step=step,
            metric="one number: the generator's loss",
        )
    run.image(
        "the game for one number",
        torch.stack(panels),
        columns=1,
        caption="Black is the density of the data, green is the density of the samples, and blue is D. "
        f"Steps {', '.join(map(str, shown))} (as in figure 1).",
    )


def panel(real: Tensor, fake: Tensor, judged: Tensor, height: int = 80) -> Float[Tensor, "3 rows columns"]:
    """Draws three curves over 160 points, each two pixels wide. Values above 1 are clipped."""
    picture = torch.ones(3, height, 2 * len(real))
    for curve, colour in ((real, (0.0, 0.0, 0.0)), (fake, (0.0, 0.6, 0.2)), (judged, (0.2, 0.3, 1.0))):
        rows = ((1 - curve.clamp(0, 1)) * (height - 2)).round().long().repeat_interleave(2)
        before = torch.cat((rows[:1], rows[:-1]))
        for column, (top, bottom) in enumerate(zip(rows.tolist(), before.tolist(), strict=True)):
            first, last = sorted((top, bottom))
            picture[:, first : last + 2, column] = torch.tensor(colour)[:, None]
    return picture


def play_for_digits(run: Run) -> None:
    """Train a GAN on digits with each loss at its best learning rate."""
    at_most = run.pick(smoke=5_000, quick=5_000, full=None)
    source = run.source("images", needs="classes", at_most=at_most)
    source = source.grey(run.pick(smoke=14, quick=14, full=28))
    rows = (images.flatten(1).to(run.device, run.dtype) for images, _ in source.parts)
    digits = Digits(*rows, digit_features(run, source))
    table = run.compare(
        SATURATES,
        arms={name: Arm(Way(loss)) for name, loss in LOSSES.items()},
        attempt=play,
        read=judged,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation Fréchet distance",
        breaks={
            STILL.name: {"non-saturating": Arm(Way(non_saturating_loss, still=True))},
            BY_ADAM.name: {"non-saturating": Arm(Way(minimax_loss, adam=True))},
        },
        world=digits,
        unequal={"non-saturating": "their optimiser, in the rival only, which changes it"},
    )
    run.headline(AWAY)
    if not (run.null or run.broken):
        show(run, digits, {arm: sweep.chosen for arm, sweep in table.sweeps.items()})


def sample(run: Run, game: Game, generator: torch.Generator) -> Float[Tensor, "n pixels"]:
    count = run.pick(smoke=100, quick=1000, full=5000)
    z = torch.randn(count, LATENT, generator=generator).to(run.device, run.dtype)
    with run.evaluating(game):
        return game.generator(z)


def play(at: Trial, way: Way, rate: float) -> tuple[float, Played]:
    """Algorithm 1 with one discriminator step per generator step. The score is the Fréchet distance."""
    run, digits = at.run, at.world
    game = Game(digits.train.shape[1], HIDDEN, LATENT).to(run.device, run.dtype)
    judge, maker = (way.optimizer(player, rate) for player in (game.discriminator, game.generator))
    batches, noise = at.generator("batches"), at.generator("noise")
    steps, name = at.length(run.pick(smoke=4, quick=700, full=10_000)), f"{at.name}, rate {rate:g}"
    every, growth = max(1, steps // 50), []
    run.phase("train")
    for step in at.steps(steps, name, state=(game, judge, maker, growth)):
        if step in (0, steps // 12, steps // 6, steps // 3, 2 * steps // 3):
            samples = sample(run, game, at.generator("samples"))
            at.metric(AWAY, digits.distance(samples, digits.choose), step=step, arm=name)
            growth.append(samples[:8])
        rows = torch.randint(len(digits.train), (64,), generator=batches)
        z = torch.randn(2, 64, LATENT, generator=noise).to(digits.train)
        if not way.still:
            real, fake = game.discriminator(digits.train[rows]), game.generator(z[0]).detach()
            loss = discriminator_loss(real, game.discriminator(fake))
            at.descend(loss, judge, step=step, metric="the discriminator's loss", arm=name)
        fake = game.discriminator(game.generator(z[1]))
        if step % every == 0:
            for which, loss_of in LOSSES.items():
                norm = gradient_norm(loss_of(fake), game.generator)
                at.metric("the generator's gradient", norm, step=step, arm=f"{name}, by {which}")
        at.descend(way.wants(fake), maker, step=step, metric="the generator's loss", arm=name)
    run.phase("evaluate")
    samples = sample(run, game, at.generator("samples"))
    away = digits.distance(samples, digits.choose)
    at.metric(AWAY, away, step=steps, arm=name)
    return away, Played(game, [*growth, samples[:8]])


def judged(at: Trial, found: Sweep[Played]) -> dict[str, float]:
    samples = sample(at.run, found.chosen.game, at.run.data("samples", "judge"))
    numbers = {
        "Fréchet distance": at.world.distance(samples, at.world.judge),
        "digits generated": at.world.drawn(samples),
    }
    for name, number in numbers.items():
        at.metric(f"test {name}", number)
    return numbers


def gradient_norm(loss: Loss, player: nn.Module) -> float:
    """Norm of the gradient with respect to all weights of a player. Keeps the graph."""
    slopes = torch.autograd.grad(loss, list(player.parameters()), retain_graph=True)
    return torch.stack([slope.norm() for slope in slopes]).norm().clamp(min=1e-30).item()


def fitted_gaussian(x: Float[Tensor, "train pixels"], count: int, generator: torch.Generator) -> Tensor:
    """Samples of the Gaussian with the digits' mean and covariance, clamped to [0, 1]."""
    covariance = x.double().T.cov() + 1e-5 * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    noise = torch.randn(count, x.shape[1], generator=generator, dtype=torch.float64).to(x.device)
    return (x.double().mean(0) + noise @ torch.linalg.cholesky(covariance).T).clamp(0, 1).to(x)


def show(run: Run, digits: Digits, played: dict[str, Played]) -> None:
    """Save samples with their nearest training digits, and all generators' distances and Parzen estimates."""
    made = {arm: sample(run, one.game, run.generator("shown")) for arm, one in played.items()}
    ours = made["non-saturating"]
    made["a Gaussian"] = fitted_gaussian(digits.train, len(ours), run.generator("gaussian"))
    made["training digits"] = digits.train[: len(ours)]
    widths = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7)
    rows = []
    for maker, samples in made.items():
        width = max(
            widths, key=lambda one, samples=samples: parzen(samples, digits.choose, one).mean().item()
        )
        nats = parzen(samples, digits.judge, width).mean().item()
        away = digits.distance(samples, digits.judge)
        run.metric("Parzen log-likelihood (nats)", nats, arm=maker)
        rows.append((maker, round(away, 2), round(digits.drawn(samples), 1), round(nats, 1), width))
    run.table(
        "makers of digits",
        ("source", "Fréchet distance", "digits generated", "Parzen estimate (nats)", "Parzen width"),
        rows,
        caption="On digits this small, a Gaussian with the digits' mean and covariance can have a smaller "
        "Fréchet distance than both GANs. Parzen windows can also rank the Gaussian above both GANs.",
    )
    nearest = digits.train[torch.cdist(ours[:8], digits.train).argmin(1)]
    run.image(
        "samples",
        data.tiles(torch.cat((ours[:8], nearest, made["minimax"][:8]))),
        columns=8,
        rows=["sample", "nearest", "minimax"],
        caption="Samples, the nearest training digit below each sample (as in figure 2), and samples after "
        "training with the minimax loss.",
    )
    run.image(
        "the game for digits",
        data.tiles(torch.cat(played["non-saturating"].growth)),
        columns=8,
        caption="Samples from the same noise, from top to bottom: before training, and after a twelfth, a "
        "sixth, a third, two thirds and all of the steps.",
    )
