"""Reads data in COCO's format (a JSON file of instances and a folder of images), and writes scenes in that
format.

    FOLDER/annotations/instances_train2017.json    images, annotations, categories
    FOLDER/train2017/000000000009.jpg              the images listed in it

Boxes are in pixels: x, y, width, height in the files, and x1, y1, x2, y2 in this plugin. Categories have
arbitrary ids in the files, and are renumbered 0, 1, ... in the order of these ids.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor

from readtrack.data.scenes import Scenes
from readtrack.errors import ReadtrackError


class Objects(NamedTuple):
    """The objects of one image."""

    boxes: Float[Tensor, "objects 4"]
    labels: Int64[Tensor, " objects"]
    areas: Float[Tensor, " objects"]  # of the masks, in pixels
    crowd: Bool[Tensor, " objects"]  # one mask over many objects


class Batch(NamedTuple):
    """Square images, and their objects without crowds. Rows without an object have the label -1."""

    images: Float[Tensor, "batch 3 side side"]
    boxes: Float[Tensor, "batch most 4"]
    labels: Int64[Tensor, "batch most"]

    def of(self, rows: Int64[Tensor, " rows"]) -> "Batch":
        return Batch(*(field[rows] for field in self))


class Coco:
    """One instances file. As in COCO's evaluation, images are sorted by id, which breaks ties of scores.

    Raises ReadtrackError if the file or the folder is missing or not in COCO's format.
    """

    def __init__(self, instances: Path, images: Path) -> None:
        try:
            content = json.loads(instances.read_text(encoding="utf-8"))
            self.categories = sorted(content["categories"], key=lambda category: category["id"])
            index = {category["id"]: label for label, category in enumerate(self.categories)}
            self.names = [str(category["name"]) for category in self.categories]
            listed = sorted(content["images"], key=lambda image: image["id"])
            self.ids = [image["id"] for image in listed]
            self.sizes = [(int(image["width"]), int(image["height"])) for image in listed]
            self.files = [images / Path(image["file_name"]).name for image in listed]
            of_image: dict[int, list[dict[str, Any]]] = {id_: [] for id_ in self.ids}
            for annotation in content["annotations"]:
                of_image[annotation["image_id"]].append(annotation)
            self.objects = [objects(of_image[id_], index) for id_ in self.ids]
        except OSError as error:
            raise ReadtrackError(f"{instances} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ReadtrackError(f"{instances} is not a COCO instances file ({error!r}).") from error
        if not images.is_dir():
            raise ReadtrackError(f"The image folder {images} does not exist.")

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int], side: int) -> Batch:
        """Images, resized so that the longer side is `side`, in the upper left corner of grey squares."""
        kept = [self.objects[row] for row in rows]
        most = max((int((~found.crowd).sum()) for found in kept), default=0)
        images = torch.full((len(rows), 3, side, side), 0.5)
        boxes, labels = torch.zeros(len(rows), most, 4), torch.full((len(rows), most), -1)
        for i, (row, found) in enumerate(zip(rows, kept, strict=True)):
            pixels = picture(self.files[row], side)
            images[i, :, : pixels.shape[1], : pixels.shape[2]] = pixels
            own = ~found.crowd
            boxes[i, : own.sum()] = found.boxes[own] * self.scale(row, side)
            labels[i, : own.sum()] = found.labels[own]
        return Batch(images, boxes, labels)

    def scale(self, row: int, side: int) -> float:
        """Factor from pixels of the original image to pixels of a square with this side."""
        return side / max(self.sizes[row])

    def results(
        self,
        row: int,
        boxes: Float[Tensor, "found 4"],
        scores: Float[Tensor, " found"],
        labels: Int64[Tensor, " found"],
    ) -> list[dict[str, Any]]:
        """Detections in one image, in the format of COCO's result files."""
        corner, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        return [
            {
                "image_id": self.ids[row],
                "category_id": self.categories[label]["id"],
                "bbox": box,
                "score": score,
            }
            for box, score, label in zip(
                torch.cat((corner, extent), 1).tolist(), scores.tolist(), labels.tolist(), strict=True
            )
        ]


def objects(annotations: Sequence[dict[str, Any]], index: dict[int, int]) -> Objects:
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([index[a["category_id"]] for a in annotations], dtype=torch.int64)
    areas = torch.tensor([a["area"] for a in annotations], dtype=torch.float64)
    crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in annotations], dtype=torch.bool)
    return Objects(boxes, labels, areas, crowd)


def picture(path: Path, side: int) -> Float[Tensor, "3 height width"]:
    """An image in [0, 1], resized so that the longer side is `side`. Grey images get three equal channels."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    largest = max(image.size)
    if largest != side:
        width, height = (max(1, round(length * side / largest)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def write(scenes: Scenes, folder: Path, name: str, classes: int = 10) -> Coco:
    """Writes scenes in COCO's format, as the part `name` of `folder`, and returns them as read back.

    classes  number of digits listed as categories, whether they occur or not
    """
    content = scenes.coco()
    (folder / name).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    pixels = (scenes.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for image, values in zip(content["images"], pixels, strict=True):
        Image.fromarray(values).save(folder / name / image["file_name"])
    content["categories"] = content["categories"][:classes]
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return read(folder, name)


def read(folder: Path, name: str) -> Coco:
    """The part `name`, such as "train2017", of a folder with the layout of COCO's download."""
    return Coco(folder / "annotations" / f"instances_{name}.json", folder / name)
