"""Pages of units, and whether pictures that one network draws of the classes mean something to another."""

import hashlib
import inspect

import torch
from torch import Tensor, nn

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from ..saliency import network as network_of_saliency
from ..saliency.network import CLASSES, SIDE, Pair, PairNet, draw, learn, networks
from .units import CUTS, Strongest, optimised, responses, strongest

UNTRAINED = Break("untrained", "The network that the images are optimised for is untrained.")

MEANS = Claim(
    name="more than one network's quirk",
    sentence="Images that are optimised for one network's classes are classified correctly by another "
    "network, which was initialised differently.",
    paper=Figure(
        "Images show what a unit responds to. There is a gallery and no number.",
        where="OpenAI's announcement",
        read="text",
    ),
    rule=(Bound("named rightly, drawn by trained - by untrained", ">=", 0.25, direction=0.05),),
    control="images optimised in the same way for the untrained network; chance is one fifth",
    control_reaches=(Bound("digits that the other network names", ">=", 0.8),),
    guards=(Bound("units whose picture excites them more than any image, trained", ">=", 0.9),),
    breaks=(UNTRAINED,),
    chosen_on=(0, 1),
    deviations="Two small networks, trained on the same scenes of 20 × 20 pixels with two of five digits, "
    "replace eight vision models. Twelve images for each class are optimised from different noise, in 100 "
    "steps with random shifts.",
)


@hookimpl
def experiment(run: Run) -> None:
    pair, judge = networks(run), other(run)
    scene = draw(run, "judge", run.pick(smoke=8, quick=400, full=2000))
    images = scene.images.to(run.device, run.dtype)
    best = judge(images).topk(2).indices.cpu()
    named = (best[:, None] == scene.labels[:, :, None]).any(2).float().mean().item()
    run.metric("digits that the other network names", named)
    drawer = pair.untrained if run.without(UNTRAINED.name) else pair.trained
    arms: dict[str, PairNet] = run.arms({"trained": drawer, "untrained": pair.untrained}, control="untrained")
    share = {arm: meaning(run, arm, network, judge) for arm, network in arms.items()}
    exceeding = pages(run, arms, images)
    values = {
        "named rightly, drawn by trained - by untrained": share["trained"] - share["untrained"],
        "digits that the other network names": named,
        "units whose picture excites them more than any image, trained": exceeding,
    }
    run.claim(MEANS, values)


def other(run: Run) -> PairNet:
    """A network like the one that draws, from other initial weights."""

    def train(network: nn.Module) -> None:
        learn(run, network)

    # The cache key includes the training code: if that file changes, the network is trained again.
    source = hashlib.sha256(inspect.getsource(network_of_saliency).encode()).hexdigest()[:8]
    trained, untrained = run.trained(f"scenes.pairs.other.{source}", PairNet, train)
    return Pair(trained.fold(), untrained.fold()).trained


def meaning(run: Run, arm: str, network: PairNet, judge: PairNet) -> float:
    """The share of the pictures of classes that the other network names rightly; curves over the steps."""
    each = run.pick(smoke=2, quick=12, full=40)
    classes = torch.arange(CLASSES, device=run.device).repeat(each)
    noise = run.generator("noise of the classes")
    steps = run.pick(smoke=2, quick=100, full=400)
    images = optimised(network, classes, noise, side=SIDE, steps=steps, dtype=run.dtype)
    scores = judge(images)
    right = (scores.argmax(1) == classes).float().mean().item()
    run.metric("named rightly by the other network", right, arm=arm)
    ranks = (scores > scores.gather(1, classes[:, None])).sum(1)
    for rank in range(CLASSES):
        share = (ranks <= rank).float().mean().item()
        run.metric("named rightly within so many guesses", share, step=rank + 1, arm=arm)
    run.axes("named rightly within so many guesses", x="guesses")
    run.headline("named rightly within so many guesses")
    caption = f"Optimised for the classes 0 to 4, drawn by {arm}; a row for each noise."
    columns = [str(one) for one in range(CLASSES)]
    run.image(f"classes, {arm}", large(images[: 4 * CLASSES]), columns=columns, caption=caption)
    return right


def pages(run: Run, arms: dict[str, PairNet], images: Tensor) -> float:
    """A sheet for each layer and a page for each unit: optimised, untrained, and the data's strongest.

    Returns the share of the trained network's units that their picture excites more than any image does.
    """
    above, count = 0, 0
    for layer in CUTS:
        run.check_cancelled()
        found = strongest(arms["trained"], layer, images, best=min(6, len(images)))
        units = torch.arange(len(found.activity), device=run.device)
        steps = run.pick(smoke=1, quick=40, full=200)
        drawn, reached = {}, {}
        for arm, network in arms.items():
            activity, noise = responses(network, layer), run.generator(f"noise of {layer}")
            drawn[arm] = optimised(activity, units, noise, side=SIDE, steps=steps, dtype=run.dtype)
            reached[arm] = activity(drawn[arm]).gather(1, units[:, None])[:, 0]
        above += int((reached["trained"] > found.activity).sum())
        count += len(units)
        if not (run.null or run.broken):
            write_pages(run, layer, drawn, reached["trained"], found)
    return above / count


def write_pages(run: Run, layer: str, drawn: dict[str, Tensor], reached: Tensor, found: Strongest) -> None:
    """The sheet shows of each unit what its page has first, and three of the strongest pieces."""
    scale = 2 * SIDE // found.patches.shape[-1]
    patches = found.patches.repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    tiles = torch.stack([large(drawn[arm], 2) for arm in ("trained", "untrained")], 1)
    tiles = torch.cat((tiles, patches), 1).float()
    caption = (
        f"Every unit of {layer}, four in a row: an input optimised for it, then the three strongest pieces "
        "of scenes."
    )
    run.image(layer, tiles[:, [0, 2, 3, 4]].flatten(0, 1), columns=16, caption=caption)
    for unit, page in enumerate(tiles):
        caption = (
            f"Optimised for the unit, activity {reached[unit]:.2f}; for the untrained network's; the pieces "
            f"of the {len(page) - 2} scenes in which it is most active, at most {found.activity[unit]:.2f}."
        )
        shown = page.repeat_interleave(2, 2).repeat_interleave(2, 3)
        columns = ["optimised", "untrained", *["scene"] * (len(page) - 2)]
        run.image(f"{layer}, unit {unit}", shown, columns=columns, caption=caption)


def large(images: Tensor, times: int = 4) -> Tensor:
    return images.float().repeat_interleave(times, 2).repeat_interleave(times, 3)
