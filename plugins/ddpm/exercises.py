"""Exercises: write the forward process in closed form, its posterior, a sampling step and the time
embedding."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Schedule


def schedule(draw: Draw, steps: int) -> Schedule:
    return Schedule(draw.between(0.05, 0.6, steps))


def of_noise(draw: Draw) -> Iterator[Try]:
    yield Try("the first step", schedule(draw, 3), draw(1, 2), torch.tensor([0]), draw(1, 2))
    yield Try("steps 0, 2 and 3", schedule(draw, 4), draw(3, 2), torch.tensor([0, 2, 3]), draw(3, 2))
    yield Try("images", schedule(draw, 3), draw(2, 1, 2, 2), torch.tensor([2, 1]), draw(2, 1, 2, 2))


def of_steps(draw: Draw) -> Iterator[Try]:
    for one in of_noise(draw):
        chain, x, t, noise = one.arguments
        yield Try(one.label, chain, x, t, noise, draw(*x.shape))
        yield Try(f"{one.label}, small variance", chain, x, t, noise, draw(*x.shape), small=True)


def of_posteriors(draw: Draw) -> Iterator[Try]:
    for one in of_noise(draw):
        chain, x0, t, x = one.arguments
        yield Try(one.label, chain, x0, x, t)


def of_times(draw: Draw) -> Iterator[Try]:
    yield Try("time 0", torch.tensor([0]), 4)
    yield Try("3 times", torch.tensor([1, 7, 500]), 6)


EXERCISES = (
    Exercise(
        name="add noise",
        of="model.Schedule.add_noise",
        task="Equation 4: sample step t directly from the data.",
        hints=(
            "alpha_bar[t] is the share of the variance that comes from the data. The rest is noise.",
            "Both factors are square roots of these shares. `like` reshapes them for the data.",
        ),
        tries=of_noise,
    ),
    Exercise(
        name="posterior",
        of="model.Schedule.posterior",
        task="Equations 6 and 7: compute the mean and the variance of the previous step, given the data.",
        hints=(
            "The mean is a sum of x0 and x, each with a factor. Divide both factors by 1 - alpha_bar[t].",
            "x0 has the factor √b · beta, and x has √(1 - beta) (1 - b), where b is alpha_bar_before[t].",
            "The variance is beta · (1 - b) / (1 - alpha_bar[t]).",
        ),
        tries=of_posteriors,
    ),
    Exercise(
        name="mean",
        of="model.Schedule.mean",
        task="Equation 11: compute the mean of the previous step, given the predicted noise.",
        hints=(
            "It is the posterior's mean with x0 replaced by equation 4's solution for it.",
            "What remains is x - beta / √(1 - alpha_bar) · noise, divided by √(1 - beta).",
        ),
        tries=of_noise,
    ),
    Exercise(
        name="step",
        of="model.Schedule.step",
        task="Algorithm 2: take one sampling step.",
        hints=(
            "Return the mean plus the root of the variance times `draw`.",
            "The variance is beta[t], or the posterior's if `small` is set. At t = 0 no noise is added.",
        ),
        tries=of_steps,
    ),
    Exercise(
        name="time",
        of="model.timestep_embedding",
        task="Write the sinusoidal time embedding.",
        hints=(
            "The width / 2 frequencies fall geometrically from 1 to 1/10000, both included.",
            "All sines come first, then all cosines.",
        ),
        tries=of_times,
    ),
)
