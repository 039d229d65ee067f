"""Exercises: write patches, positions on another grid, the tokens, the block, and attention rollout."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Block, Positions, ViT


def of_images(draw: Draw) -> Iterator[Try]:
    yield Try("patches of one pixel", draw(1, 2, 2, 2), 1)
    yield Try("2 × 2, one channel", draw(1, 1, 4, 4), 2)
    yield Try("2 × 3 patches, 3 channels", draw(2, 3, 4, 6), 2)


def of_grids(draw: Draw) -> Iterator[Try]:
    yield Try("the grid it was made for", Positions(2, 3, 2), 2, 3)
    yield Try("a larger grid", Positions(2, 2, 3), 3, 4)
    yield Try("a smaller grid", Positions(3, 3, 2), 2, 2)


def of_pictures(draw: Draw) -> Iterator[Try]:
    yield Try("4 patches", vit(), draw(1, 1, 4, 4))
    yield Try("a batch", vit(), draw(2, 1, 4, 4))
    yield Try("without positions", vit(positions=None), draw(2, 1, 4, 4))


def vit(positions: type[Positions] | None = Positions) -> ViT:
    sizes = {"side": 4, "patch": 2, "channels": 1, "model": 3, "heads": 1, "hidden": 2, "classes": 2}
    return ViT(layers=0, positions=positions, **sizes).eval()


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("one head", Block(2, 1, 3), draw(1, 2, 2))
    yield Try("2 heads, causal", Block(4, 2, 3), draw(2, 3, 4), causal=True)
    mask = draw.mask(1, 1, 3)
    mask[..., 0] = True
    yield Try("a mask", Block(2, 1, 2), draw(1, 3, 2), mask=mask)


def of_attentions(draw: Draw) -> Iterator[Try]:
    yield Try("one block", [draw(1, 1, 3, 3).softmax(-1)])
    yield Try("3 blocks of 2 heads", [draw(2, 2, 3, 3).softmax(-1) for _ in range(3)])


EXERCISES = (
    Exercise(
        name="patches",
        of="model.patches",
        task="Cut images into a grid of square patches, and flatten each patch.",
        hints=(
            "Unflatten the width and the height into (patches, size).",
            "Order the dimensions: batch, rows, columns, channel, row in the patch, column in the patch.",
        ),
        tries=of_images,
    ),
    Exercise(
        name="positions",
        of="model.Positions.forward",
        task="Interpolate the positions for a grid of another size, as in section 3.2.",
        hints=(
            "For the original grid, return the weight.",
            "Keep the class token's vector. The other vectors form an image with `model` channels.",
            "Use bicubic F.interpolate with align_corners=False, then flatten the grid again.",
        ),
        tries=of_grids,
    ),
    Exercise(
        name="tokens",
        of="model.ViT.tokens",
        task="Compute equation 1, the input of the first block.",
        hints=(
            "Embed the patches, flatten their grid, and put the class token first.",
            "Add the positions of this grid, if there are any. Dropout comes last.",
        ),
        tries=of_pictures,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Write equations 2 and 3: attention and MLP on normalised inputs, with residual connections.",
        hints=(
            "Compute x + dropout(attention(norm(x))), then do the same with the MLP.",
            "The MLP consists of up, activation, dropout and down. Its norm is norms[1].",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="rollout",
        of="model.rollout",
        task="Compute the contribution of each patch to the class token (appendix D.8).",
        hints=(
            "In each block, take the mean over the heads, then the mean of this and the identity.",
            "Multiply the blocks' matrices, later blocks from the left. Take the row of the class token.",
            "Leave out the class token's own column, and divide by the sum.",
        ),
        tries=of_attentions,
    ),
)
