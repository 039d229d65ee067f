"""Exercises: the residual block, the generator, a judge of periods, two losses."""

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
        yield Try(f"{judges} judge{'s' * (judges - 1)}", real, fake)


EXERCISES = (
    Exercise(
        name="residual block",
        of="model.ResidualBlock.forward",
        task="Section 2.2: dilated convolutions, each with its plain one if there is one, and residuals.",
        hints=(
            "A leaky ReLU, with SLOPE, stands before each convolution.",
            "The residual goes around a pair: x + plain(act(dilated(act(x)))).",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="generator",
        of="model.Generator.forward",
        task="From log-mel to a wave: upsampling, and the mean of the blocks of each stage.",
        hints=(
            "Each stage has as many blocks as there are kernels, in a row in self.resblocks.",
            "Blocks of a stage all see what was upsampled; their results are averaged.",
            "The last leaky ReLU has torch's slope; a tanh comes after conv_post.",
        ),
        tries=of_mels,
    ),
    Exercise(
        name="periods",
        of="model.PeriodDiscriminator.forward",
        task="Section 2.3: the wave in columns of a period, judged, with the features of all layers.",
        hints=(
            "Reflect the end until there are whole periods, then unflatten into (time, period).",
            "Features are taken after each leaky ReLU, and conv_post's without one.",
        ),
        tries=of_waves,
    ),
    Exercise(
        name="discriminator loss",
        of="model.discriminator_loss",
        task="Equation 1, over all judges.",
        hints=("Real scores should be 1 and generated ones 0: mean squares, added up.",),
        tries=of_judges,
    ),
    Exercise(
        name="feature matching",
        of="model.feature_loss",
        task="Equation 4 with its weight of 2, over all judges and their layers.",
        hints=(
            "Pair the judges of both, then the layers of each pair.",
            "The mean absolute difference of each layer; twice the sum of all.",
        ),
        tries=of_judges,
    ),
)
