"""Exercises: write the loss, the exact gradient, rewards-to-go, and a baseline."""

from collections.abc import Iterator

from readtrack.plugin import (
    Draw,
    Exercise,
    Try,
)


def of_actions(draw: Draw) -> Iterator[Try]:
    yield Try("no baseline", draw(3), draw.below(3), draw())
    yield Try("baseline 0.5", draw(2, 3), draw.below(3, 2), draw(2), 0.5)
    yield Try("a baseline for each action", draw(4, 2), draw.below(2, 4), draw(4), draw(4))


EXERCISES = (
    Exercise(
        name="loss",
        of="model.reinforce",
        task="Write a loss whose gradient is minus the paper's update.",
        hints=(
            "Take the sampled action's entry of the log-softmax.",
            "Multiply it by the baseline minus the reward.",
        ),
        tries=of_actions,
    ),
    Exercise(
        name="exact gradient",
        of="model.exact_gradient",
        task="Compute the gradient of a bandit's expected reward with respect to the logits.",
        hints=(
            (
                "Let p be the softmax of the logits. The gradient of p · r is p times (r minus the mean of r "
                "under p)."
            ),
        ),
    ),
    Exercise(
        name="rewards to come",
        of="model.rewards_to_come",
        task="Compute the return from each step on, without a discount.",
        hints=("Take a cumulative sum from the end: flip the time axis before and after.",),
    ),
    Exercise(
        name="baseline",
        of="model.of_the_others",
        task="Compute a baseline for each episode that does not depend on this episode's actions.",
        hints=(
            "Subtract the episode's own rewards from the sum, and divide by the number of other episodes.",
        ),
    ),
)
