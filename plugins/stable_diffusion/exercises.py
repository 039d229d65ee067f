"""Exercises: guidance, the codebook, cross-attention, and denoising."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from ..ddpm import Schedule
from .autoencoder import Codebook
from .blocks import HeadedAttention


def of_guides(draw: Draw) -> Iterator[Try]:
    yield Try("no guidance", draw(1, 1, 1, 2), draw(1, 1, 1, 2), 1.0)
    yield Try("scale 3", draw(2, 1, 2, 2), draw(2, 1, 2, 2), 3.0)
    yield Try("no text", draw(1, 2, 1, 2), draw(1, 2, 1, 2), 0.0)


def of_codes(draw: Draw) -> Iterator[Try]:
    yield Try("3 codes of size 2", Codebook(3, 2), draw(1, 2, 1, 2))
    yield Try("4 codes, 2 images", Codebook(4, 3), draw(2, 3, 2, 2))
    yield Try("another commitment", Codebook(4, 2), draw(2, 2, 1, 2), 0.5)


def of_attentions(draw: Draw) -> Iterator[Try]:
    yield Try("one head", HeadedAttention(2, 3, 1), draw(1, 2, 2), draw(1, 3, 3))
    yield Try("2 heads", HeadedAttention(4, 3, 2), draw(2, 3, 4), draw(2, 2, 3))


def of_chains(draw: Draw) -> Iterator[Try]:
    def half(z: object, t: object) -> object:
        return 0.5 * z  # type: ignore[operator]

    yield Try("one step", Schedule(draw.between(0.05, 0.5, 3)), half, draw(1, 1, 1, 2), 1, 9.0)
    yield Try("2 steps of 4", Schedule(draw.between(0.05, 0.5, 4)), half, draw(2, 1, 1, 2), 2, 9.0)
    yield Try("a limit", Schedule(draw.between(0.05, 0.5, 5)), half, draw(1, 1, 2, 2), 2, 0.5)


EXERCISES = (
    Exercise(
        name="guidance",
        of="model.guided",
        task="Classifier-free guidance: combine the noise predicted with the text and without the text.",
        hints=(
            (
                "Scale 0 gives the prediction without text, and scale 1 the one with text. Larger scales "
                "extrapolate."
            ),
            "It is a straight line through the two predictions.",
        ),
        tries=of_guides,
    ),
    Exercise(
        name="codebook",
        of="autoencoder.Codebook.forward",
        task="Quantise vectors with a straight-through gradient, and compute the loss.",
        hints=(
            "Look up the embedding of self.nearest(z), and move its last dimension to after the batch.",
            "The result has the values of the codes and the gradient of z: z + (found - z).detach().",
            "Add mse(codes, detached z) and commitment times mse(z, detached codes).",
        ),
        tries=of_codes,
    ),
    Exercise(
        name="cross-attention",
        of="blocks.HeadedAttention.forward",
        task="Section 3.3: the positions of the image attend to the context.",
        hints=(
            "Queries come from x, keys and values from the context.",
            "Use split_heads before the attention, merge_heads after it, and to_out[0] at the end.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="denoising",
        of="model.denoise",
        task="Denoise latents in equal DDIM steps, and clamp the predicted data in each.",
        hints=(
            (
                "Round steps + 1 equally spaced times, from the schedule's last step to -1. Go from each to "
                "the next."
            ),
            "Clamp predict_x0 of the predicted noise, then solve equation 4 of DDPM for the noise again.",
            (
                "Call schedule.ddim_step with this noise and with both times, as tensors of one entry per "
                "latent."
            ),
        ),
        tries=of_chains,
        gradients=False,
    ),
)
