"""Compares training with the variational bound to wake-sleep and to a mixture of Bernoullis."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

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
    Table,
    Trial,
    at_least,
    hookimpl,
)

from .digits import draw_digits
from .gradients import compare_gradients
from .model import (
    VAE,
    Images,
    by_density,
    log_bernoulli,
    log_likelihood,
    wake_sleep,
    without_divergence,
    without_gradient,
)

NO_DIVERGENCE = Break(
    "no KL divergence", "The objective leaves out the KL divergence from the prior.", "near miss"
)
NO_GRADIENT = Break(
    "no gradient through the sample",
    "No gradient flows through the sample, so the encoder only learns to match the prior.",
)
ONE_DRAW = Break(
    "score-function gradient, one sample",
    "The encoder is trained with the score-function gradient from one sample.",
    "near miss",
)
MIXTURE = Break(
    "mixture of Bernoullis",
    "The model is a mixture of 90, 180 or 360 components with independent pixels, fitted by expectation "
    "maximisation. A pass over the training digits counts as one step for each 100 of them.",
    "rival",
)

STEPS = 800
DEVIATIONS = (
    "The data are binary digits of 8 × 8 pixels on a canvas of 10 × 10 pixels. The 898 training digits are "
    "shown at all nine positions, and each test digit at a random position. The networks have 100 hidden "
    "units and 8 latent variables. We use Adam with a learning rate that decays to 0 instead of Adagrad, and "
    "torch's initialisation instead of N(0, 0.01). We put no prior on the weights. The paper's section 5 "
    "puts an N(0, 1) prior on them, which acts as weight decay and makes the estimate MAP. Training takes "
    "800 batches of 100. "
)

LIKELIHOOD = Claim(
    name="likelihood against wake-sleep",
    sentence="After 800 steps, networks trained with the bound give held-out digits a higher likelihood than "
    "networks trained with wake-sleep.",
    paper=Figure(
        "The curves show a higher estimated likelihood than wake-sleep with 1,000 and with 50,000 images.",
        where="figure 3",
        read="text",
    ),
    rule=(at_least("log-likelihood", "bound", 0.2, minus="wake-sleep", toward=0.0),),
    guards=(
        at_least("log-likelihood over the bound", "bound", 0.0),
        at_least("log-likelihood", "bound", 3.0, minus="independent pixels"),
    ),
    control="wake-sleep with the same networks, optimiser and grid of learning rates. Both methods use their "
    "best learning rate",
    control_arm="wake-sleep",
    control_reaches=(at_least("log-likelihood", "wake-sleep", 1.0, minus="independent pixels"),),
    after_steps=STEPS,
    breaks=(NO_DIVERGENCE, MIXTURE, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "The likelihood is estimated with 500 importance-weighted samples from the "
    "encoder. The paper uses Hamiltonian Monte Carlo. We leave out Monte Carlo EM, the third curve of "
    "figure 3. By Jensen's inequality, the likelihood is never lower than the bound.",
    history=(
        (
            "Until November 2026 the claim was that raising the lower bound on the likelihood raises the "
            'likelihood. The verdict was "reproduced" (5 of 5 seeds). The rule required a rank correlation '
            "of at least 0.8 between the two during training, and a likelihood at least 3 nats above that of "
            "independent pixels. Any two curves that rise during training are correlated, so figure 3's "
            "comparison replaced the correlation."
        ),
        (
            "Until 27 November 2026 the digits did not move, and after four times the steps, wake-sleep was "
            "ahead, because networks trained with the bound fitted the 1,078 training digits too closely. "
            'The verdict was "inconclusive" (same bounds). The paper\'s networks train on up to 50,000 '
            "images. The bound on the distance to independent pixels is now a guard, because wake-sleep "
            "alone clears it. The mixture had 10, 20 or 40 components, too few for ten digits at nine "
            "positions."
        ),
    ),
)

BETTER = Claim(
    name="lower bound against wake-sleep",
    sentence="After 800 steps, networks trained with the bound reach a higher bound on held-out digits than "
    "networks trained with wake-sleep, and reach wake-sleep's best bound in fewer steps.",
    paper=Figure(
        "The curves show considerably faster convergence to a better solution in all experiments.",
        where="figure 2",
        read="text",
    ),
    rule=(
        at_least("bound", "bound", 0.2, minus="wake-sleep", toward=0.0),
        Bound("steps to wake-sleep's best bound, wake-sleep / bound", ">=", 1.15, direction=1.0, ratio=True),
    ),
    control="wake-sleep with the same networks, optimiser and grid of learning rates. Both methods use their "
    "best learning rate",
    control_arm="wake-sleep",
    control_reaches=(at_least("bound", "wake-sleep", 1.0, minus="independent pixels"),),
    after_steps=STEPS,
    breaks=(NO_GRADIENT, ONE_DRAW, MIXTURE, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "The learning rate is chosen by the bound on validation digits.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds), and there was no '
            "rival. The sentence did not give the number of steps."
        ),
        (
            'Then the verdict was "not judged", because a fifth of the digits was too few to judge the '
            "difference. Now two fifths are test digits. The seeds are the same."
        ),
        (
            "With digits that do not move, this was never judged. On seed 0, the difference was 0.31 nats "
            "after 800 steps and -0.09 after 3,200, because the networks fitted the 898 training digits too "
            "closely. With digits that move, it was 1.16 and, in a trial with other weights, 0.63. The rival "
            "was the score-function gradient from four samples, but it raises the same bound. A mixture of "
            "Bernoullis replaces it. Its exact log-likelihood takes the place of the bound."
        ),
    ),
)

RATES = (0.01, 0.03, 0.09)
LATENT = 8
Objective = Callable[[VAE, Images, torch.Generator], Float[Tensor, " batch"]]
EachDigit = Float[Tensor, " digits"]


class Mixture(NamedTuple):
    """A mixture of independent pixels. `shares` are the log-weights of its components."""

    logits: Float[Tensor, "parts pixels"]
    shares: Float[Tensor, " parts"]

    def joint(self, x: Images) -> Float[Tensor, "parts batch"]:
        empty = -F.softplus(self.logits).sum(1)  # the log-probability of an image without ink
        return self.logits @ x.mT + (empty + self.shares)[:, None]

    def log_probability(self, x: Images) -> Float[Tensor, " batch"]:
        return self.joint(x).logsumexp(0)


class Trained(NamedTuple):
    """A model, its curve of (step, bound on test digits), and the number of steps."""

    model: VAE | Mixture
    curve: list[tuple[int, float]]
    steps: int


def by_bound(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, " batch"]:
    return model(x, normal(model, x, generator))


def by_wake_sleep(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, " batch"]:
    noise, dream = normal(model, x, generator), normal(model, x, generator)
    return wake_sleep(model, x, noise, dream, torch.rand(x.shape, generator=generator).to(x))


def by_score(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, " batch"]:
    return by_density(model, x, normal(model, x, generator)[None])


def with_noise(
    objective: Callable[[VAE, Images, Tensor], Tensor], model: VAE, x: Images, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    return objective(model, x, normal(model, x, generator))


def normal(model: VAE, x: Images, generator: torch.Generator) -> Float[Tensor, "batch latent"]:
    return torch.randn(len(x), model.latent, generator=generator).to(x)


@hookimpl
def experiment(run: Run) -> None:
    digits = draw_digits(run)
    x = digits.train
    frequency = (x.sum(0) + 1) / (len(x) + 2)  # Laplace smoothing, so that no pixel has probability 0
    independent = log_bernoulli(frequency.logit().expand_as(digits.judge), digits.judge)
    table = run.compare(
        BETTER,
        LIKELIHOOD,
        arms={
            "bound": Arm(partial(train, by_bound)),
            "wake-sleep": Arm(partial(train, by_wake_sleep)),
        },
        attempt=lambda at, make, rate: make(at, rate),
        read=measure,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation bound",
        keep="highest",
        references={"independent pixels": {"bound": independent, "log-likelihood": independent}},
        derive=sooner,
        breaks={
            NO_DIVERGENCE.name: {"bound": Arm(partial(train, partial(with_noise, without_divergence)))},
            NO_GRADIENT.name: {"bound": Arm(partial(train, partial(with_noise, without_gradient)))},
            ONE_DRAW.name: {"bound": Arm(partial(train, by_score))},
            MIXTURE.name: {"bound": Arm(fit_mixture)},
        },
        world=digits,
        unequal={
            "wake-sleep": "how much they draw: wake-sleep also samples images, which favours neither arm"
        },
    )
    run.headline("test bound")

    networks = [known(run, digits.train, latent) for latent in (LATENT, 2)]
    compare_gradients(run, networks[0], digits.judge[:64])
    if not (run.null or run.broken):
        draw(run, table.sweeps["bound"].chosen.model, digits.judge)
        draw_plane(run, networks[1])


def known(run: Run, x: Images, latent: int) -> VAE:
    """A network with `latent` latent variables, trained with the bound."""

    def learn(network: nn.Module) -> None:
        assert isinstance(network, VAE)
        fit(run, network, by_bound, x, RATES[1], f"{latent} latent variables", number_of_steps(run))

    network = run.trained(f"vae {latent}", partial(VAE, x.shape[1], 100, latent), learn).network
    assert isinstance(network, VAE)
    return network


def number_of_steps(run: Run) -> int:
    return run.pick(smoke=6, quick=STEPS, full=10_000)


def train(objective: Objective, at: Trial, rate: float) -> tuple[float, Trained]:
    """Maximise the objective, and return the bound on validation digits and its curve on test digits."""
    run, digits = at.run, at.world
    model = VAE(digits.train.shape[1], 100, LATENT).to(run.device, run.dtype)
    steps, every, curve = at.length(number_of_steps(run)), run.pick(smoke=3, quick=40, full=200), []
    name = f"{at.name}, rate {rate:g}"

    def evaluate(step: int) -> None:
        if step % every == 0:
            value = average_bound(model, digits.judge, run.data("noise to judge by", "judge")).mean().item()
            curve.append((step, value))
            run.metric("test bound", value, step=step, arm=name)

    fit(at, model, objective, digits.train, rate, name, steps, evaluate, (curve,))
    score = average_bound(model, digits.choose, run.data("noise to choose by", "choose")).mean().item()
    return score, Trained(model, curve, steps)


def fit(
    at: Run | Trial,
    model: VAE,
    objective: Objective,
    x: Images,
    rate: float,
    name: str,
    steps: int,
    after: Callable[[int], None] = lambda step: None,
    kept: Sequence[list[Any]] = (),
) -> None:
    """Train with Adam and a learning rate that decays to 0. Call `after` with the number of steps so far.

    kept  lists that `after` changes, saved so that a stopped run can continue
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    batches, noise = at.generator("batches"), at.generator("noise")
    for step in at.steps(steps, name, (model, optimizer, decay, *kept)):
        batch = x[torch.randint(len(x), (100,), generator=batches)]
        at.descend(-objective(model, batch, noise).mean(), optimizer, step=step, arm=name)
        decay.step()
        after(step + 1)


def fit_mixture(at: Trial, rate: float) -> tuple[float, Trained]:
    """Fit by expectation maximisation, and choose the number of components on the validation digits."""
    x, judge, found = at.world.train, at.world.judge, []
    generator, steps = at.generator("parts"), math.ceil(len(x) / 100)  # steps in a pass
    for parts in (90, 180, 360):
        start = 0.25 + 0.5 * torch.rand(parts, x.shape[1], generator=generator).to(x)
        mixture, curve = Mixture(start.logit(), torch.zeros(parts).to(x).log_softmax(0)), []
        passes = at.run.pick(smoke=2, quick=60, full=200)
        for index in at.steps(passes, f"a mixture of {parts}"):
            owned = mixture.joint(x).softmax(0)
            count = owned.sum(1)
            ink = (owned @ x + 0.1) / (count[:, None] + 0.2)
            mixture = Mixture(ink.logit(), (count + 0.1).log().log_softmax(0))
            curve.append(((index + 1) * steps, mixture.log_probability(judge).mean().item()))
        trained = Trained(mixture, curve, passes * steps)
        found.append((mixture.log_probability(at.world.choose).mean().item(), trained))
    return max(found, key=lambda one: one[0])


@torch.no_grad()
def average_bound(model: VAE, x: Images, noise: torch.Generator) -> EachDigit:
    """The bound for each digit, as the mean over ten samples."""
    return torch.stack([model(x, normal(model, x, noise)) for _ in range(10)]).mean(0)


@torch.no_grad()
def likelihood(model: VAE, x: Images, draws: int, generator: torch.Generator) -> EachDigit:
    """An estimated lower bound on log p(x) for each digit."""
    parts = []
    for some in x.split(20):
        noise = torch.randn(draws, len(some), model.latent, generator=generator).to(some)
        parts.append(log_likelihood(model, some, noise))
    return torch.cat(parts)


def measure(at: Trial, found: Sweep[Trained]) -> dict[str, EachDigit]:
    """The bound and the likelihood of each test digit. For a mixture, both are exact and equal."""
    model, judge = found.chosen.model, at.world.judge
    if isinstance(model, Mixture):
        bound = whole = model.log_probability(judge)
    else:
        bound = average_bound(model, judge, at.run.data("noise to judge by", "judge"))
        draws = at.run.pick(smoke=5, quick=500, full=2500)
        whole = likelihood(model, judge, draws, at.run.data("samples of the likelihood", "judge"))
    at.metric("test log-likelihood (nats)", whole.mean().item())
    return {"bound": bound, "log-likelihood": whole, "log-likelihood over the bound": whole - bound}


def sooner(table: Table) -> dict[str, dict[str, float]]:
    """The step of wake-sleep's best bound, divided by the first step at which our bound is as high."""
    ours, theirs = (table.sweeps[arm].chosen for arm in ("bound", "wake-sleep"))
    step, best = max(theirs.curve, key=lambda point: point[1])
    first = next((mine for mine, bound in ours.curve if bound >= best), ours.steps)
    return {"": {"steps to wake-sleep's best bound, wake-sleep / bound": step / first}}


def draw(run: Run, model: VAE, x: Images) -> None:
    """Show digits decoded from random latents, and reconstructions of held-out digits."""
    z = torch.randn(64, model.latent, generator=run.generator("samples")).to(x)
    with torch.no_grad():
        drawn, mean = model.decode(z).sigmoid(), model.encode(x[:32])[0]
        again = model.decode(mean).sigmoid()
    run.image(
        "samples",
        data.tiles(drawn),
        caption="Digits decoded from random z, as in figure 5, with 8 latent variables.",
    )
    rows = torch.cat((x[:32].view(4, 8, -1), again.view(4, 8, -1)), 1).flatten(0, 1)
    names, caption = ["digit", "decoded"] * 4, "Held-out digits, each with the reconstruction below."
    run.image("reconstructions", data.tiles(rows), columns=8, rows=names, caption=caption)


def draw_plane(run: Run, model: VAE) -> None:
    """Figure 4: decode a grid of two latent variables, spaced in equal steps of probability."""
    steps = torch.special.ndtri(torch.linspace(0.04, 0.96, 12)).to(run.device, run.dtype)
    with torch.no_grad():
        drawn = model.decode(torch.cartesian_prod(steps, steps)).sigmoid()
    run.image(
        "plane",
        data.tiles(drawn),
        columns=12,
        caption="Digits decoded from two latent variables, one along each axis, as in figure 4.",
    )
