"""Raise the bound and follow the likelihood; the bound against wake-sleep; one gradient against the other."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import (
    VAE,
    Images,
    gradient_draws,
    log_bernoulli,
    log_likelihood,
    wake_sleep,
    without_divergence,
    without_gradient,
)

NO_DIVERGENCE = Break("no divergence", "The objective leaves out how far the guess is from the prior.")
NO_GRADIENT = Break("no gradient through the sample", "The encoder learns only to be close to the prior.")
BY_DENSITY = Break("by the density", "The gradient through the sample is replaced by the noisy one.")

DEVIATIONS = (
    "8 × 8 digits made black and white, 100 hidden units, 8 latent variables; Adam, its rate falling to 0, "
    "instead of Adagrad; torch's initial weights instead of N(0, 0.01), and no prior of the weights: in "
    "section 5 it is N(0, 1), a weight decay, so that the paper's is a MAP estimate."
)

LIKELIHOOD = Claim(
    name="a bound of the likelihood",
    sentence="To raise the bound raises the likelihood, to well above that of independent pixels.",
    paper=Figure(
        "Figure 3's estimates of the likelihood; no number to compare with.", where="figure 3", read="text"
    ),
    rule=(
        Bound("rank correlation of likelihood and bound", ">=", 0.8, direction=0.3),
        Bound("log-likelihood over independent pixels' (nats)", ">=", 3.0, direction=0.5),
    ),
    guards=(Bound("log-likelihood over the bound (nats)", ">=", 0.0),),
    control="each pixel with its own frequency of ink",
    breaks=(NO_DIVERGENCE,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS
    + " The likelihood by importance-weighted samples, 100 while training and 500 at the "
    "end; its ranks over the evaluations of the training at the best rate. Between rates the two may "
    "part: the correlation over all rates is shown. That the likelihood is above the "
    "bound is Jensen's inequality.",
)

BETTER = Claim(
    name="better than wake-sleep",
    sentence="Trained by the bound, the same networks reach a higher one than by wake-sleep, and sooner.",
    paper=Figure(
        "Considerably faster, and to a better solution, in all experiments (curves).",
        where="figure 2",
        read="text",
    ),
    rule=(
        Bound("bound over wake-sleep's (nats)", ">=", 0.2, direction=0.0),
        Bound("wake-sleep's steps / steps to its best bound", ">=", 1.15, direction=1.0, ratio=True),
    ),
    control="wake-sleep: the same networks, weights, optimiser and rates, each arm at its best",
    control_reaches=(Bound("wake-sleep's bound over independent pixels' (nats)", ">=", 1.0),),
    breaks=(NO_GRADIENT,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + " The rate is chosen by the bound of digits apart.",
)

SAME_MEAN = Claim(
    name="the same gradient on average",
    sentence="The gradient through the sample has the same mean as the one by the logarithm of the density.",
    paper=Figure("Both are estimates of one gradient.", where="sections 2.2 and 2.4", read="text"),
    kind="theorem",
    rule=(Bound("difference of the means (standard errors)", "<=", 1.2),),
    control="the gradient by the density",
    deviations="Gradients of log p(x|z) to the encoder's results, 64 digits to judge by, trained networks.",
)

NOISE = Claim(
    name="a quiet gradient",
    sentence="The gradient through the sample has a far smaller variance than the one by the density.",
    paper=Figure("The latter varies too much to be of use.", where="section 2.2", read="text"),
    rule=(
        Bound("variance without / with reparameterisation", ">=", 100.0, direction=2.0, ratio=True),
        Bound("the same, the mean taken off", ">=", 5.0, direction=1.5, ratio=True),
    ),
    control="the gradient by the density, as it is and with the best constant known for it (the mean over "
    "the other samples) taken off",
    breaks=(BY_DENSITY,),
    chosen_on=(0, 1),
    deviations="Gradients of log p(x|z) to the encoder's results, of 64 digits to judge by, at one trained "
    "network; the paper names the variance as a reason and measures none.",
)

RATES = (0.01, 0.03, 0.09)
Objective = Callable[[VAE, Images, torch.Generator], Float[Tensor, " batch"]]


class Held(NamedTuple):
    """Digits that choose, and digits that judge."""

    choose: Float[Tensor, "choose pixels"]
    judge: Float[Tensor, "judge pixels"]


class Trained(NamedTuple):
    """A model; the step, the bound and the likelihood at each evaluation, on digits to judge by."""

    model: VAE
    curve: list[tuple[int, float, float]]


def by_bound(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, " batch"]:
    return model(x, normal(model, x, generator))


def by_wake_sleep(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, " batch"]:
    noise, dream = normal(model, x, generator), normal(model, x, generator)
    return wake_sleep(model, x, noise, dream, torch.rand(x.shape, generator=generator).to(x))


def normal(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, "batch latent"]:
    return torch.randn(len(x), model.latent, generator=generator).to(x)


@hookimpl
def experiment(run: Run) -> None:
    source = run.source("images", at_most=run.pick(smoke=5_000, quick=5_000, full=None))
    x, choose, judge = (
        (images > 0.5).flatten(1).to(run.device, run.dtype)
        for images, _ in source.grey(run.pick(smoke=14, quick=14, full=28)).parts
    )
    objectives = run.arms({"bound": by_bound, "wake-sleep": by_wake_sleep}, control="wake-sleep")
    # The other claims' controls are no way to train: their null runs train by the bound.
    held, alone = Held(choose, judge), {"bound": by_bound}
    for name, other in ((NO_DIVERGENCE, without_divergence), (NO_GRADIENT, without_gradient)):
        if run.without(name.name):
            objectives["bound"] = alone["bound"] = partial(with_noise, other)
    runs: dict[str, list[Trained]] = {}
    rates = run.pick(smoke=(0.03,), quick=RATES, full=RATES)

    def tuned(arm: str, objective: Objective) -> Best[Trained]:
        def call(rate: float) -> tuple[float, Trained]:
            score, trained = train(run, arm, objective, x, held, rate=rate, latent=8)
            runs.setdefault(arm, []).append(trained)
            return score, trained

        return run.sweep(arm, rates, call, score="bound on choose", keep="highest")

    best = tuned("bound", alone["bound"])
    frequency = (x.sum(0) + 1) / (len(x) + 2)  # Laplace's: no pixel is impossible
    independent = log_bernoulli(frequency.logit().expand_as(judge), judge).mean().item()
    if run.wants(LIKELIHOOD):
        compare_likelihoods(run, best, runs["bound"], judge, independent)
    if run.wants(BETTER):
        theirs = tuned("wake-sleep", objectives["wake-sleep"])
        ours = theirs if objectives["bound"] is objectives["wake-sleep"] else best
        values = {
            "bound over wake-sleep's (nats)": ours.result.curve[-1][1] - theirs.result.curve[-1][1],
            "wake-sleep's steps / steps to its best bound": sooner(ours.result, theirs.result),
            "wake-sleep's bound over independent pixels' (nats)": theirs.result.curve[-1][1] - independent,
        }
        run.claim(BETTER, values, tuned=[ours, theirs])
    if run.wants(SAME_MEAN, NOISE):
        compare_gradients(run, best.result.model, judge[:64])
    if not (run.null or run.broken):
        draw(run, best.result.model, judge)
        _, plane = train(run, "bound", by_bound, x, held, rate=best.value, latent=2)
        draw_plane(run, plane.model)
    run.headline("bound on judge, 8 latent variables")


def with_noise(
    objective: Callable[[VAE, Images, Tensor], Tensor], model: VAE, x: Images, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    return objective(model, x, normal(model, x, generator))


def train(
    run: Run, arm: str, objective: Objective, x: Images, held: Held, *, rate: float, latent: int
) -> tuple[float, Trained]:
    """Make the objective large; the last bound of the digits that choose, and what came of it."""
    torch.manual_seed(run.seed)
    model = VAE(x.shape[1], run.pick(smoke=100, quick=100, full=500), latent).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches, noise, curve = run.generator("batches"), run.generator("noise"), []
    steps, every = run.pick(smoke=(6, 3), quick=(800, 40), full=(10_000, 200))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    names = [f"{what} on judge, {latent} latent variables" for what in ("bound", "likelihood")]
    run.phase("train")
    for step in run.steps(steps, f"{arm}, {latent} latent variables, rate {rate:g}"):
        batch = x[torch.randint(len(x), (100,), generator=batches)]
        loss = -objective(model, batch, noise).mean()
        run.descend(
            loss, optimizer, step=step, metric=f"loss, {latent} latent variables, rate {rate:g}", arm=arm
        )
        decay.step()
        if (step + 1) % every == 0:
            point = average_bound(run, model, held.judge), likelihood(run, model, held.judge, 100)
            curve.append((step + 1, *point))
            for name, value in zip(names, point, strict=True):
                run.metric(name, value, step=step + 1, arm=f"{arm}, rate {rate:g}")
    return average_bound(run, model, held.choose), Trained(model, curve)


def average_bound(run: Run, model: VAE, x: Images) -> float:
    """The mean over the digits and ten samples of each."""
    generator = run.generator("evaluation")
    with torch.no_grad():
        return sum(model(x, normal(model, x, generator)).mean().item() for _ in range(10)) / 10


def likelihood(run: Run, model: VAE, x: Images, draws: int) -> float:
    """The mean over the digits, from below."""
    generator, parts = run.generator("likelihood"), []
    draws = run.pick(smoke=5, quick=draws, full=5 * draws)
    with torch.no_grad():
        for some in x.split(20):
            noise = torch.randn(draws, len(some), model.latent, generator=generator).to(some)
            parts.append(log_likelihood(model, some, noise))
    return torch.cat(parts).mean().item()


def sooner(ours: Trained, theirs: Trained) -> float:
    """The step of their best bound over the first step at which ours is as high; the last, if it never is."""
    step, best = max(((step, bound) for step, bound, _ in theirs.curve), key=lambda point: point[1])
    return step / next((mine for mine, bound, _ in ours.curve if bound >= best), ours.curve[-1][0])


def compare_likelihoods(
    run: Run, best: Best[Trained], runs: list[Trained], judge: Images, independent: float
) -> None:
    """The bound, the likelihood and that of independent pixels, and how the two rise together."""
    run.phase("evaluate")
    model = best.result.model
    bound = average_bound(run, model, judge)
    arms = run.arms(
        {"variational autoencoder": likelihood(run, model, judge, 500), "independent pixels": independent},
        control="independent pixels",
    )
    for arm, value in arms.items():
        run.metric("log-likelihood on judge (nats)", value, arm=arm)
    run.metric("bound on judge (nats)", bound)
    points = torch.tensor([point[1:] for one in runs for point in one.curve], dtype=torch.float64)
    own = torch.tensor([point[1:] for point in best.result.curve], dtype=torch.float64)
    run.metric("rank correlation over all rates", rank_correlation(*points.T))
    values = {
        "rank correlation of likelihood and bound": rank_correlation(*own.T),
        "log-likelihood over the bound (nats)": likelihood(run, model, judge, 500) - bound,
        "log-likelihood over independent pixels' (nats)": arms["variational autoencoder"] - independent,
    }
    run.claim(LIKELIHOOD, values, tuned=[best])


def rank_correlation(a: Float[Tensor, " points"], b: Float[Tensor, " points"]) -> float:
    """Spearman's, of values that are all different."""
    ranks = torch.stack((a, b)).argsort(1).argsort(1).double()
    return torch.corrcoef(ranks)[0, 1].item()


def compare_gradients(run: Run, model: VAE, x: Images) -> None:
    """The same draws for both estimates: their means, and their variances."""
    draws = run.pick(smoke=200, quick=2000, full=10_000)
    noise = torch.randn(draws, len(x), model.latent, generator=run.generator("gradients")).to(x)
    through, density, value = gradient_draws(model, x, noise)
    others = (value.sum(0) - value) / (draws - 1)
    less = density * (value - others) / value
    estimates = {"through the sample": through, "by the density": density, "the same, mean off": less}
    variance = {arm: estimate.var(0).mean().item() for arm, estimate in estimates.items()}
    for arm, number in variance.items():
        run.metric("variance of the gradient", number, arm=arm)
    if run.wants(SAME_MEAN):
        error = ((through.var(0) + density.var(0)) / draws).sqrt()
        away = (through.mean(0) - density.mean(0)) / error
        run.claim(
            SAME_MEAN, {"difference of the means (standard errors)": away.square().mean().sqrt().item()}
        )
    if run.wants(NOISE):
        control = "the same, mean off"
        quiet = run.arms(variance, control=control)["through the sample"]
        if run.without(BY_DENSITY.name):
            quiet = variance["by the density"]
        values = {
            "variance without / with reparameterisation": variance["by the density"] / quiet,
            "the same, the mean taken off": variance[control] / quiet,
        }
        run.claim(NOISE, values)


def draw(run: Run, model: VAE, x: Images) -> None:
    """Digits that nobody wrote, and what is left of written ones."""
    z = torch.randn(64, model.latent, generator=run.generator("samples")).to(x)
    with torch.no_grad():
        drawn, mean = model.decode(z).sigmoid(), model.encode(x[:32])[0]
        again = model.decode(mean).sigmoid()
    run.image("samples", data.tiles(drawn), caption="Decoded from random z (as in figure 5, 8 variables).")
    rows = torch.cat((x[:32].view(4, 8, -1), again.view(4, 8, -1)), 1).flatten(0, 1)
    run.image("reconstructions", data.tiles(rows), caption="Held-out digits, and below them decoded again.")


def draw_plane(run: Run, model: VAE) -> None:
    """Figure 4: the plane of two latent variables, at equal steps of probability."""
    steps = torch.special.ndtri(torch.linspace(0.04, 0.96, 12)).to(run.device, run.dtype)
    with torch.no_grad():
        drawn = model.decode(torch.cartesian_prod(steps, steps)).sigmoid()
    run.image(
        "plane",
        data.tiles(drawn),
        columns=12,
        caption="Two latent variables, one along each side (as in figure 4).",
    )
