"""Compares where Grad-CAM and earlier explanations point on the same images.

Dimensions: questions (each an image and a class), height, width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Run

from ..guided_backprop import guided
from ..guided_backprop.experiment import back
from ..saliency import saliency
from ..saliency.network import Known, PairNet, energy, inside
from ..zfnet import deconvnet, occlusion
from .maps import grad_cam_of

Map = Float[Tensor, "questions height width"]


def explanations(network: PairNet, asked: Known) -> dict[str, Map]:
    """Each method's map for each question, with 0 where the method gives no value."""
    images, classes = asked.images, asked.classes
    lost = occlusion(network, images, classes).clamp(min=0)
    missing = images.shape[-1] - lost.shape[-1]  # a square's position is its centre
    heat = grad_cam_of(network, images, classes)
    fine = back(network, asked, guided).abs().amax(1)
    return {
        "gradient": saliency(network, images, classes),
        "occlusion": F.pad(lost, (missing // 2, missing - missing // 2) * 2),
        "deconvnet": back(network, asked, deconvnet).abs().amax(1),
        "guided backprop": fine,
        "Grad-CAM": heat,
        "Guided Grad-CAM": fine * heat,
    }


def pointing(map_: Map, asked: Known) -> Float[Tensor, " questions"]:
    """1 if a map's maximum is in the queried digit's box (Zhang et al. 2016), else 0. An empty map gets 0."""
    flat = map_.float().cpu().flatten(1)
    boxes = inside(asked.boxes, map_.shape[1:]).flatten(1)
    hit = boxes.gather(1, flat.argmax(1, keepdim=True))[:, 0]
    return (hit & (flat.amax(1) > 0)).float()


def warm(map_: Tensor, images: Tensor) -> Tensor:
    """Overlays maps on grey images. Stronger values are redder."""
    share = 0.7 * (map_ / map_.amax((1, 2), keepdim=True).clamp(min=1e-12))[:, None]
    grey = images.mean(1, keepdim=True) * 0.6
    colour = torch.cat((share, share * 0.4, torch.zeros_like(share)), 1)
    return (grey * (1 - share) + colour).clamp(0, 1)


def show(run: Run, trained: PairNet, untrained: PairNet, asked: Known) -> None:
    """Save eight questions with all explanations as an image, and scores on more questions as a table."""
    few = Known(*(field[: run.pick(smoke=4, quick=120, full=600)] for field in asked[:4]), asked.named)
    maps = explanations(trained, few)
    rows = min(8, len(few.images))
    images = few.images[:rows].float()
    columns = [images, *(warm(map_[:rows].float(), images) for map_ in maps.values())]
    sheet = torch.stack(columns, 1).flatten(0, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    run.image(
        "all explanations",
        sheet,
        columns=["scene", *maps],
        rows=[f"of {label}" for label in few.classes[:rows].tolist()],
        caption="Each row is an image with a queried digit, and each column is an explanation.",
    )

    maps |= {f"{name}, untrained": map_ for name, map_ in explanations(untrained, few).items()}
    maps["noise"] = torch.rand(few.images[:, 0].shape, generator=run.generator("a map of noise"))
    table = []
    for name, map_ in maps.items():
        ours, theirs = energy(map_, few.boxes), energy(map_, few.others)
        scores = (ours, pointing(map_, few), (ours > theirs).float())
        table.append([name, *(round(score.mean().item(), 3) for score in scores)])
    run.table(
        "localisation",
        ["explanation", "share in the digit's box", "maximum in the box", "more than in the other box"],
        table,
        caption=f"{len(few.images)} questions. A score that an untrained network also reaches is no evidence "
        "for the explanation.",
    )
