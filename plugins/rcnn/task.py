"""Scenes with digits to detect, region proposals, and scores of detections."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from readtrack.data import scenes
from readtrack.plugin import Run, Trial
from readtrack.scores import Detected, average_precision, detected_boxes
from readtrack.scores.vision import ANY_AREA, precision_and_recall

from .boxes import clip, decode, overlaps, unsuppressed

CLASSES = 5
SIDE = 48
BRIGHTNESS = 0.3  # about the mean of all pixels
REGIONS = 20  # proposals per image
PRECISION = "precision over recall"
SHARPEST, SMALLEST, LARGEST = 0.3, 5, 32  # suppression threshold; sides of proposals in pixels


class Detection(NamedTuple):
    """Scenes, their objects, and proposals."""

    x: Float[Tensor, "images 3 48 48"]
    labels: Int64[Tensor, "images objects"]  # -1 for no object
    boxes: Float[Tensor, "images objects 4"]
    proposals: Float[Tensor, "images regions 4"]

    def named(
        self, boxes: Float[Tensor, "images regions 4"]
    ) -> tuple[
        Int64[Tensor, "images regions"], Float[Tensor, "images regions"], Float[Tensor, "images regions 4"]
    ]:
        """For each region, the object that it overlaps most: its label, the overlap, and its box."""
        overlap, place = overlaps(boxes, self.boxes.to(boxes)).max(-1)
        box = self.boxes.to(boxes).gather(1, place[..., None].expand_as(boxes))
        return self.labels.gather(1, place), overlap, box


def detection(run: Run, part: scenes.Part, count: int) -> Detection:
    """Scenes of level `many`, but smaller: one to three digits in two colours, and two fragments.

    The background photographs are a little brighter than in other tasks, so brightness alone does not reveal
    the digits.
    """
    drawn = scenes.draw(
        count,
        run.data_seed(part),
        part,
        "many",
        size=SIDE,
        objects=(1, 3),
        digit=(10, 20),
        fragments=(2, 2),
        classes=CLASSES,
        two_coloured=True,
        dim=0.6,
    )
    found = [grouped(image, run.data(f"{part} {i}", part)) for i, image in enumerate(drawn.images)]
    x = (drawn.images - BRIGHTNESS).to(run.device, run.dtype)
    boxes = (drawn.labels, drawn.boxes, torch.stack(found))
    return Detection(x, *(field.to(run.device) for field in boxes))


def grouped(image: Float[Tensor, "3 side side"], generator: torch.Generator) -> Float[Tensor, "20 4"]:
    """Region proposals from connected regions of one colour, as a substitute for selective search.

    Each box encloses connected pixels that are bright, bright in one channel, or of one of seven colours. The
    boxes of touching one-colour regions are also merged in pairs. All boxes are ranked by the number of
    criteria that find them, then by size. Random windows are added until there are twenty boxes.
    """
    from scipy import ndimage  # installed with scikit-learn

    brightest = image.amax(0)
    code = ((image > 0.5).int() * torch.tensor([1, 2, 4])[:, None, None]).sum(0)
    views = [*(brightest > level for level in (0.4, 0.55, 0.7)), *(code == colour for colour in range(1, 8))]
    views += [channel > 0.5 for channel in image]
    votes: dict[tuple[int, int, int, int], int] = {}
    parts: list[tuple[int, int, int, int]] = []
    for number, view in enumerate(views):
        labelled, _ = ndimage.label(view.numpy())
        for rows, columns in ndimage.find_objects(labelled):
            box = (columns.start, rows.start, columns.stop, rows.stop)
            if 3 <= number < 10 and min(box[2] - box[0], box[3] - box[1]) >= 3:
                parts.append(box)
            votes[box] = votes.get(box, 0) + 1
    for i, a in enumerate(parts):
        for b in parts[:i]:
            if max(a[0], b[0]) <= min(a[2], b[2]) + 1 and max(a[1], b[1]) <= min(a[3], b[3]) + 1:
                both = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
                votes[both] = votes.get(both, 0) + 1
    area = {box: (box[2] - box[0]) * (box[3] - box[1]) for box in votes}
    fits = [b for b in votes if all(SMALLEST <= s <= LARGEST for s in (b[2] - b[0], b[3] - b[1]))]
    best = sorted(fits, key=lambda box: (-votes[box], -area[box], box))[:REGIONS]
    windows = random_windows(REGIONS - len(best), image.shape[-1], generator)
    return torch.cat((torch.tensor(best, dtype=torch.float32).view(-1, 4), windows))


def random_windows(count: int, side: int, generator: torch.Generator) -> Float[Tensor, "count 4"]:
    """Random windows of about the size of a digit, anywhere in the image."""
    sides = 8 + 12 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (side - sides)
    return torch.cat((corner, corner + sides), 1)


def ordered(data: Detection, scores: Float[Tensor, "images regions"]) -> Detection:
    """The same proposals in descending order of score."""
    order = scores.argsort(1, descending=True).to(data.proposals.device)
    return data._replace(proposals=data.proposals.gather(1, order[..., None].expand(-1, -1, 4)))


def suppressed_last(data: Detection, scores: Float[Tensor, "images regions"], threshold: float) -> Detection:
    """The same proposals after non-maximum suppression: first the kept ones, then the suppressed ones.

    Both are in descending order of score. Scores are between 0 and 1.
    """
    scores = scores.to(data.proposals)
    return ordered(data, scores + unsuppressed(data.proposals, scores, threshold))


class Found(NamedTuple):
    """For each region, one box and one score per class."""

    boxes: Float[Tensor, "images classes regions 4"]
    scores: Float[Tensor, "images classes regions"]

    def kept(self) -> Bool[Tensor, "images classes regions"]:
        return unsuppressed(self.boxes, self.scores, SHARPEST)


def moved(
    proposals: Float[Tensor, "images regions 4"], codes: Float[Tensor, "images regions classes 4"]
) -> Float[Tensor, "images classes regions 4"]:
    """The proposals after each class's box regression, clipped to the image."""
    codes = codes.transpose(1, 2)
    return clip(decode(codes, proposals[:, None].to(codes).expand_as(codes)), SIDE, SIDE)


def detected(found: Found, truth: Detection) -> list[Detected]:
    """Detections in each image after non-maximum suppression within each class, with the true objects."""
    found = Found(found.boxes.float().cpu(), found.scores.float().cpu())
    kept, images = found.kept(), []
    for i, (labels, boxes) in enumerate(zip(truth.labels.cpu(), truth.boxes.cpu(), strict=True)):
        classes, place = kept[i].nonzero(as_tuple=True)
        there = labels >= 0
        images.append(
            detected_boxes(
                found.boxes[i, classes, place],
                found.scores[i, classes, place],
                classes,
                boxes[there],
                labels[there],
            )
        )
    return images


def mean_ap(found: Found, truth: Detection, overlap: float = 0.5) -> float:
    """Mean average precision at the given overlap."""
    return average_precision(detected(found, truth), thresholds=(overlap,))


def recall(proposals: Float[Tensor, "images regions 4"], truth: Detection, overlap: float = 0.5) -> float:
    """The share of objects that overlap some proposal by at least `overlap`."""
    return covered(truth._replace(proposals=proposals), overlap).mean().item()


def covered(data: Detection, overlap: float = 0.5) -> Float[Tensor, " objects"]:
    """1 for each object that overlaps some proposal by at least `overlap`, else 0."""
    best = overlaps(data.boxes, data.proposals.to(data.boxes)).amax(-1)
    return (best[data.labels >= 0] >= overlap).float()


def framed(
    image: Float[Tensor, "3 side side"], boxes: Float[Tensor, "n 4"], colour: tuple[float, float, float]
) -> Float[Tensor, "3 4*side 4*side"]:
    """The image, enlarged four times, with frames around the boxes."""
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2).clone()
    last = large.shape[-1] - 1
    for x1, y1, x2, y2 in (4 * boxes).round().long().clamp(0, last).tolist():
        for rows, columns in (
            (y1, slice(x1, x2)),
            (y2, slice(x1, x2)),
            (slice(y1, y2), x1),
            (slice(y1, y2), x2),
        ):
            large[:, rows, columns] = torch.tensor(colour).view(3, *[1] * (large[:, rows, columns].ndim - 1))
    return large


GREY, GREEN = (0.6, 0.6, 0.6), (0.2, 1.0, 0.3)


def draw(run: Run, judge: Detection, found: Found, *, least: float = 0.0) -> None:
    """Draw scenes with their proposals, and below them the kept boxes with a score above `least`.

    `least` is 0 for scores of a support vector machine and 0.5 for probabilities.
    """
    kept = found.kept() & (found.scores > least)
    above, below, lines = [], [], []
    for i in range(min(3, len(judge.x))):
        image = (judge.x[i] + BRIGHTNESS).cpu().float()
        classes, place = kept[i].nonzero(as_tuple=True)
        above.append(framed(image, judge.proposals[i].cpu(), GREY))
        below.append(framed(image, found.boxes[i, classes, place].cpu().float(), GREEN))
        names = ", ".join(map(str, classes.tolist())) or "nothing"
        there = ", ".join(str(label) for label in judge.labels[i].tolist() if label >= 0)
        lines.append(f"scene {i + 1}: detected {names}; contains {there}")
    caption = f"The proposed regions of each scene, and the kept boxes with a score above {least:g}."
    rows = ["regions", "kept"]
    run.image("detections", torch.stack(above + below), columns=len(above), rows=rows, caption=caption)
    run.text("names", "\n".join(lines), caption="The detected digits, and the digits in the scene.")


def trace(at: Trial, found: Found, truth: Detection) -> None:
    """Report the precision at each recall, for an overlap of 0.5. Its mean is the mean average precision."""
    precision, _ = precision_and_recall(detected(found, truth), (0.5,), ANY_AREA, 100)
    for place in range(0, 101, 5):
        at.metric(PRECISION, precision[0, place].nanmean().item(), step=place / 100)


def svm_targets(data: Detection) -> Int64[Tensor, "rows classes"]:
    """SVM targets of section 2.3: 1 for proposals that overlap an object of the class by at least 0.8.

    The target is -1 for proposals that overlap each object of the class by less than 0.3, and 0 for the
    others.
    """
    classes = torch.arange(CLASSES, device=data.labels.device)
    overlap = overlaps(data.proposals, data.boxes)[..., None]
    of_class = (overlap * (data.labels[:, None, :, None] == classes)).amax(2)
    return (1 * (of_class >= 0.8) - 1 * (of_class < 0.3)).flatten(0, 1)
