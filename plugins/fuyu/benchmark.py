"""Times a small decoder on images of several sizes, each with a question."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Fuyu

Weights = Mapping[str, Tensor]


def one_by_one(weights: Weights, ids: Tensor, images: list[Tensor], *, network: Fuyu) -> Tensor:
    answers = [
        functional_call(network, dict(weights), (text[None], image[None]))
        for text, image in zip(ids, images, strict=True)
    ]
    return torch.cat(answers)


def by_length(weights: Weights, ids: Tensor, images: list[Tensor], *, network: Fuyu) -> Tensor:
    """One batch per image size, without padding."""
    alike: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        alike.setdefault(image.shape, []).append(index)
    answers: dict[int, Tensor] = {}
    for group in alike.values():
        batch = ids[group], torch.stack([images[i] for i in group])
        answers |= dict(zip(group, functional_call(network, dict(weights), batch), strict=True))
    return torch.stack([answers[i] for i in range(len(images))])


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    model, heads, layers, sizes, copies = bench.pick(
        smoke=(16, 2, 1, ((1, 2), (2, 1)), 1),
        quick=(64, 4, 2, ((3, 4), (4, 3), (6, 6), (2, 9)), 4),
        full=(512, 8, 6, ((8, 12), (12, 8), (16, 16), (4, 24)), 4),
    )
    patch, text, vocab = 8, 4, 64
    settings = {"patch": patch, "newline": 1, "model": model, "heads": heads, "layers": layers}
    make = partial(Fuyu, vocab, **settings, hidden=4 * model)
    with torch.device("meta"):
        network = make()

    def drawn(generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        images = [
            torch.randn(3, rows * patch, columns * patch, generator=generator)
            for rows, columns in sizes
            for _ in range(copies)
        ]
        return torch.randint(vocab, (len(images), text), generator=generator), images

    tokens = copies * sum(rows * (columns + 1) + text for rows, columns in sizes)
    pixels = copies * sum(rows * columns for rows, columns in sizes) * 3 * patch**2
    parameters = sum(weight.numel() for weight in network.parameters())
    products = 2 * tokens * layers * 12 * model**2 + 2 * pixels * model
    yield Case.of_module(
        make,
        name="images of several sizes",
        axes={"images": copies * len(sizes), "width": model},
        inputs=drawn,
        variants=(
            Variant(name="one by one", role="naive", call=partial(one_by_one, network=network)),
            Variant(name="each size by itself", role="strong", call=partial(by_length, network=network)),
            Variant.of_module(make, name="one batch, filled up", role="paper"),
        ),
        cost=Cost.products(products, (parameters + pixels) * bench.dtype.itemsize),
    )
