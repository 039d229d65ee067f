"""Exercises: attention with distances, the convolution module, the block, CTC's two decoders."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Block, ConvolutionModule, RelativeAttention


def of_attentions(draw: Draw) -> Iterator[Try]:
    yield Try("one head", RelativeAttention(2, 1), draw(1, 2, 2))
    yield Try("2 heads", RelativeAttention(4, 2), draw(2, 3, 4))
    yield Try("the last frame is outside", RelativeAttention(4, 2), draw(1, 3, 4), inside(3, 2))


def of_modules(draw: Draw) -> Iterator[Try]:
    yield Try("3 frames", ConvolutionModule(2, 3, 0.1).eval(), draw(1, 3, 2))
    yield Try("the last frame is outside", ConvolutionModule(3, 3, 0.1).eval(), draw(1, 4, 3), inside(4, 3))


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("convolution alone", Block(2, 1, 3, hidden=2, attends=False).eval(), draw(1, 2, 2))
    yield Try("attention alone", Block(2, 1, 3, hidden=2, convolves=False).eval(), draw(1, 2, 2))
    yield Try("the last frame is outside", Block(2, 1, 3, hidden=2).eval(), draw(1, 3, 2), inside(3, 2))


def inside(frames: int, count: int) -> torch.Tensor:
    return torch.arange(frames)[None] < count


def of_paths(draw: Draw) -> Iterator[Try]:
    for path in ([0, 1, 1], [1, 0, 1, 2], [2, 2, 1, 0, 0]):
        logs = draw(len(path), 3)
        logs[torch.arange(len(path)), path] += 9
        yield Try(f"the path {path}", logs.log_softmax(-1))


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one frame", draw(1, 3).log_softmax(-1))
    yield Try("3 frames", draw(3, 3).log_softmax(-1))
    yield Try("5 frames, likely repeats", (2 * draw(5, 2)).log_softmax(-1))
    yield Try("2 beams", draw(4, 4).log_softmax(-1), 2)


EXERCISES = (
    Exercise(
        name="relative attention",
        of="model.RelativeAttention.forward",
        task="Section 2.1: scores of contents and of distances, each with a bias of its own.",
        hints=(
            "`distances` gives embeddings from far left to far right; linear_pos projects them.",
            "Scores of distances are (q + v) · position, shifted so that they belong to keys.",
            "Their scaled scores, -inf for keys outside, are the attn_mask of the attention with q + u.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="convolution module",
        of="model.ConvolutionModule.forward",
        task="Section 2.2 and figure 2.",
        hints=(
            "Norm over the channels first. Convolutions want channels before frames.",
            "pointwise_conv1 makes twice the channels, of which a GLU makes half again.",
            "Frames outside are cleared after the GLU; batch norm and swish follow the depthwise one.",
        ),
        tries=of_modules,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Equation 1: the macaron of two half feed-forward layers.",
        hints=(
            "Both feed-forward layers count half, and all four sublayers have a residual.",
            "The convolution module has its norm inside. The block ends with one more norm.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="best path",
        of="decoding.greedy",
        task="The labels of the most probable path of CTC.",
        hints=("First join repeats, then drop blanks: a blank between two equal labels keeps both.",),
        tries=of_paths,
    ),
    Exercise(
        name="prefix search",
        of="decoding.prefix_search",
        task="The most probable text of CTC: paths of one text are added up, in a beam of prefixes.",
        hints=(
            "For each prefix keep two logs: of paths that end in a blank, and in its last label.",
            "A blank, or the last label again, keeps the prefix; the latter only adds to the label's log.",
            "A label equal to the last one makes the prefix longer only after a blank.",
        ),
        tries=of_texts,
    ),
)
