"""Implements bilinear upsampling, the networks of figure 3 on VGG, and the experiment's small network.

Dimensions: batch, maps (channels), classes, rows, columns, height, width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..vgg import VGG
from ..vgg.model import init_weights

Images = Float[Tensor, "batch 3 height width"]
Scores = Float[Tensor, "batch classes height width"]
Maps = Float[Tensor, "batch _ _ _"]


def bilinear(factor: int) -> Float[Tensor, "size size"]:
    """The filter with which a transposed convolution of stride `factor` is a bilinear interpolation."""
    size = 2 * factor - factor % 2
    middle = factor - 1 if factor % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - middle).abs() / factor
    return line[:, None] * line


def upsample(x: Float[Tensor, "batch classes rows columns"], factor: int) -> Scores:
    """Bilinear upsampling by `factor` in both directions, with zeros outside the border."""
    if factor == 1:
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # some processors accumulate in half precision
    weight = bilinear(factor).to(wide).expand(x.shape[1], 1, -1, -1)
    padding = (weight.shape[-1] - factor) // 2
    return F.conv_transpose2d(wide, weight, stride=factor, padding=padding, groups=x.shape[1]).to(x.dtype)


class FCN(nn.Module):
    """FCN-32s, FCN-16s or FCN-8s: VGG-16 as a fully convolutional network, with upsampled logits.

    stride  stride of the finest logits: 32 (no skip), 16 (skip from pool4) or 8 (skips from pool4 and pool3)

    The first convolution pads by 100 pixels so that the maps of small images are not empty, and the output is
    cropped. The logits of the skips are initially zero, so a network starts from the predictions of the
    coarser one.
    """

    def __init__(self, stride: Literal[32, 16, 8] = 8, *, classes: int = 21) -> None:
        super().__init__()
        features = VGG("D", hidden=1, classes=1, side=1).features
        features[0].padding = (100, 100)
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.features = features
        self.fc6 = nn.Conv2d(512, 4096, 7)
        self.fc7 = nn.Conv2d(4096, 4096, 1)
        self.dropout = nn.Dropout(0.5)
        self.score = nn.Conv2d(4096, classes, 1)
        self.skips = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for name, maps, at in (("pool4", 512, 16), ("pool3", 256, 8)):
            if at >= stride:
                self.skips[name] = nn.Conv2d(maps, classes, 1)
                self.ups[name] = nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False)
        self.stride = stride
        if not self.score.weight.is_meta:
            self.init_weights()

    def init_weights(self) -> None:
        """Sections 4.2 and 4.3: logits are initially zero, and learned upsampling is initially bilinear."""
        for layer in (self.score, *self.skips.values()):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for up in self.ups.values():
            nn.init.zeros_(up.weight)
            for label in range(up.out_channels):
                up.weight.data[label, label] = bilinear(2)

    def forward(self, images: Images) -> Scores:
        """Class logits of each pixel."""
        pools, x = [], images
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        x = self.dropout(self.fc6(x).relu())
        x = self.score(self.dropout(self.fc7(x).relu()))
        for (name, skip), pool in zip(self.skips.items(), (pools[3], pools[2]), strict=False):
            x, finer = self.ups[name](x), skip(pool)
            x = x + middle_of(finer, *x.shape[2:])
        weight = bilinear(self.stride).to(x).expand(x.shape[1], 1, -1, -1)
        x = F.conv_transpose2d(x, weight, stride=self.stride, groups=x.shape[1])
        return middle_of(x, *images.shape[2:])


def middle_of(x: Float[Tensor, "batch maps _ _"], height: int, width: int) -> Float[Tensor, "batch maps _ _"]:
    """The central `height` × `width` crop."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


Source = Literal["layers", "coarse maps", "pixels"]


class SmallFCN(nn.Module):
    """A network for images of 16 × 16, with maps of stride 1, 2 and 4 and logits down to the stride `finest`.

    source  input of the finer logits: the layers of that stride or, for comparison, the coarsest maps or the
            pixels, resized to that stride
    """

    def __init__(
        self,
        *,
        classes: int,
        finest: Literal[4, 2, 1] = 4,
        source: Source = "layers",
    ) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.stage3 = nn.Sequential(
            *(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU()),
        )
        self.pool = nn.MaxPool2d(2)
        self.score3 = nn.Conv2d(64, classes, 1)
        init_weights(self)
        self.source = source
        # The added logits are initially zero, so a network with skips starts from the coarse network's
        # predictions.
        maps = {"layers": (32, 16), "coarse maps": (64, 64), "pixels": (3, 3)}[source]
        self.score2 = zeros(maps[0], classes) if finest <= 2 else None
        self.score1 = zeros(maps[1], classes) if finest == 1 else None

    def maps(self, images: Images) -> tuple[Maps, Maps, Maps]:
        """The feature maps of strides 1, 2 and 4."""
        fine = self.stage1(images)
        middle = self.stage2(self.pool(fine))
        return fine, middle, self.stage3(self.pool(middle))

    def forward(self, images: Images) -> Scores:
        fine, middle, coarse = self.maps(images)
        x, stride = self.score3(coarse), 4
        if self.source == "coarse maps":
            middle, fine = upsample(coarse, 2), upsample(coarse, 4)
        if self.source == "pixels":
            middle, fine = F.avg_pool2d(images, 2), images
        for score, maps in ((self.score2, middle), (self.score1, fine)):
            if score is not None:
                x, stride = upsample(x, 2) + score(maps), stride // 2
        return upsample(x, stride)


class LearnedUpsampling(SmallFCN):
    """A rival without skips: logits that are computed from the coarsest maps of `SmallFCN` are added.

    The logits come from a transposed convolution with filters of 12 × 12 and stride 4, so each pixel sees
    3 × 3 positions of the coarsest maps, and each of the 16 pixels of a position has its own weights.
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__(classes=classes)
        self.up = nn.ConvTranspose2d(64, classes, 12, stride=4, padding=4, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, images: Images) -> Scores:
        *_, coarse = self.maps(images)
        return upsample(self.score3(coarse), 4) + self.up(coarse)


def zeros(maps: int, classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(maps, classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
