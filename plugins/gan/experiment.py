"""A discriminator against its closed form; the game for one number, and for digits with either loss."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl
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

STILL = Break("a judge that stands still", "The discriminator keeps its first weights: it rejects nothing.")

OPTIMAL = Claim(
    name="the best judge",
    sentence="For a generator that stands still, the trained discriminator is p / (p + q), and what the game "
    "is worth to it is 2 JSD(p, q) - log 4.",
    paper=Figure("Proposition 1 and theorem 1.", where="section 4.1", read="text"),
    kind="theorem",
    rule=(
        Bound("mean distance of D from p / (p + q)", "<=", 0.05),
        Bound("distance of the value from 2 JSD - log 4 (nats)", "<=", 0.05),
    ),
    control="the closed form, on a grid",
    deviations="One number: the data from two Gaussians, the samples from a third; a perceptron of 64 units.",
)

SATURATES = Claim(
    name="a loss that does not saturate",
    sentence="Early in learning, while the judge rejects the samples, log D(G(z)) has a much stronger "
    "gradient for the generator than log(1 - D(G(z))) has.",
    paper=Figure("Much stronger gradients early in learning; no number.", where="section 3", read="text"),
    rule=(
        Bound("generator's gradient early, by its loss / by minimax", ">=", 2.0, direction=1.0, ratio=True),
    ),
    control="the minimax loss, on the same players, batches and noise; a game played by it, at its best rate",
    control_reaches=(
        Bound("Fréchet distance, untrained / after the minimax game", ">=", 4.0),
        Bound("digits of ten that the minimax game draws", ">=", 6),
    ),
    breaks=(STILL,),
    chosen_on=(0,),
    deviations="8 × 8 digits, perceptrons of 128 units, maxout of 64; Adam in place of gradient descent with "
    "momentum 0.5, by which the minimax game stays where it begins (shown). The norm of all the generator's "
    "gradients, its geometric mean over the first hundred updates of the game played by the non-saturating "
    "loss. That the samples are better is no part of the claim: with Adam, which divides the size of a small "
    "gradient out again, they are not. Fréchet's distance between the features of a small classifier takes "
    "the place of table 1's Parzen windows, which are shown.",
)

RATES = (0.003, 0.01, 0.03)
LATENT, HIDDEN = 16, 128
DESCENT = 0.05  # the rate of the games that are shown by plain descent
Wants = Callable[[Logits], Loss]


class Played(NamedTuple):
    """A game after its training, the distance of its samples on `judge`, and the samples."""

    game: Game
    distance: float
    samples: Float[Tensor, "n 64"]
    early: dict[str, float]  # geometric means of the norms of the generator's gradient, by each loss
    growth: list[Float[Tensor, "8 64"]]  # the same noise, as the game goes on


class Digits(NamedTuple):
    """Digits as rows; what judges their distance."""

    train: Float[Tensor, "train 64"]
    choose: Float[Tensor, "choose 64"]
    judge: Float[Tensor, "judge 64"]
    eye: DigitFeatures

    def distance(self, made: Float[Tensor, "n 64"], real: Float[Tensor, "m 64"]) -> float:
        if not made.isfinite().all():
            return math.nan
        return self.eye.distance(made.view(-1, 8, 8), real.view(-1, 8, 8))

    @torch.no_grad()
    def drawn(self, made: Float[Tensor, "n 64"]) -> int:
        """Modes: how many of the ten digits at least one in fifty of the samples is taken for."""
        counts = self.eye(made.nan_to_num().view(-1, 8, 8)).argmax(1).bincount(minlength=10)
        return int((counts >= len(made) / 50).sum())


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(OPTIMAL):
        judge_one_number(run)
    if run.wants(SATURATES):
        play_for_digits(run)


def mixture(count: int, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """The data of the game for one number: half of it about -1, half about 1.5."""
    centre = torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.5)
    return centre + 0.4 * torch.randn(count, 1, generator=generator)


def normal(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


def data_density(x: Tensor) -> Tensor:
    return (normal(x, -1.0, 0.4) + normal(x, 1.5, 0.4)) / 2


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def judge_one_number(run: Run) -> None:
    """A generator that stands still, N(0.3, 1): its judge is trained and held against p / (p + q)."""
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
    """Figure 1: the densities of data and samples, and D, as the game goes on."""
    torch.manual_seed(run.seed)
    made, judge = (perceptron().to(run.device, run.dtype) for _ in range(2))
    players = [torch.optim.Adam(one.parameters(), lr=0.002, betas=(0.5, 0.999)) for one in (judge, made)]
    generator = run.generator("the game for one number")
    steps = run.pick(smoke=4, quick=900, full=6000)
    x, panels = torch.linspace(-4, 4, 160), []

    def noise(count: int) -> Tensor:
        return (4 * torch.rand(count, 1, generator=generator) - 2).to(run.device, run.dtype)

    for step in run.steps(steps + 1, "the game for one number"):
        if step in (0, steps // 15, steps // 3, steps):
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
        caption=f"Black: the data's density; green: the samples'; blue: D. Steps 0, {steps // 15}, "
        f"{steps // 3} and {steps} (as in figure 1).",
    )


def panel(real: Tensor, fake: Tensor, judged: Tensor, height: int = 80) -> Float[Tensor, "3 rows columns"]:
    """Three curves in [0, 1] over 160 points, two pixels wide each; what is above 1 is cut off."""
    picture = torch.ones(3, height, 2 * len(real))
    for curve, colour in ((real, (0.0, 0.0, 0.0)), (fake, (0.0, 0.6, 0.2)), (judged, (0.2, 0.3, 1.0))):
        rows = ((1 - curve.clamp(0, 1)) * (height - 2)).round().long().repeat_interleave(2)
        before = torch.cat((rows[:1], rows[:-1]))
        for column, (top, bottom) in enumerate(zip(rows.tolist(), before.tolist(), strict=True)):
            first, last = sorted((top, bottom))
            picture[:, first : last + 2, column] = torch.tensor(colour)[:, None]
    return picture


def play_for_digits(run: Run) -> None:
    """A game for digits by either loss, each at its best rate; the gradients of both, early in ours."""
    parts = data.parts(data.digits()[0].flatten(1).to(run.device, run.dtype), seed=run.seed)
    digits = Digits(parts.train[0], parts.choose[0], parts.judge[0], digit_features(run))
    losses = run.arms({"non-saturating": non_saturating_loss, "minimax": minimax_loss}, control="minimax")
    rates = run.pick(smoke=(0.01,), quick=RATES, full=RATES)
    best = {}
    for arm, wants in losses.items():
        compared = losses if arm == "non-saturating" else {}
        still = arm == "non-saturating" and run.without(STILL.name)
        best[arm] = run.sweep(
            arm,
            rates,
            lambda rate, arm=arm, wants=wants, compared=compared, still=still: play(
                run, arm, wants, digits, adam(rate), losses=compared, still=still
            ),
            score="Fréchet distance on choose",
        )
    ours, theirs = (best[arm].result for arm in losses)
    untrained = digits.distance(sample(run, new_game(run)), digits.judge)
    run.metric("Fréchet distance on judge", untrained, arm="untrained")
    for arm, one in best.items():
        run.metric("Fréchet distance on judge", one.result.distance, arm=arm)
        run.metric("digits drawn", digits.drawn(one.result.samples), arm=arm)
    gain = ours.early["non-saturating"] / ours.early["minimax"]
    values = {
        "generator's gradient early, by its loss / by minimax": gain,
        "Fréchet distance, untrained / after the minimax game": untrained / theirs.distance,
        "digits of ten that the minimax game draws": digits.drawn(theirs.samples),
    }
    run.claim(SATURATES, values, tuned=list(best.values()))
    run.headline(f"the generator's gradient, rate {best['non-saturating'].value:g}")
    if not (run.null or run.broken):
        show(run, digits, {"non-saturating": ours, "minimax": theirs})


def new_game(run: Run) -> Game:
    torch.manual_seed(run.seed)
    return Game(64, HIDDEN, LATENT).to(run.device, run.dtype)


def sample(run: Run, game: Game) -> Float[Tensor, "n 64"]:
    count = run.pick(smoke=100, quick=1000, full=5000)
    z = torch.randn(count, LATENT, generator=run.generator("samples")).to(run.device, run.dtype)
    with torch.no_grad():
        return game.generator(z)


class Way(NamedTuple):
    """How both players go downhill."""

    name: str
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]


def adam(rate: float) -> Way:
    return Way(
        f"rate {rate:g}",
        lambda player: torch.optim.Adam(player.parameters(), rate, betas=(0.5, 0.999), fused=True),
    )


def descent(rate: float) -> Way:
    """Section 5: gradient descent with momentum."""
    return Way(
        f"descent, rate {rate:g}", lambda player: torch.optim.SGD(player.parameters(), rate, momentum=0.5)
    )


def play(
    run: Run,
    arm: str,
    wants: Wants,
    digits: Digits,
    way: Way,
    *,
    losses: Mapping[str, Wants],
    still: bool = False,
) -> tuple[float, Played]:
    """Algorithm 1 with one step of the judge for each of the generator; the distance to choose by.

    losses  whose gradients for the generator are compared as the game goes on
    still   the judge keeps its first weights
    """
    game = new_game(run)
    judge, maker = (way.optimizer(player) for player in (game.discriminator, game.generator))
    generator = run.generator("batches")
    # Dropout draws from torch's global generator.
    torch.manual_seed(run.seed + 1)
    steps, every = run.pick(smoke=(4, 2), quick=(700, 10), full=(10_000, 50))
    begun = run.pick(smoke=2, quick=100, full=100)
    norms: dict[str, list[float]] = {name: [] for name in losses}
    growth = []
    run.phase("train")
    for step in run.steps(steps, f"{arm}, {way.name}"):
        if step in (0, steps // 12, steps // 6, steps // 3, 2 * steps // 3):
            growth.append(sample(run, game)[:8])
        rows = torch.randint(len(digits.train), (64,), generator=generator)
        z = torch.randn(2, 64, LATENT, generator=generator).to(digits.train)
        if not still:
            real, fake = game.discriminator(digits.train[rows]), game.generator(z[0]).detach()
            loss = discriminator_loss(real, game.discriminator(fake))
            run.descend(loss, judge, step=step, metric=f"the judge's loss, {way.name}", arm=arm)
        fake = game.discriminator(game.generator(z[1]))
        if step < begun or step % every == 0:
            for name, loss_of in losses.items():
                norm = gradient_norm(loss_of(fake), game.generator)
                if step < begun:
                    norms[name].append(math.log(norm))
                run.metric(f"the generator's gradient, {way.name}", norm, step=step, arm=f"by {name}")
        run.descend(wants(fake), maker, step=step, metric=f"the generator's loss, {way.name}", arm=arm)
    samples = sample(run, game)
    early = {name: math.exp(sum(logs) / len(logs)) for name, logs in norms.items()}
    away = digits.distance(samples, digits.judge)
    played = Played(game, away, samples, early, [*growth, samples[:8]])
    return digits.distance(samples, digits.choose), played


def gradient_norm(loss: Loss, player: nn.Module) -> float:
    """Of all weights of the player in one; the graph is kept."""
    slopes = torch.autograd.grad(loss, list(player.parameters()), retain_graph=True)
    return torch.stack([slope.norm() for slope in slopes]).norm().clamp(min=1e-30).item()


def fitted_gaussian(x: Float[Tensor, "train pixels"], count: int, generator: torch.Generator) -> Tensor:
    """Samples of the Gaussian with the digits' mean and covariance, cut to what a pixel can be."""
    covariance = x.double().T.cov() + 1e-5 * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    noise = torch.randn(count, x.shape[1], generator=generator, dtype=torch.float64).to(x.device)
    return (x.double().mean(0) + noise @ torch.linalg.cholesky(covariance).T).clamp(0, 1).to(x)


def show(run: Run, digits: Digits, played: dict[str, Played]) -> None:
    """Samples with their nearest training digits; what distance and Parzen windows say of every maker."""
    made = {arm: one.samples for arm, one in played.items()}
    for arm, wants in (("non-saturating", non_saturating_loss), ("minimax", minimax_loss)):
        made[f"{arm}, descent"] = play(run, arm, wants, digits, descent(DESCENT), losses={})[1].samples
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
        rows.append((maker, round(away, 2), digits.drawn(samples), round(nats, 1), width))
    run.table(
        "makers of digits",
        ("maker", "Fréchet distance", "digits drawn", "Parzen windows (nats)", "their width"),
        rows,
        caption="By plain descent the minimax game stays where it begins; with Adam both losses get there. "
        "Parzen windows put even a Gaussian above every network.",
    )
    nearest = digits.train[torch.cdist(ours[:8], digits.train).argmin(1)]
    run.image(
        "samples",
        tiles(torch.cat((ours[:8], nearest, made["minimax"][:8], made["minimax, descent"][:8]))),
        columns=8,
        caption="Samples; below each the nearest training digit (as in figure 2); the minimax loss's, with "
        "Adam and by plain descent.",
    )
    growth = played["non-saturating"].growth
    run.image(
        "the game for digits",
        tiles(torch.cat(growth)),
        columns=8,
        caption="From the same noise, from top to bottom: before the game, and after a twelfth, a sixth, a "
        "third, two thirds and all of it.",
    )


def tiles(x: Float[Tensor, "n 64"]) -> Float[Tensor, "n 1 36 36"]:
    """Ink is black, a pixel becomes 4 × 4, and a frame parts the digits."""
    large = (1 - x.view(-1, 1, 8, 8).float()).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return F.pad(large, (2, 2, 2, 2), value=0.8)
