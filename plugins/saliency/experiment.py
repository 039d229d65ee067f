"""Measures how well saliency maps localise objects, for a network trained on class labels only."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Arm, Bound, Break, Claim, Figure, Run, Sweep, Trial, at_least, hookimpl

from .maps import Map, brightness, class_gradient, class_model, edges, saliency
from .network import CLASSES, SIDE, Known, PairNet, energy, inside, known, networks

INITIAL = Break("initial weights", "The network keeps its initial weights.")
ALL_CLASSES = Break(
    "all classes at once",
    "The map is the gradient of the sum of all scores, whatever the class.",
    "near miss",
)
EDGES = Break("edges", "The map shows differences between neighbouring pixels, without any network.", "rival")
EVIDENCE = Break(
    "class activation map",
    "The map is what each position of the last feature maps adds to the score (Zhou et al. 2016). It needs "
    "one forward pass and no gradient.",
    "rival",
)

SETTING = (
    "Scenes of 20 × 20 pixels replace ImageNet. Each shows two of five digits, and half of a third digit, on "
    "a photograph. The network has four convolutions. It is trained for 1,000 steps on batches of 32 images, "
    "with batch normalisation, which is then folded into the convolutions. We evaluate maps on those of 500 "
    "held-out scenes whose two digits the network recognises. "
)

LOCATES = Claim(
    name="localisation by the map",
    seeded_as="locates",
    sentence="The strongest pixels of a digit's gradient lie in that digit's box more often than the "
    "brightest pixels do, and more often than the strongest pixels of an untrained network's gradient.",
    paper=Figure(
        "Maps are used for weakly supervised localisation: 46.4 % top-5 error in ILSVRC-2013",
        where="abstract and section 3.2",
        read="secondary",
    ),
    rule=(
        at_least("strongest pixels in the asked box", "gradient", 1.35, over="brightness", toward=1.0),
        at_least("strongest pixels in the asked box", "gradient", 1.75, over="untrained", toward=1.0),
    ),
    control="the same number of brightest pixels, and the gradient at the initial weights",
    control_arm="brightness",
    control_reaches=(Bound("digits that the network names", ">=", 0.8),),
    breaks=(INITIAL, ALL_CLASSES, EDGES, EVIDENCE),
    chosen_on=(0, 1),
    deviations=SETTING + "The paper segments the object from the pixels above the 95 % quantile and takes "
    "the segment's box. Our score is the share of these pixels that lie in the digit's box.",
    headline=True,
    history=(
        (
            "Until November 2026 the measure was the share of the whole map's sum, and the only control was "
            'the untrained network. The verdict was "reproduced" (2.03 times as much). Such a share depends '
            "on the sparsity of a map. Brightness, which needs no network, was not compared. Now the same "
            "number of pixels is taken from each map."
        ),
        (
            "Until the end of November 2026 the class activation map was not a rival, and the verdict was "
            '"reproduced" (5 of 5 seeds, same bounds). On seeds 7101 and 7102 the gradient reaches 1.71 and '
            "1.73 times the share of brightness, and the class activation map 1.92 and 2.03 times."
        ),
    ),
)

SPECIFIC = Claim(
    name="class specificity of the map",
    seeded_as="the class that was asked for",
    sentence="A larger share of the saliency map of one digit's score lies in that digit's box than in the "
    "other digit's box.",
    paper=Figure(
        "A map is computed for a given class. The paper reports no number.",
        where="abstract and section 3",
        read="abstract",
    ),
    rule=(at_least("asked box over other", "gradient", 0.2, minus="untrained", toward=0.05),),
    control="the same network with its initial weights (chance is one half)",
    control_arm="untrained",
    control_reaches=(Bound("digits that the network names", ">=", 0.8),),
    breaks=(INITIAL, ALL_CLASSES, EVIDENCE),
    chosen_on=(0, 1),
    deviations=SETTING + "The paper shows only the map of each picture's highest-scoring class.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bound), and there was no '
            "rival, because a map that is made without the network is the same for both digits. The class "
            "activation map uses the network. On seeds 7101 and 7102 its difference from the control is "
            "0.50, and the gradient's is 0.40."
        ),
    ),
)

STRONGEST = 0.05  # of all pixels, as in section 3.2

Question = Callable[[Tensor, Tensor], Tensor]  # maps images and classes to saliency maps


@hookimpl
def experiment(run: Run) -> None:
    pair = networks(run)
    asked = known(run, pair.trained, "judge", run.pick(smoke=8, quick=500, full=2000))
    run.metric("digits that the network names", asked.named)
    run.log(f"{len(asked.images)} questions about scenes whose two digits are recognised")
    untrained = Arm(partial(saliency, pair.untrained))
    run.compare(
        LOCATES,
        SPECIFIC,
        arms={
            "gradient": Arm(partial(saliency, pair.trained)),
            "brightness": Arm(without_network(brightness)),
            "untrained": untrained,
        },
        attempt=partial(explain, asked),
        read=partial(score, asked),
        yardsticks={"edges": Arm(without_network(edges))},
        references={"": {"digits that the network names": asked.named}},
        breaks={
            INITIAL.name: {"gradient": untrained},
            ALL_CLASSES.name: {"gradient": Arm(partial(of_all_classes, pair.trained))},
            EDGES.name: {"gradient": Arm(without_network(edges))},
            EVIDENCE.name: {"gradient": Arm(partial(evidence, pair.trained))},
        },
        null="items",
    )
    run.headline("strongest pixels in the asked box, question by question")
    run.axes("strongest pixels in the asked box, question by question", x="questions, worst first, in %")
    draw(run, pair.trained, pair.untrained, asked)
    draw_classes(run, pair.trained, asked)


def without_network(map_: Callable[[Tensor], Tensor]) -> Question:
    """Turn a map of the image alone into a method that ignores the network and the class."""
    return lambda images, classes: map_(images)


def of_all_classes(network: PairNet, images: Tensor, classes: Tensor) -> Tensor:
    def summed(x: Tensor) -> Tensor:
        return network(x).sum(1, keepdim=True)

    return class_gradient(summed, images, torch.zeros_like(classes)).abs().amax(1)


def evidence(network: PairNet, images: Tensor, classes: Tensor) -> Tensor:
    """The class activation map: each position's positive contribution to the score, upsampled."""
    added = torch.einsum("qmrc,qm->qrc", network.features(images), network.classifier.weight[classes])
    return F.interpolate(added.relu()[:, None], images.shape[2:], mode="bilinear")[:, 0]


def explain(asked: Known, at: Trial, question: Question, _: None) -> tuple[float, Tensor]:
    """One map per question. There is no hyperparameter to choose."""
    return math.nan, question(asked.images, asked.classes)


def score(asked: Known, at: Trial, found: Sweep[Map]) -> dict[str, Tensor]:
    """Localisation scores for each scene's two questions.

    These are the share of the strongest pixels in the digit's box, and whether more of the map's sum lies
    there than in the other digit's box (0.5 for a tie).
    """
    ours, theirs = energy(found.chosen, asked.boxes), energy(found.chosen, asked.others)
    over = (ours > theirs).float() + (ours == theirs).float() / 2
    hits = strongest(found.chosen, asked.boxes)
    at.metric("strongest pixels in the asked box", hits.mean().item())
    at.metric("strongest pixels in the other box", strongest(found.chosen, asked.others).mean().item())
    at.metric("share in the asked box", ours.mean().item())
    at.metric("asked box over other", over.mean().item())
    for part in range(10):
        at.metric(
            "strongest pixels in the asked box, question by question",
            hits.quantile((part + 0.5) / 10).item(),
            step=10 * part + 5,
        )
    return {
        "strongest pixels in the asked box": hits.view(-1, 2),
        "asked box over other": over.view(-1, 2),
    }


def strongest(maps: Map, boxes: Float[Tensor, "questions 4"]) -> Float[Tensor, " questions"]:
    """The share of a map's strongest pixels that lie in a box."""
    flat = maps.float().cpu().flatten(1)
    places = flat.topk(round(STRONGEST * flat.shape[1]), dim=1).indices
    return inside(boxes, maps.shape[1:]).flatten(1).gather(1, places).float().mean(1)


def large(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels _ _"]:
    return images.repeat_interleave(4, 2).repeat_interleave(4, 3)


def heat(map_: Map) -> Float[Tensor, "questions 3 height width"]:
    """Each map divided by its maximum, as a grey picture."""
    return (map_ / map_.amax((1, 2), keepdim=True).clamp(min=1e-12))[:, None].expand(-1, 3, -1, -1)


def draw(run: Run, trained: PairNet, untrained: PairNet, asked: Known) -> None:
    """Show six scenes, the maps of both digits, the untrained network's map of the first digit, and edges."""
    count = min(6, len(asked.images) // 2)
    first, second = asked.images[0 : 2 * count : 2], asked.images[1 : 2 * count : 2]
    classes = asked.classes[: 2 * count]
    rows = [
        first,
        heat(saliency(trained, first, classes[::2])),
        heat(saliency(trained, second, classes[1::2])),
        heat(saliency(untrained, first, classes[::2])),
        heat(edges(first)),
    ]
    run.image(
        "maps",
        large(torch.cat(rows)),
        columns=[f"{a} and {b}" for a, b in classes.view(-1, 2).tolist()],
        rows=["scene", "first digit", "second digit", "first, untrained", "edges"],
        caption="Scenes with two digits, and each digit's maps.",
    )


def draw_classes(run: Run, network: PairNet, asked: Known) -> None:
    """Images that maximise each class score (section 2)."""
    noise = 0.1 * torch.randn(CLASSES, 3, SIDE, SIDE, generator=run.generator("class models"))
    classes = torch.arange(CLASSES, device=run.device)
    steps = run.pick(smoke=3, quick=200, full=400)
    drawn = class_model(network, noise.to(asked.images), classes, steps=steps)
    caption = (
        "Images that maximise the scores of 0, 1, 2, 3 and 4, with a penalty on the norm, starting from "
        "faint noise."
    )
    run.image("class models", large(drawn), columns=[str(one) for one in range(CLASSES)], caption=caption)
