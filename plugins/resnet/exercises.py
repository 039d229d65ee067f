"""Exercises: the residual, the shortcuts, their sum, and the network."""

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
    yield Try("new features and half the size", Block(2, 3, stride=2, shortcut="A"), draw(2, 2, 4, 5))
    yield Try("half the size", Block(2, 2, stride=2, shortcut="A"), draw(2, 2, 3, 4))
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
        task="Compute F(x) by applying the block's layers, two in a basic block or three in a bottleneck.",
        hints=(
            "self.layers are convolutions with batch normalisation. You have to add the ReLUs.",
            "Apply a ReLU after each layer except the last. The block's final ReLU comes after the sum.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="shortcut",
        of="model.Block.carried",
        task="Compute the output of the shortcut: x itself, its projection, or a subsampled x with zeros as "
        "new features.",
        hints=(
            "self.projection is None unless the shortcut is a 1 × 1 convolution, which has its own stride.",
            "Without a projection, take every self.stride-th row and column of x.",
            "F.pad counts from the last dimension: four zeros, then 0 and self.new for the features.",
        ),
        tries=of_shortcuts,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Compute the block's output (equations 1 and 2). With shortcut “none”, the block is plain.",
        hints=(
            "Add F(x) and the output of the shortcut. There is a method for each.",
            "The ReLU comes after the sum.",
        ),
        tries=of_sums,
    ),
    Exercise(
        name="features",
        of="model.ResNet.features",
        task="Compute the feature maps of the last stage: stem, ReLU, pooling, then the stages.",
        hints=(
            "self.stem ends in batch normalisation, without a ReLU.",
            "self.pool exists for every stem. It is the identity if there is no pooling.",
        ),
        tries=of_networks,
    ),
)
