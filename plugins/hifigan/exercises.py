"""Exercises: write the residual block, the generator, a multi-period discriminator, and two losses."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Generator, PeriodDiscriminator, ResidualBlock, Version

SMALL = Version(4, (2,), (4,), (1, 3), ((1,), (1, 2)))


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("one convolution", ResidualBlock(1, 3, (1,), True), draw(1, 1, 3))
    yield Try("pairs of convolutions", ResidualBlock(2, 3, (1, 2), False), draw(2, 2, 5))


def of_mels(draw: Draw) -> Iterator[Try]:
    yield Try("one frame", Generator(SMALL, 1), draw(1, 1, 1))
    yield Try("2 frames", Generator(SMALL, 2), draw(2, 2, 2))


def of_waves(draw: Draw) -> Iterator[Try]:
    yield Try("whole periods", PeriodDiscriminator(2, (1,), 2), draw(1, 6))
    yield Try("the last period is short", PeriodDiscriminator(3, (2,), 2), draw(2, 7))


def of_judges(draw: Draw) -> Iterator[Try]:
    for judges in (1, 2):
        real, fake = ([(draw(2, 3), [draw(2, 4), draw(2, 2)]) for _ in range(judges)] for _ in range(2))
        yield Try(f"{judges} discriminator{'s' * (judges - 1)}", real, fake)


EXERCISES = (
    Exercise(
        name="residual block",
        of="model.ResidualBlock.forward",
        task="Section 2.2: apply the dilated convolutions with residual connections. If the block has plain "
        "convolutions, each dilated convolution is followed by a plain one.",
        hints=(
            "Apply a leaky ReLU with SLOPE before each convolution.",
            "The residual connection skips a pair: x + plain(act(dilated(act(x)))).",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="generator",
        of="model.Generator.forward",
        task="Generate a wave from a log-mel spectrogram. In each stage, upsample, then average the outputs "
        "of the residual blocks.",
        hints=(
            "Each stage has one block per kernel size. self.resblocks has the blocks of all stages in order.",
            "All blocks of a stage get the upsampled input, and their outputs are averaged.",
            "The last leaky ReLU has torch's default slope. A tanh follows conv_post.",
        ),
        tries=of_mels,
    ),
    Exercise(
        name="periods",
        of="model.PeriodDiscriminator.forward",
        task="Section 2.3: reshape the wave by its period, and return the scores and all layers' features.",
        hints=(
            "Pad the end by reflection to a multiple of the period, then unflatten into (time, period).",
            "The features are the outputs of every leaky ReLU and of conv_post, which has no activation.",
        ),
        tries=of_waves,
    ),
    Exercise(
        name="discriminator loss",
        of="model.discriminator_loss",
        task="Equation 1: sum the discriminator loss over all discriminators.",
        hints=("The targets are 1 for real and 0 for generated waves. Add the two mean squared errors.",),
        tries=of_judges,
    ),
    Exercise(
        name="feature matching",
        of="model.feature_loss",
        task="Equation 4: sum the feature distances over all discriminators and their layers, with a "
        "weight of 2.",
        hints=(
            "Pair the discriminators of both lists, then the layers of each pair.",
            "Take the mean absolute difference of each layer, sum over all layers, and multiply by 2.",
        ),
        tries=of_judges,
    ),
)
