"""The network to be explained. It is trained on the classes of the two digits in a scene, without positions.

Several plugins share it. It is trained with batch normalisation, which is then folded into the convolutions.
The networks that these plugins' papers explain consist of convolutions, ReLU and pooling, and the papers'
backward rules do not cover normalisation. Global average pooling before the classifier makes Grad-CAM a class
activation map.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.plugin import Run

Images = Float[Tensor, "batch 3 height width"]
Maps = Float[Tensor, "batch maps rows columns"]
Scores = Float[Tensor, "batch classes"]

CLASSES = 5
SIDE = 20
BRIGHTNESS = 0.3  # approximate mean of all pixels, subtracted inside the network
WIDTHS = (16, 32, 48, 64)


class Layer(nn.Module):
    """A convolution and its normalisation. `folded` merges them into one convolution."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.norm = nn.BatchNorm2d(outputs)
        if (
            not self.convolution.weight.is_meta
        ):  # for a meta tensor, torch would import its compiler, which takes a second
            nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
            nn.init.zeros_(self.convolution.bias)

    def forward(self, x: Maps) -> Float[Tensor, "batch outputs rows columns"]:
        return self.norm(self.convolution(x))

    def folded(self) -> nn.Conv2d:
        """The convolution that equals both layers in evaluation mode."""
        old, norm = self.convolution, self.norm
        new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, padding=old.padding).to(
            old.weight
        )
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        new.weight.data = old.weight.data * scale[:, None, None, None]
        new.bias.data = norm.bias + (old.bias - norm.running_mean) * scale
        return new


class PairNet(nn.Module):
    """Maps images to the log-odds of each digit: four convolutions, two max-poolings, and average pooling.

    Each ReLU and each pooling is a separate module, because explanation methods register hooks on them.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.layers = nn.Sequential(
            *(Layer(3, first, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(Layer(first, second, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(Layer(second, third, 3), nn.ReLU()),
            *(Layer(third, fourth, 3), nn.ReLU()),
        )
        self.classifier = nn.Linear(fourth, classes)

    def features(self, images: Images) -> Maps:
        """The last feature maps, with a quarter of the image's side length."""
        return self.layers(images - BRIGHTNESS)

    def forward(self, images: Images) -> Scores:
        return self.classifier(self.features(images).mean((2, 3)))

    def fold(self) -> "PairNet":
        """Fold each normalisation into its convolution, in place, and fix all weights."""
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Layer):
                self.layers[index] = layer.folded()
        return self.eval().requires_grad_(False)


def draw(run: Run, part: scenes.Part, count: int) -> scenes.Scenes:
    """Scenes of level `pair` at half size: two digits from 0 to 4, and half of a third one."""
    changes = {"size": SIDE, "digit": (7, 11), "classes": CLASSES, "fragments": (1, 1)}
    return scenes.draw(count, run.data_seed(part), part, "pair", **changes)


def shown(labels: Int64[Tensor, "count 2"]) -> Float[Tensor, "count classes"]:
    """1 for each digit that a scene shows, else 0."""
    return F.one_hot(labels, CLASSES).amax(1).float()


class Pair(NamedTuple):
    """The trained network and its untrained twin, both folded."""

    trained: PairNet
    untrained: PairNet


def networks(run: Run, key: str = "scenes.pairs", arm: str = "") -> Pair:
    """The trained network and its untrained twin (`Run.trained`). Training takes ten seconds on one core.

    key  name in the cache; another name gives other initial weights
    arm  the arm under which the loss is plotted
    """

    def train(network: nn.Module) -> None:
        learn(run, cast(PairNet, network), arm)

    found = run.trained(key, PairNet, train)
    pair = Pair(*(cast(PairNet, network).fold() for network in found))
    run.phase("evaluate")
    return pair


def learn(run: Run, network: PairNet, arm: str) -> None:
    count, batch = run.pick(smoke=64, quick=6000, full=30_000), 32
    scene = draw(run, "train", count)
    images, labels = scene.images.to(run.device, run.dtype), shown(scene.labels).to(run.device, run.dtype)
    steps, rows = run.pick(smoke=3, quick=1000, full=6000), run.generator("pairs")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 50) * (1 - s / steps))
    network.train()
    run.phase("train")
    for step in run.steps(steps, "the network that is looked into", state=(network, optimizer, schedule)):
        picked = torch.randint(count, (batch,), generator=rows)
        loss = F.binary_cross_entropy_with_logits(network(images[picked]), labels[picked])
        run.descend(loss, optimizer, step=step, metric="loss of the network that is looked into", arm=arm)
        schedule.step()


class Known(NamedTuple):
    """Held-out scenes whose digits the network recognises, with a question for each digit.

    images   the scene of each question; every scene occurs twice, once for each digit
    classes  the digit of each question
    boxes    the box of this digit
    others   the box of the scene's other digit
    named    the share of all digits, in all scenes, whose score is among the two highest
    """

    images: Images
    classes: Int64[Tensor, " questions"]
    boxes: Float[Tensor, "questions 4"]
    others: Float[Tensor, "questions 4"]
    named: float


@torch.no_grad()
def known(run: Run, network: Callable[[Images], Scores], part: scenes.Part, count: int) -> Known:
    """Questions about scenes in which the network recognises both digits, as only these can be explained."""
    scene = draw(run, part, count)
    images = scene.images.to(run.device, run.dtype)
    scores = torch.cat([network(x) for x in images.split(250)]).cpu().float()
    best = shown(scores.topk(2).indices) > 0
    right: Bool[Tensor, "count 2"] = best.gather(1, scene.labels)
    rows = right.all(1).nonzero().flatten()
    if not len(rows):  # an untrained network may recognise no scene, but the questions are needed anyway
        rows = torch.arange(min(len(images), 4))
    pair = torch.cat((scene.labels[rows], scene.labels[rows].flip(1)), 1).view(-1, 2)
    boxes = torch.stack((scene.boxes[rows], scene.boxes[rows].flip(1)), 1)
    return Known(
        images[rows.repeat_interleave(2)],
        pair[:, 0].to(run.device),
        boxes[:, :, 0].flatten(0, 1),
        boxes[:, :, 1].flatten(0, 1),
        right.float().mean().item(),
    )


def inside(boxes: Float[Tensor, "questions 4"], sides: Sequence[int]) -> Bool[Tensor, "questions _ _"]:
    """The pixels in boxes (x1, y1, x2, y2), which do not include x2 and y2."""
    height, width = sides
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def energy(
    maps: Float[Tensor, "questions height width"], boxes: Float[Tensor, "questions 4"]
) -> Float[Tensor, " questions"]:
    """The share of a map's sum that lies in a box, or 0 for a map of zeros."""
    maps = maps.float().cpu()
    total = maps.sum((1, 2))
    return (maps * inside(boxes, maps.shape[1:])).sum((1, 2)) / total.clamp(min=1e-30)
