"""Exercises: write the patch embedder, the forward pass, and generation with two KV caches."""

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
        task="Compute the global model's input: for each patch, the byte embeddings of the previous patch.",
        hints=(
            "Add a byte's embedding and its position embedding. Concatenate the vectors of a patch.",
            "If `first` is 0, drop the last patch and put the learned vector first.",
            "Otherwise `patched` holds the previous patches, so positions start one patch earlier.",
        ),
        tries=of_patches,
    ),
    Exercise(
        name="logits",
        of="model.Megabyte.forward",
        task="Section 2: embed the patches, and apply the global model, then the local model in each patch.",
        hints=(
            "across_patches returns a vector for each byte. Add the local embeddings and positions to it.",
            ("The local model sees a patch's bytes shifted by one: first_byte, then all bytes but the last."),
            "The local model treats each patch as a separate text, so fold the patches into the batch.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="generation",
        of="model.Megabyte.generate",
        task="Generate byte by byte. The global model runs once per patch, and the local model runs once per "
        "byte.",
        hints=(
            (
                "Make two caches of shape (layers, 2, batch, heads, room, dim), one for the patches and one "
                "for the bytes of a single patch."
            ),
            "For the first pass, append a patch of zeros to the text. Only the last output is needed.",
            "Within a patch, the input is the global output, plus the embeddings of position and last byte.",
        ),
        tries=of_prompts,
        gradients=False,
        half=False,
    ),
)
