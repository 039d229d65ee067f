"""DeepDream: change a photograph step by step so that a layer of a network responds to it more strongly.

Mordvintsev, Olah and Tyka 2015, "Inceptionism: Going Deeper into Neural Networks" (Google Research's blog),
and the notebook that its authors published: github.com/google/deepdream.

The problem. A trained network classifies images without giving reasons. What does an intermediate layer
respond to? Maximising a class score requires choosing a class, and the resulting image looks like noise
unless it is regularised towards natural images.

The idea. Start from a photograph, run it through the network up to a layer, and follow the gradient of the
squared norm of that layer's own activations. This amplifies patterns to which the layer responds only weakly.
Three tricks make the result look like an image: steps whose size does not depend on the gradient's norm, a
random shift before each step, and octaves, where the ascent starts on a small copy and only the added detail
is carried over to the next size. Feature visualisation (Olah et al. 2017), which shows what single units
respond to, developed from DeepDream.

This file has the experiment, which tests whether the layer's response grows, and whether the dream shows what
the network was trained on. `ascent` implements the dream, optionally guided by another image, with the
notebook's settings as defaults. `network` has a small network, which is trained within seconds to predict
which part of a photograph a patch comes from, and to recognise digits pasted on the patches. `timing` has the
benchmark.

Dimensions: batch, height, width of images in red, green and blue from 0 to 1.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bench,
    Bound,
    Break,
    Case,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)

from .ascent import Images, Objective, dream, energy, likeness, resize, step
from .network import COLUMNS, ROWS, Network, colors_of, descend_silently, learn, lesson, side_by_side, strokes
from .timing import cases


@hookimpl
def implementation() -> Callable[..., list[Tensor]]:
    return dream


SEEN = "energy by the judges, dream / start"

AMPLIFIES = Claim(
    name="layer response after gradient ascent",
    sentence="Gradient ascent on a layer's squared activations at least doubles them, whereas noise of the "
    "same norm does not.",
    paper=Figure(
        "The image is changed to increase a layer's own response. The blog shows only pictures and gives no "
        "number.",
        read="text",
    ),
    kind="theorem",
    rule=(
        Bound("energy, end / start", ">=", 2.0),
        Bound("share of steps that raise the energy", ">=", 0.95),
        Bound("energy with noise of the same norm / start", "<=", 1.1),
    ),
    control="Gaussian noise of the same norm as the dream's change, added to the photograph",
    deviations="The layer is the third of our small network, not GoogLeNet's inception_4c. There are two "
    "photographs of 120 rows, and the worse result counts. The ascent takes 60 steps of the notebook's "
    "size, without shifts or octaves. Gradient ascent also raises the activations of an untrained network.",
)

FIRST_LAYER = Break(
    "first layer",
    "The same networks dream with their first layer, which responds to edges.",
    "near miss",
)
BLENDED = Break(
    "blended photographs",
    "The dream is replaced by a blend with the photograph that the network was trained on. The change has "
    "the same norm as the dream's change.",
    "rival",
)
SCRAMBLED = Break(
    "random phases",
    "The dreaming networks are trained on noise with the photographs' colours and spatial frequencies: the "
    "phases of the photographs' Fourier coefficients are random.",
    "rival",
)

LEARNED = Claim(
    name="response to dreams of the same and of another subject",
    sentence="After 200 steps of training on one of two photographs, a network's dream shows what it was "
    "trained on. A second network trained on the same photograph responds at least 1.15 times as strongly to "
    "this dream as to the dream of a network trained on the other photograph.",
    paper=Figure(
        "A network that was trained mostly on animals finds animals in shapes. The blog shows only pictures "
        "and gives no number.",
        read="text",
    ),
    rule=(at_least(SEEN, "same subject", 1.15, over="other subject", toward=1.02),),
    control="dreams of the network trained on the other photograph. The judging networks have the same "
    "architecture, but other initial weights and other training patches",
    control_arm="other subject",
    after_steps=200,
    breaks=(FIRST_LAYER, BLENDED, SCRAMBLED, UNTRAINED),
    chosen_on=(0, 1),
    deviations="The layer is the third of our small networks, not GoogLeNet's inception_4c. The result is "
    "the geometric mean over both subjects and two photographs of 120 rows. The ascent takes 60 steps of "
    "the notebook's size, without shifts or octaves. The blog shows only pictures.",
    headline=True,
    history=(
        'Until November 2026 the verdict was "reproduced" (5 of 5 seeds, same bound). There was no rival.',
        (
            "Until the end of November 2026 blended photographs were the only rival, and the verdict was "
            '"reproduced" (10 of 10 seeds, same bound). On seeds 7101 and 7102 the ratio is 1.85 and 1.35 '
            "for networks trained on the photographs, and 2.22 and 1.60 for networks trained on random "
            "phases. If the control's networks are trained on random phases, too, it is 1.23 and 1.22."
        ),
    ),
)

SUBJECTS = ("temple", "flower")
SAME = {subject: subject for subject in SUBJECTS}
OTHER = dict(zip(SUBJECTS, reversed(SUBJECTS), strict=True))
Dreamers = dict[str, Network]


class World(NamedTuple):
    """The photograph of each subject for training, small copies to dream on, and the judges."""

    photographs: dict[str, Images]
    small: Images
    judges: Dreamers


class Plan(NamedTuple):
    """How an arm dreams.

    dreams  maps the trained networks to the dream for each judge's subject
    phases  whether the networks are trained on the photographs with random phases
    """

    dreams: Callable[[Trial, Dreamers], dict[str, Images]]
    phases: bool = False


class Dreamt(NamedTuple):
    """The networks that dreamt, and the dream for each judge's subject."""

    dreamers: Dreamers
    images: dict[str, Images]


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    photographs = dict(zip(SUBJECTS, data.photographs(240).split(1), strict=True))
    small = data.photographs(run.pick(smoke=48, quick=120, full=240)).to(run.device, run.dtype)
    run.phase("train")
    judges = {subject: judge(run, subject, photograph) for subject, photograph in photographs.items()}
    table = run.compare(
        LEARNED,
        arms={
            "same subject": Arm(Plan(partial(of_networks, SAME))),
            "other subject": Arm(Plan(partial(of_networks, OTHER))),
        },
        attempt=dream_of_both,
        read=what_judges_see,
        breaks={
            FIRST_LAYER.name: {"same subject": Arm(Plan(partial(of_networks, SAME, depth=1)))},
            BLENDED.name: {"same subject": Arm(Plan(blended))},
            SCRAMBLED.name: {"same subject": Arm(Plan(partial(of_networks, SAME), phases=True))},
        },
        world=World(photographs, small, judges),
    )
    run.phase("evaluate")
    if run.wants(AMPLIFIES):
        known = table.sweeps["same subject"].chosen.dreamers
        amplify(run, known["temple"], small)
        draw(run, known)


def dream_of_both(at: Trial, plan: Plan, _: None) -> tuple[float, Dreamt]:
    """Train a network for each subject, and dream. Nothing is tuned, so the score is NaN."""
    steps = at.length(at.run.pick(smoke=4, quick=200, full=2000))
    networks = {}
    for subject, photograph in at.world.photographs.items():
        name = f"{subject} dreamer"
        arm = f"{name}, {at.name}"

        def descend(loss: Tensor, optimizer: torch.optim.Optimizer, step: int, arm: str = arm) -> None:
            at.descend(loss, optimizer, step=step, metric="loss", arm=arm)

        at.run.phase("train")
        draws = at.generator(name)
        shown = scrambled(photograph, at.generator(f"{subject} phases")) if plan.phases else photograph
        networks[subject] = train(at.run, arm, shown, draws, steps, at.steps(steps, f"{arm} learns"), descend)
    return math.nan, Dreamt(networks, plan.dreams(at, networks))


def train(
    run: Run,
    arm: str,
    photograph: Images,
    draws: torch.Generator,
    steps: int,
    taken: Iterable[int],
    descend: Callable[[Tensor, torch.optim.Optimizer, int], object] = descend_silently,
) -> Network:
    """Train a network to classify digits, and the part of a photograph that a patch comes from."""
    network = Network(colors_of(photograph), 10 + ROWS * COLUMNS).to(run.device, run.dtype)
    images, labels = data.digits()
    known, _, held_out = data.parts(strokes(images), labels, seed=run.seed)
    wall = side_by_side(photograph)
    learn(network, wall, *known, draws, steps, taken, descend)
    count = run.pick(smoke=50, quick=500, full=5000)
    patches, target = lesson(wall, *held_out, count, draws)
    with torch.no_grad():
        right = network(patches.to(run.device, run.dtype)).argmax(1).cpu() == target
    run.metric("accuracy", right.float().mean().item(), arm=arm)
    return network.requires_grad_(False)


def judge(run: Run, subject: str, photograph: Images) -> Network:
    """A network like the dreaming ones, with other initial weights and other patches."""
    steps, name = run.pick(smoke=4, quick=200, full=2000), f"{subject} judge"
    taken, draws = run.steps(steps, f"{name} learns"), run.data(name, "judge")
    torch.manual_seed(int(torch.randint(2**31, (), generator=draws)))
    return train(run, name, photograph, draws, steps, taken)


def seen(network: Network, images: Images, depth: int = 3) -> Float[Tensor, " batch"]:
    return energy(network.features(images, depth))


def climb(run: Run, label: str, network: Network, images: Images, depth: int = 3) -> tuple[Images, Tensor]:
    """A dream without tricks, and each image's energy before it and after each step, (steps + 1, 2)."""
    own = partial(seen, network, depth=depth)
    levels = [own(images)]
    for _ in run.steps(run.pick(smoke=3, quick=60, full=200), f"{label} dreams"):
        images = step(images, own, size=1.5 / 255)
        levels.append(own(images))
    return images, torch.stack(levels)


def of_networks(
    dreamer_of: dict[str, str], at: Trial, networks: Dreamers, depth: int = 3
) -> dict[str, Images]:
    """The dream for each judge's subject, by the network of the subject given in `dreamer_of`."""
    return {
        subject: climb(at.run, dreamer, networks[dreamer], at.world.small, depth)[0]
        for subject, dreamer in dreamer_of.items()
    }


def blended(at: Trial, networks: Dreamers) -> dict[str, Images]:
    """Blend each photograph with the subject's. The change has the same norm as in the subject's dream.

    The subject's own photograph does not change.
    """
    images, small = {}, at.world.small
    for subject, dream_of in of_networks(SAME, at, networks).items():
        away = small[SUBJECTS.index(subject)] - small
        change = (dream_of - small).flatten(1).norm(dim=1)
        share = change / away.flatten(1).norm(dim=1).clamp(min=1e-6)
        images[subject] = small + share.clamp(max=1)[:, None, None, None] * away
    return images


def scrambled(photograph: Images, generator: torch.Generator) -> Images:
    """The photograph with random phases. The amplitudes do not change before values are clipped to [0, 1].

    All colours get the phases of the same noise on top of their own, which keeps their covariance.
    """
    mean, size = photograph.mean((2, 3), keepdim=True), photograph.shape[2:]
    noise = torch.fft.rfft2(torch.randn(size, generator=generator))
    turned = torch.fft.rfft2(photograph - mean) * noise / noise.abs()
    return (torch.fft.irfft2(turned, s=size) + mean).clamp(0, 1)


def what_judges_see(at: Trial, found: Sweep[Dreamt]) -> dict[str, float]:
    """The geometric mean of the energy ratio over photographs and subjects."""
    logs = []
    for subject, judge in at.world.judges.items():
        ratio = seen(judge, found.chosen.images[subject]) / seen(judge, at.world.small)
        logs.append(ratio.log().mean().item())
        at.metric(f"energy by the judge of {subject}, dream / start", ratio.mean().item())
    return {SEEN: math.exp(sum(logs) / len(logs))}


def amplify(run: Run, dreamer: Network, photographs: Images) -> None:
    """Measure how far a dream, and noise of the same norm, raise the energy of the dreaming network."""
    image, levels = climb(run, "temple, again", dreamer, photographs)
    curve = levels / levels[0]
    run.axes("energy / start", x="step of ascent")
    for index, value in enumerate(curve.mean(1)):
        run.metric("energy / start", value.item(), step=index, arm="temple")
    change = (image - photographs).flatten(1).norm(dim=1)
    noise = torch.randn(photographs.shape, generator=run.generator("noise")).to(photographs)
    noise *= (change / noise.flatten(1).norm(dim=1))[:, None, None, None]
    noisy = seen(dreamer, (photographs + noise).clamp(0, 1)) / levels[0]
    run.metric("root mean square change", (image - photographs).square().mean().sqrt().item())
    run.claim(
        AMPLIFIES,
        {
            "energy, end / start": curve[-1].min().item(),
            "share of steps that raise the energy": (levels[1:] > levels[:-1]).float().mean(0).min().item(),
            "energy with noise of the same norm / start": noisy.max().item(),
        },
    )
    run.headline("energy / start")


def draw(run: Run, dreamers: Dreamers) -> None:
    """Save dreams with all tricks: of each layer, after each octave, guided by an image, and on digits.

    Each network dreams on the photograph that it was not trained on.
    """
    photographs = data.photographs(run.pick(smoke=48, quick=240, full=427)).to(run.device, run.dtype)
    china, flower = photographs.split(1)
    steps = run.pick(smoke=1, quick=10, full=20)
    network = dreamers["flower"]

    def dreams(images: Tensor, objective: Objective) -> list[Tensor]:
        run.check_cancelled()
        return dream(images, objective, steps=steps, generator=run.generator("shifts"))

    octaves = dreams(china, partial(seen, network, depth=4))
    of_flower = dreams(flower, partial(seen, dreamers["temple"], depth=4))
    run.image(
        "dream",
        torch.cat((photographs, octaves[-1], of_flower[-1])),
        columns=["temple", "flower"],
        rows=["photograph", "dream"],
        caption="The temple in a dream of the network trained on the flower, and the reverse.",
        alt="Two photographs, a temple and a flower, and below each its dream",
    )
    height, width = photographs.shape[2:]
    full = [resize(image[:1], height, width) for image in octaves]
    run.image(
        "octaves",
        torch.cat(full),
        caption="The dream after each octave. The added detail is carried over to the next octave.",
    )
    layers = [dreams(china, partial(seen, network, depth=depth))[-1] for depth in (1, 2, 3)]
    run.image(
        "layers",
        torch.cat((*layers, octaves[-1][:1])),
        caption="Dreams of the four layers, from the first to the last.",
    )
    guided = []
    for image, guide in ((china, flower), (flower, china)):
        aim = network.features(guide, 4)
        guided.append(dreams(image, lambda x, aim=aim: likeness(network.features(x, 4), aim))[-1])
    run.image("guided", torch.cat(guided), caption="Dreams on each photograph, guided by the other one.")
    written = data.parts(data.digits()[0], seed=run.seed).judge[0][:8, None].to(run.device, run.dtype)
    paper = 1 - F.interpolate(written, (96, 96), mode="bicubic").clamp(0, 1).expand(-1, 3, -1, -1)
    dreamt = dreams(paper, partial(seen, network, depth=4))[-1]
    digits = torch.cat((paper, dreamt))
    caption, rows = "Held-out digits, and below each its dream.", ["digit", "dream"]
    run.image("digits", digits, columns=len(paper), rows=rows, caption=caption)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    yield from cases(bench)
