"""Implements the paper's application: a network that redraws any image in a given style in one pass.

The generator is trained on a perceptual loss of style (Gram matrices of a fixed network's features) and
content (features of the content image). The fixed network has random filters, which suffice for textures
(Ustyuzhaninov et al. 2016, arXiv 1606.00021).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # maps the number of features to a layer
Pictures = Float[Tensor, "batch 3 height width"]


def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Conv2d:
    """A convolution with reflection padding. Zero padding would reveal the absolute brightness."""
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, padding_mode="reflect")
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    def __init__(self, features: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            convolution(features, features, 3),
            norm(features),
            nn.ReLU(),
            convolution(features, features, 3),
            norm(features),
        )

    def forward(
        self, x: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features height width"]:
        return x + self.branch(x)


def generator(norm: Norm, *, width: int = 12, blocks: int = 1) -> nn.Sequential:
    """Downsamples to half the size, applies residual blocks and upsamples. Colours are in [0, 1]."""
    return nn.Sequential(
        convolution(3, width, 5),
        norm(width),
        nn.ReLU(),
        convolution(width, 2 * width, 3, stride=2),
        norm(2 * width),
        nn.ReLU(),
        *(Residual(2 * width, norm) for _ in range(blocks)),
        nn.Upsample(scale_factor=2),
        convolution(2 * width, width, 3),
        norm(width),
        nn.ReLU(),
        convolution(width, 3, 5),
        nn.Sigmoid(),
    )


class Perceived(NamedTuple):
    """Features of two layers of the fixed network."""

    fine: Float[Tensor, "batch filters height width"]
    coarse: Float[Tensor, "batch filters half_height half_width"]


class RandomFilters(nn.Module):
    """A fixed network of random filters. In the first layer, half of each filter's mean is subtracted, which
    makes the filters less sensitive to brightness."""

    def __init__(self, *, filters: int = 24) -> None:
        super().__init__()
        self.first, self.second = convolution(3, filters, 5), convolution(filters, filters, 5)
        self.requires_grad_(False)
        self.first.weight -= self.first.weight.mean((2, 3), keepdim=True) * 0.5

    def forward(self, pictures: Pictures) -> Perceived:
        fine = F.relu(self.first(pictures * 2 - 1))
        return Perceived(fine, F.relu(self.second(F.avg_pool2d(fine, 2))))


def gram(features: Float[Tensor, "batch filters height width"]) -> Float[Tensor, "batch filters filters"]:
    """For each pair of features, the mean over positions of their product."""
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[2]


def standardised(features: Float[Tensor, "batch filters height width"]) -> Tensor:
    """Each filter's map, normalised to mean 0 and variance 1, which removes its contrast."""
    centred = features - features.mean((2, 3), keepdim=True)
    return centred * (centred.square().mean((2, 3), keepdim=True) + 1e-4).rsqrt()


class PerceptualLoss(nn.Module):
    """Compares style by Gram matrices and content by coarse features. For unrelated features, each term is
    about 1.

    standardise  whether to standardise the content features, as section 2 argues; then the result should have
                 the style's contrast instead of the content's
    """

    def __init__(self, style: Pictures, *, standardise: bool, content_weight: float = 0.5) -> None:
        super().__init__()
        self.filters, self.content_weight = RandomFilters().to(style), content_weight
        self.standardise = standardise
        self.style = [gram(layer) for layer in self.filters(style)]

    def parts(
        self, drawn: Pictures, content: Pictures
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """The style loss and the content loss of each image."""
        seen, wanted = self.filters(drawn), self.filters(content).coarse
        style = sum(
            (gram(layer) - target).square().sum((1, 2)) / target.square().sum()
            for layer, target in zip(seen, self.style, strict=True)
        )
        if self.standardise:
            kept = (standardised(seen.coarse) - standardised(wanted)).square().mean((1, 2, 3)) / 2
        else:
            kept = (seen.coarse - wanted).square().mean((1, 2, 3)) / wanted.square().mean((1, 2, 3))
        return style / 2, kept

    def forward(self, drawn: Pictures, content: Pictures) -> Float[Tensor, " batch"]:
        style, kept = self.parts(drawn, content)
        return style + self.content_weight * kept


def with_contrast(pictures: Pictures, contrast: Float[Tensor, " batch"]) -> Pictures:
    """Scales each difference from the image's mean colour by `contrast`."""
    mean = pictures.mean((2, 3), keepdim=True)
    return mean + contrast.view(-1, 1, 1, 1) * (pictures - mean)
