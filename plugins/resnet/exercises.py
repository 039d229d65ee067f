"""Exercises: the residual, both shortcuts, the sum of the two, and the network around them."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Block, ResNet


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("one feature, one pixel", Block(1, 1), draw(2, 1, 1, 1))
    yield Try("3 features", Block(3, 3), draw(2, 3, 3, 4))
    yield Try("half the size, twice the features", Block(2, 4, stride=2), draw(2, 2, 4, 6))
    yield Try("a bottleneck", Block(4, 8, bottleneck=True), draw(2, 4, 3, 3))


def of_shortcuts(draw: Draw) -> Iterator[Try]:
    yield Try("the same shape", Block(2, 2), draw(2, 2, 2, 3))
    yield Try("new features, filled with zeros", Block(1, 3, shortcut="A"), draw(2, 1, 2, 2))
    yield Try("and half the size", Block(2, 3, stride=2, shortcut="A"), draw(2, 2, 4, 5))
    yield Try("half the size alone", Block(2, 2, stride=2, shortcut="A"), draw(2, 2, 3, 4))
    yield Try("projected", Block(2, 4, stride=2), draw(2, 2, 4, 4))


def of_sums(draw: Draw) -> Iterator[Try]:
    yield from of_blocks(draw)
    yield Try("no shortcut", Block(2, 2, shortcut="none"), draw(2, 2, 3, 3))


def of_networks(draw: Draw) -> Iterator[Try]:
    yield Try("one stage", ResNet((2,), (1,), stem=3, channels=1, classes=2), draw(2, 1, 3, 4))
    yield Try("two stages", ResNet((2, 3), (1, 1), stem=3, classes=3), draw(2, 3, 4, 6))
    yield Try("a pooled stem", ResNet((2,), (1,), stem=7, channels=1, classes=2), draw(2, 1, 8, 8))


EXERCISES = (
    Exercise(
        name="residual",
        of="model.Block.residual",
        task="F(x): the block's layers one after the other, two of a basic block or three of a bottleneck.",
        hints=(
            "self.layers are convolutions that end in their batch normalisation: ReLUs are yours to place.",
            "There is a ReLU after each layer but the last: the block's own comes after the sum.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="shortcut",
        of="model.Block.carried",
        task="What the shortcut adds: x itself, its projection, or x in fewer places with new features of 0.",
        hints=(
            "self.projection is None unless the shortcut is a 1 × 1 convolution; it strides by itself.",
            "Without one: every self.stride-th row and column of x, and nothing else of it.",
            "F.pad counts from the last dimension: four zeros, then 0 and self.new for the features.",
        ),
        tries=of_shortcuts,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Equations 1 and 2: the block's result; with shortcut “none” the plain network's.",
        hints=(
            "F(x) plus what the shortcut carries; there is a method for each.",
            "The ReLU comes after the sum.",
        ),
        tries=of_sums,
    ),
    Exercise(
        name="features",
        of="model.ResNet.features",
        task="The last stage's maps: stem, ReLU, pooling, then the stages.",
        hints=(
            "self.stem ends in its batch normalisation, without a ReLU.",
            "self.pool is there for every stem; where there is nothing to pool it does nothing.",
        ),
        tries=of_networks,
    ),
)
