"""Exercises: guidance, the codebook, the attention to the words, and the way back from noise."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from ..ddpm import Schedule
from .autoencoder import Codebook
from .blocks import HeadedAttention


def of_guides(draw: Draw) -> Iterator[Try]:
    yield Try("no guidance", draw(1, 1, 1, 2), draw(1, 1, 1, 2), 1.0)
    yield Try("a scale of 3", draw(2, 1, 2, 2), draw(2, 1, 2, 2), 3.0)
    yield Try("no text", draw(1, 2, 1, 2), draw(1, 2, 1, 2), 0.0)


def of_codes(draw: Draw) -> Iterator[Try]:
    yield Try("3 codes of 2 numbers", Codebook(3, 2), draw(1, 2, 1, 2))
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
        task="Classifier-free guidance: the noise to subtract, from the predictions with and without text.",
        hints=(
            "Scale 0 is the prediction without text, scale 1 the one with it; larger scales go further.",
            "It is a straight line through the two predictions.",
        ),
        tries=of_guides,
    ),
    Exercise(
        name="codebook",
        of="autoencoder.Codebook.forward",
        task="Vector quantisation with its straight-through gradient, and its loss.",
        hints=(
            "The embedding of self.nearest(z), with its last dimension moved behind the batch.",
            "The result has the codes' values, and the gradient of z: z + (found - z).detach().",
            "Two squared errors: codes towards a detached z; z towards detached codes, times commitment.",
        ),
        tries=of_codes,
    ),
    Exercise(
        name="cross-attention",
        of="blocks.HeadedAttention.forward",
        task="Section 3.3: the picture's places attend to the context.",
        hints=(
            "Queries come from x, keys and values from the context.",
            "split_heads before the attention, merge_heads after it, and to_out[0] at the end.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="denoising",
        of="model.denoise",
        task="From noise to a latent in equal DDIM steps, with the expected data clamped at each.",
        hints=(
            "steps + 1 rounded times from the last step of the schedule to -1; go from each to the next.",
            "predict_x0 of the predicted noise, clamped. Then solve equation 4 of DDPM for the noise again.",
            "schedule.ddim_step with this noise and with both times, as tensors of one entry a latent.",
        ),
        tries=of_chains,
        gradients=False,
    ),
)
