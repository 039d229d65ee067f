"""Exercises: the patch embedder, the whole, and generation with two caches."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Megabyte


def model() -> Megabyte:
    return Megabyte(patch=2, patches=3, D_G=4, D_L=2, layers=(1, 1), heads=(1, 1), std=0.5)


def of_patches(draw: Draw) -> Iterator[Try]:
    yield Try("one patch", model(), draw.below(256, 1, 1, 2), 0)
    yield Try("3 patches", model(), draw.below(256, 2, 3, 2), 0)
    yield Try("patches after others", model(), draw.below(256, 2, 1, 2), 2)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one patch", model(), draw.below(256, 1, 2))
    yield Try("2 patches", model(), draw.below(256, 2, 4))


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1)


def of_prompts(draw: Draw) -> Iterator[Try]:
    yield Try("one patch more", model(), draw.below(256, 1, 2), 1, likeliest)
    yield Try("2 patches more", model(), draw.below(256, 2, 2), 2, likeliest)


EXERCISES = (
    Exercise(
        name="patch embedder",
        of="model.Megabyte.embed_patches",
        task="What the global model gets for each patch: the bytes of the patch before it.",
        hints=(
            "A byte brings its embedding plus its position; those of a patch are flattened side by side.",
            "From patch 0 on, the last patch is left out and the learned vector stands first.",
            "Patches after others are their own predecessors: positions start one patch earlier.",
        ),
        tries=of_patches,
    ),
    Exercise(
        name="logits",
        of="model.Megabyte.forward",
        task="Section 2: patches, the global model, and the local model inside each patch.",
        hints=(
            "across_patches has a vector for each byte; local embeddings and positions are added to it.",
            "The local model sees the bytes of its patch moved by one: first_byte, then all but the last.",
            "Patches are texts of their own to the local model: fold them into the batch.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="generation",
        of="model.Megabyte.generate",
        task="Bytes one after another; the global model runs once a patch, the local one once a byte.",
        hints=(
            "A cache has (layers, 2, batch, heads, room, dim): one of all patches, one of a patch's bytes.",
            "The first pass embeds the text with a patch of zeros behind it: its last vector is needed.",
            "In a patch, each byte's input is its vector, its local position and the byte before it.",
        ),
        tries=of_prompts,
        gradients=False,
        half=False,
    ),
)
