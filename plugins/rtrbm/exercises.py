"""Exercises: the biases of all frames, the free energy, Gibbs sampling, the loss, and the likelihood."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import RTRBM


def machine(visible: int, hidden: int, *, temporal: bool = False, through_time: bool = True) -> RTRBM:
    return RTRBM(visible, hidden, std=0.5, recurrent=0.5, temporal=temporal, through_time=through_time)


def of_films(draw: Draw) -> Iterator[Try]:
    yield Try("2 frames", machine(2, 1), film(draw, 1, 2, 2))
    yield Try("3 frames", machine(2, 3), film(draw, 2, 3, 2))


def of_biases(draw: Draw) -> Iterator[Try]:
    yield from of_films(draw)
    yield Try("without a gradient", machine(2, 2, through_time=False), film(draw, 2, 3, 2))
    yield Try("a temporal RBM, expected values", machine(2, 2, temporal=True), film(draw, 1, 3, 2))
    yield Try("a temporal RBM, samples", machine(2, 2, temporal=True), film(draw, 2, 3, 2), coin())


def of_energies(draw: Draw) -> Iterator[Try]:
    for one in of_films(draw):
        network, frames = one.arguments
        yield Try(one.label, network, frames, draw(*frames.shape[:2], network.W.shape[1]))


def of_chains(draw: Draw) -> Iterator[Try]:
    for one in of_energies(draw):
        yield Try(f"{one.label}, mean fields", *one.arguments, 1, None)
        yield Try(f"{one.label}, 3 samples", *one.arguments, 3, coin())


def of_losses(draw: Draw) -> Iterator[Try]:
    for one in of_films(draw):
        yield Try(one.label, *one.arguments, 2, coin())


def film(draw: Draw, batch: int, time: int, visible: int) -> torch.Tensor:
    return draw.below(2, batch, time, visible).double()


def coin() -> torch.Generator:
    return torch.Generator().manual_seed(1)


EXERCISES = (
    Exercise(
        name="biases",
        of="model.RTRBM.biases",
        task="Compute the hidden biases of all frames from the expected hidden units of the previous frames.",
        hints=(
            "The first frame has first_bias. The units passed on are σ(frame · W + bias of this frame).",
            "The next bias is hidden_bias + U h. A temporal RBM with a generator passes on a sample.",
            "No gradient goes through h in a temporal RBM, or if through_time is False.",
        ),
        tries=of_biases,
    ),
    Exercise(
        name="free energy",
        of="model.RTRBM.free_energy",
        task="Compute the free energy of frames given their hidden biases, by a sum over all hidden states.",
        hints=(
            "The visible units contribute -frames · visible_bias.",
            (
                "The sum over the two states of a hidden unit with input a is 1 + e^a, so each unit "
                "contributes minus a softplus."
            ),
        ),
        tries=of_energies,
    ),
    Exercise(
        name="Gibbs",
        of="model.RTRBM.gibbs",
        task="Alternate between hidden and visible units, with samples or with expected values.",
        hints=(
            "Hidden units first: σ(frames · W + biases). Then visible units: σ(h · Wᵀ + visible_bias).",
            "With a generator, sample both, hidden units first.",
        ),
        tries=of_chains,
    ),
    Exercise(
        name="loss",
        of="model.RTRBM.loss",
        task="Write contrastive divergence as the difference of two free energies.",
        hints=(
            "Subtract the free energy of the Gibbs samples from that of the frames, with the same biases.",
            "No gradient goes through the sampling. Sum over the frames, and average over the batch.",
        ),
        tries=of_losses,
    ),
    Exercise(
        name="likelihood",
        of="model.RTRBM.log_likelihood",
        task="Compute equation 5, with each frame's normaliser computed by enumerating its states.",
        hints=(
            "The log-probability of a frame is minus its free energy minus the log of its normaliser.",
            (
                "The log of the normaliser is the logsumexp of -free_energy over all 2^visible states, "
                "with the frame's bias."
            ),
        ),
        tries=of_films,
    ),
)
