"""Exercises: write relative attention, the convolution module, the block, and CTC's two decoders."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Block, ConvolutionModule, RelativeAttention


def of_attentions(draw: Draw) -> Iterator[Try]:
    yield Try("one head", RelativeAttention(2, 1), draw(1, 2, 2))
    yield Try("2 heads", RelativeAttention(4, 2), draw(2, 3, 4))
    yield Try("the last frame is padding", RelativeAttention(4, 2), draw(1, 3, 4), inside(3, 2))


def of_modules(draw: Draw) -> Iterator[Try]:
    yield Try("3 frames", ConvolutionModule(2, 3, 0.1).eval(), draw(1, 3, 2))
    yield Try("the last frame is padding", ConvolutionModule(3, 3, 0.1).eval(), draw(1, 4, 3), inside(4, 3))


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("convolution alone", Block(2, 1, 3, hidden=2, attends=False).eval(), draw(1, 2, 2))
    yield Try("attention alone", Block(2, 1, 3, hidden=2, convolves=False).eval(), draw(1, 2, 2))
    yield Try("the last frame is padding", Block(2, 1, 3, hidden=2).eval(), draw(1, 3, 2), inside(3, 2))


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
        task="Write section 2.1's attention: scores by content and by distance, each with its own bias.",
        hints=(
            "`distances` gives embeddings from far left to far right, and linear_pos projects them.",
            "Scores by distance are (q + v) · position, shifted so that column j belongs to key j.",
            "Scale them, set padded keys to -inf, and pass them as attn_mask to the attention with q + u.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="convolution module",
        of="model.ConvolutionModule.forward",
        task="Apply figure 2's layers: norm, gate, depthwise convolution, batch norm, swish, projection.",
        hints=(
            "Apply the layer norm over channels first. Convolutions need channels before frames.",
            "pointwise_conv1 doubles the channels, and a GLU halves them again.",
            "Set padded frames to 0 after the GLU. Batch norm and swish follow the depthwise convolution.",
        ),
        tries=of_modules,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Write equation 1: attention and convolution between two half-step feed-forward layers.",
        hints=(
            "Both feed-forward layers are multiplied by one half, and all four sublayers have a shortcut.",
            "The convolution module contains its own norm. The block ends with one more norm.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="best path",
        of="decoding.greedy",
        task="Return the labels of CTC's most probable path.",
        hints=("First merge repeats, then drop blanks: a blank between two equal labels keeps both.",),
        tries=of_paths,
    ),
    Exercise(
        name="prefix search",
        of="decoding.prefix_search",
        task="Find the text whose paths sum to the highest probability, by a beam search over prefixes.",
        hints=(
            (
                "Keep two log-probabilities for each prefix: one for paths that end in a blank, and one for "
                "paths that end in its last label."
            ),
            "A blank or a repeated last label keeps the prefix. A repeat adds only to the label's sum.",
            "A label equal to the last one extends the prefix only after a blank.",
        ),
        tries=of_texts,
    ),
)
