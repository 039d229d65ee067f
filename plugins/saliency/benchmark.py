"""Times the saliency maps of all classes for a batch of images."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .maps import saliency
from .network import SIDE, PairNet


def make() -> PairNet:
    return PairNet().fold()


def one_by_one(network: PairNet, images: Tensor) -> Tensor:
    """One forward and one backward pass for each image and class."""
    maps = []
    for image in images.split(1):
        for label in range(network.classifier.out_features):
            with torch.enable_grad():
                leaf = image.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(network(leaf)[0, label], leaf)
            maps.append(gradient.abs().amax(1)[0])
    return torch.stack(maps).unflatten(0, (len(images), -1))


def jacobian(network: PairNet, images: Tensor) -> Tensor:
    """torch.func.jacrev: one forward pass, and one batched backward pass for all classes."""

    def scores(x: Tensor) -> tuple[Tensor, Tensor]:
        found = network(x)
        return found.sum(0), found

    return torch.func.jacrev(scores, has_aux=True)(images)[0].abs().amax(2).transpose(0, 1)


def as_a_batch(network: PairNet, images: Tensor) -> Tensor:
    """Repeat each image once per class, then run one forward and one backward pass."""
    classes = network.classifier.out_features
    labels = torch.arange(classes, device=images.device).repeat(len(images))
    return saliency(network, images.repeat_interleave(classes, 0), labels).unflatten(0, (-1, classes))


def once_forward(network: PairNet, images: Tensor) -> Tensor:
    """One forward pass, and one backward pass per class for all images together."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        totals = network(leaf).sum(0)
        gradients = [torch.autograd.grad(total, leaf, retain_graph=True)[0] for total in totals]
    return torch.stack([gradient.abs().amax(1) for gradient in gradients], 1)


def weight_of(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
    # Biases are far from 0 in either direction, because near 0, rounding decides the gradient of a ReLU.
    return torch.randn(shape, generator=generator).sign() * (10 if name == "layers.0.bias" else 30)


def tolerance(bench: Bench) -> float | None:
    """The tolerance of a backward pass through max-pooling.

    In half precision two values of a window are often equal, and rounding decides which of them gets the
    gradient. The error is then as large as a derivative.
    """
    return None if bench.dtype.itemsize >= 4 else 2.0


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    with torch.device("meta"):
        shapes = [tuple(w.shape) for w in make().parameters() if w.ndim == 4]
    places = (SIDE**2, (SIDE // 2) ** 2, (SIDE // 4) ** 2, (SIDE // 4) ** 2)
    work = sum(torch.Size(shape).numel() * count for shape, count in zip(shapes, places, strict=True))
    for batch in bench.pick(smoke=(2,), quick=(32,), full=(1, 32, 256)):
        yield Case.of_module(
            make,
            name="maps of all classes",
            axes={"images": batch},
            inputs=lambda g, batch=batch: (torch.rand(batch, 3, SIDE, SIDE, generator=g),),
            weight=weight_of,
            tolerance=tolerance(bench),
            variants=(
                Variant.of_module(make, one_by_one, name="image by image, class by class", role="naive"),
                Variant.of_module(make, jacobian, name="torch's jacrev", role="strong"),
                Variant.of_module(make, as_a_batch, name="a batch of questions", role="paper"),
                Variant.of_module(make, once_forward, name="once forward, back for each class", role="paper"),
            ),
            # One forward pass, and one backward pass to the pixels per class, without gradients of the
            # weights.
            cost={
                "forward": Cost(
                    flops=2 * batch * work * 6, bytes=batch * 3 * SIDE**2 * 6 * bench.dtype.itemsize
                )
            },
        )
