"""Measures how much a score falls when a digit is covered, and where a score's projections lie."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from readtrack.plugin import Arm, Bound, Break, Claim, Figure, Run, Sweep, Trial, at_least, hookimpl

from ..saliency.maps import brightness
from ..saliency.network import BRIGHTNESS, SIDE, Known, Pair, PairNet, energy, inside, known, networks
from .occlusion import GREY, occlusion
from .projection import Maps, Rule, deconvnet, gradient, pull_back

INITIAL = Break("initial weights", "The network keeps its initial weights.")
BESIDE = Break(
    "box beside the digit covered", "The covered box is moved sideways by the digit's width.", "near miss"
)
BRIGHTEST = Break(
    "brightest box covered",
    "The covered box is the brightest box of the digit's size. It is found without a network.",
    "rival",
)
NO_SWITCHES = Break("no switches", "Unpooling spreads a value evenly over the pooling window.", "near miss")
GRADIENT = Break("gradient", "The gradient of the same score replaces the projection.", "rival")

DEVIATIONS = (
    "We use scenes of 20 × 20 pixels instead of ImageNet. Each scene contains two digits from five classes, "
    "and half of a third digit, on a photograph. The network has four convolutions. It is trained for 1,000 "
    "steps of 32 images with batch normalisation, which is later folded into the convolutions. Of 800 "
    "held-out scenes, we judge those in which the network recognises both digits. "
)
LOST = "probability lost"
OVER = "asked box over other"

OCCLUSION = Claim(
    name="occlusion of the object against its surroundings",
    sentence="A trained network's probability of a digit falls when that digit is covered, and does not "
    "fall when everything except the digit is covered.",
    paper=Figure(
        "The probability drops significantly when the object is covered. The paper shows pictures and gives "
        "no number.",
        where="section 4.2 and figure 7",
        read="text",
    ),
    rule=(
        at_least(LOST, "asked digit", 0.5, minus="all but the asked digit", toward=0.1),
        at_least(LOST, "asked digit", 0.5, minus="asked digit, untrained", toward=0.1),
    ),
    control_arm="all but the asked digit",
    control="an image in which everything except the digit's box is covered, and the network with initial "
    "weights",
    control_reaches=(Bound("digits that the network names", ">=", 0.8),),
    breaks=(INITIAL, BESIDE, BRIGHTEST),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "We cover the digit with a grey box of the same size. The paper slides a grey "
    "square over the image. The grey is near the images' mean, and the result depends on it: after 4,000 "
    "steps on seed 7101, the difference is 0.86 with black boxes and 0.26 with white ones.",
    history=(
        (
            "Until November 2026 the control covered the other digit, which is a test that any classifier "
            'passes. The bounds were 0.35. The verdict was "reproduced" (0.77). Now the control covers the '
            "surroundings, because the paper asks whether the score depends on the object or on its "
            "surroundings."
        ),
        (
            "The near miss covered the upper half of the digit, which is still half of the object. The "
            "difference was 0.53 and 0.46 on seeds 7101 and 7102, near the bound of 0.5. Now the covered box "
            "lies beside the digit."
        ),
    ),
)

PROJECTS = Claim(
    name="deconvnet projection of a score",
    sentence="A deconvnet's projection of a digit's score lies in the box of that digit, and not in the box "
    "of the other digit, more often for a trained network than for an untrained network.",
    paper=Figure(
        "Projections show the parts of the image that excite a feature map. The paper shows only pictures.",
        where="section 4 and figure 2",
        read="text",
    ),
    rule=(at_least(OVER, "deconvnet", 0.08, minus="deconvnet, untrained", toward=0.0),),
    control_arm="deconvnet, untrained",
    control="the same network with initial weights (chance is one half)",
    control_reaches=(Bound("digits that the network names", ">=", 0.8),),
    breaks=(INITIAL, NO_SWITCHES, GRADIENT),
    chosen_on=(0, 1),
    deviations=DEVIATIONS
    + "We project the score of a digit, not a single activation of a feature map, and no person judges the "
    "pictures.",
    headline=True,
    history=(
        (
            'Until November 2026 the rule was the same, and the verdict was "reproduced" (0.13). The '
            "gradient, which scores 0.91, was reported but not judged. Now it is a rival."
        ),
    ),
)

Question = Callable[[Known], Tensor]  # maps questions to a number or a map for each


@hookimpl
def experiment(run: Run) -> None:
    pair = networks(run)
    asked = known(run, pair.trained, "judge", run.pick(smoke=32, quick=800, full=2000))
    run.metric("digits that the network names", asked.named)
    cover(run, pair, asked)
    project(run, pair, asked)
    draw(run, pair.trained, asked)
    show_units(run, pair.trained, asked)


def cover(run: Run, pair: Pair, asked: Known) -> None:
    """Compare the queried digit's probability before and after part of the picture is covered."""
    untrained = Arm(partial(lost, pair.untrained, asked_digit))
    run.compare(
        OCCLUSION,
        arms={
            "asked digit": Arm(partial(lost, pair.trained, asked_digit)),
            "all but the asked digit": Arm(partial(lost, pair.trained, all_but_asked)),
            "asked digit, untrained": untrained,
        },
        attempt=partial(answer, asked),
        read=read_lost,
        yardsticks={"other digit": Arm(partial(lost, pair.trained, other_digit))},
        references={"": {"digits that the network names": asked.named}},
        breaks={
            INITIAL.name: {"asked digit": untrained},
            BESIDE.name: {"asked digit": Arm(partial(lost, pair.trained, beside))},
            BRIGHTEST.name: {"asked digit": Arm(partial(lost, pair.trained, brightest))},
        },
        null="items",
    )
    run.axes(BY_RANK, x="questions, ranked by the loss, in %", y="probability lost")
    run.headline(BY_RANK)


def answer(asked: Known, at: Trial, question: Question, _: None) -> tuple[float, Tensor]:
    """Answer the questions. There is no setting to choose."""
    return math.nan, question(asked)


BY_RANK = "probability lost, by its rank in %"
Covered = Bool[Tensor, "questions height width"]


def asked_digit(asked: Known) -> Covered:
    return inside(asked.boxes, (SIDE, SIDE))


def other_digit(asked: Known) -> Covered:
    return inside(asked.others, (SIDE, SIDE))


def all_but_asked(asked: Known) -> Covered:
    return ~asked_digit(asked)


def beside(asked: Known) -> Covered:
    """The digit's box, moved to the right by its width if there is room, else to the left."""
    x1, y1, x2, y2 = asked.boxes.T
    width = x2 - x1
    sideways = torch.where(x2 + width <= SIDE, width, -width)
    return inside(torch.stack((x1 + sideways, y1, x2 + sideways, y2), 1), (SIDE, SIDE))


def brightest(asked: Known) -> Covered:
    """The brightest box of the queried digit's size."""
    boxes = []
    for light, box in zip(brightness(asked.images).float().cpu(), asked.boxes, strict=True):
        width, height = (box[2:] - box[:2]).long().tolist()
        place = int(F.avg_pool2d(light[None], (height, width), 1).argmax())
        top, left = divmod(place, SIDE - width + 1)
        boxes.append([left, top, left + width, top + height])
    return inside(torch.tensor(boxes).to(asked.boxes), (SIDE, SIDE))


def lost(network: PairNet, covered: Callable[[Known], Covered], asked: Known) -> Float[Tensor, " questions"]:
    """The decrease in the queried digit's probability when the picture is covered."""
    hidden = covered(asked).to(asked.images.device)[:, None]
    after = probability(network, torch.where(hidden, GREY, asked.images), asked)
    return (probability(network, asked.images, asked) - after).cpu()


def read_lost(at: Trial, found: Sweep[Tensor]) -> dict[str, Tensor]:
    at.metric(LOST, found.chosen.mean().item())
    for percent in range(5, 100, 10):
        at.metric(BY_RANK, found.chosen.quantile(percent / 100).item(), step=percent)
    return {LOST: found.chosen.view(-1, 2)}


def probability(network: PairNet, images: Tensor, asked: Known) -> Float[Tensor, " questions"]:
    return network(images).gather(1, asked.classes[:, None])[:, 0].float().sigmoid()


def of_scores(network: PairNet, asked_classes: Tensor) -> Callable[[Maps], Maps]:
    """The start of the backward pass: the gradient of the score with respect to the last feature maps."""
    weight = network.classifier.weight[asked_classes]

    def signal(maps: Maps) -> Maps:
        return (weight / maps[0, 0].numel())[:, :, None, None].expand_as(maps)

    return signal


def projected(
    network: PairNet, rule: Rule, asked: Known, *, switches: bool = True
) -> Float[Tensor, "questions height width"]:
    """The projection's magnitude, largest over the colour channels."""
    images, signal = asked.images - BRIGHTNESS, of_scores(network, asked.classes)
    return pull_back(network.layers, images, rule, signal, switches=switches).abs().amax(1)


def project(run: Run, pair: Pair, asked: Known) -> None:
    untrained = Arm(partial(projected, pair.untrained, deconvnet))
    run.compare(
        PROJECTS,
        arms={
            "deconvnet": Arm(partial(projected, pair.trained, deconvnet)),
            "deconvnet, untrained": untrained,
        },
        attempt=partial(answer, asked),
        read=partial(read_map, asked),
        yardsticks={"gradient": Arm(partial(projected, pair.trained, gradient))},
        references={"": {"digits that the network names": asked.named}},
        breaks={
            INITIAL.name: {"deconvnet": untrained},
            NO_SWITCHES.name: {"deconvnet": Arm(partial(projected, pair.trained, deconvnet, switches=False))},
            GRADIENT.name: {"deconvnet": Arm(partial(projected, pair.trained, gradient))},
        },
        null="items",
    )


def read_map(asked: Known, at: Trial, found: Sweep[Tensor]) -> dict[str, Tensor]:
    """Whether more of the map lies in the queried digit's box than in the other box. A tie counts half."""
    ours, theirs = energy(found.chosen, asked.boxes), energy(found.chosen, asked.others)
    over = (ours > theirs).float() + (ours == theirs).float() / 2
    at.metric(OVER, over.mean().item())
    at.metric("share of the map in the asked box", ours.mean().item())
    return {OVER: over.view(-1, 2)}


def large(images: Tensor) -> Tensor:
    return images.float().repeat_interleave(4, 2).repeat_interleave(4, 3)


def draw(run: Run, network: PairNet, asked: Known) -> None:
    """Show six scenes with the occlusion maps and the projections of their two digits."""
    count = min(6, len(asked.images) // 2)
    scenes, classes = asked.images[: 2 * count], asked.classes[: 2 * count]
    lost = occlusion(network, scenes, classes).clamp(min=0)
    lost = lost / lost.amax((1, 2), keepdim=True).clamp(min=1e-12)
    whole = F.pad(lost, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1)
    back = pull_back(network.layers, scenes - BRIGHTNESS, deconvnet, of_scores(network, classes))
    colours = 0.5 + back / (2 * back.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    rows = torch.cat((scenes[::2], whole[::2], whole[1::2], colours[::2], colours[1::2]))
    run.image(
        "occlusion and projections",
        large(rows),
        columns=[f"{a} and {b}" for a, b in classes.view(-1, 2).tolist()],
        rows=["scene", "loss, first", "loss, second", "deconvnet, first", "deconvnet, second"],
        caption="Decrease in a digit's score with a grey square at each position, and projections by the "
        "deconvnet.",
    )


def show_units(run: Run, network: PairNet, asked: Known) -> None:
    """Show the four scenes that excite each of twelve last-layer feature maps most, and their projections."""
    images = asked.images[::2]
    maps = network.features(images)
    units = maps.amax((0, 2, 3)).topk(12).indices.tolist()
    rows = []
    for unit in units:
        best = maps[:, unit].amax((1, 2)).topk(min(4, len(images))).indices
        back = pull_back(network.layers, images[best] - BRIGHTNESS, deconvnet, partial(strongest, unit=unit))
        back = 0.5 + back / (2 * back.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
        rows += [images[best], back]
    each = min(4, len(images))
    columns, names = ["scene"] * each + ["projection"] * each, [f"map {unit}" for unit in units]
    caption = (
        "Twelve feature maps of the last layer: the scenes that excite each most, and their projections."
    )
    run.image("units", large(torch.cat(rows)), columns=columns, rows=names, caption=caption)


def strongest(maps: Maps, *, unit: int) -> Maps:
    """Zeros except for one map's largest activation in each image (section 2.1)."""
    flat = torch.zeros_like(maps).flatten(2)
    value, place = maps[:, unit].flatten(1).max(1)
    flat[torch.arange(len(maps)), unit, place] = value
    return flat.view_as(maps)
