"""Tests whether sound improves image features and whether the code is shared, and checks Flamingo's gates."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)
from readtrack.scores import accuracy

from ..clip import contrastive
from ..gpt2 import GPT2
from . import task
from .flamingo import Flamingo
from .model import LinearReader, MultimodalAutoencoder, fit_cca, fit_reader, reconstruction_loss
from .task import FEATURES, Data, Pairs

ANOTHER_SOUND = Break(
    "another digit's sound", "Each training image gets a random digit's sound.", "near miss"
)
NEVER_MISSING = Break("no missing modality", "The autoencoder always gets both modalities.", "near miss")
TOWERS = Break(
    "contrastive encoders",
    "Instead of an autoencoder, one encoder per modality is trained with CLIP's contrastive loss.",
    "rival",
)
RIGHT, CROSSED = "accuracy", "accuracy from sounds to images"
IMAGES = "accuracy from images to images"
DEVIATIONS = (
    "Handwritten digits of 8 × 8 pixels with noise replace the video of lips, and telephone tones replace "
    "the voice. Each of about 800 training images has four copies with different noise and sounds. A tanh "
    "network trained end to end replaces sparse RBMs, and ridge regression on 100 labels replaces the SVM. "
)

BETTER_FEATURES = Claim(
    name="cross modality learning",
    sentence="After 500 steps, image features learned together with the matching sounds give a more "
    "accurate image classifier than features learned from images alone. The classifier gets only images.",
    paper=Figure(
        "Features learned from video are better if sound is present during feature learning.",
        where="abstract",
        read="abstract",
    ),
    rule=(at_least(RIGHT, "with sound", 0.05, minus="images alone", toward=0.0),),
    control="the same autoencoder on images alone, at its best learning rate from the same grid",
    control_arm="images alone",
    control_reaches=(at_least(RIGHT, "images alone", 0.4),),
    after_steps=500,
    breaks=(ANOTHER_SOUND, TOWERS, UNTRAINED),
    shortcuts=("accuracy of the pixels",),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "Image and sound share only the digit, so the sound is a noisy label of the "
    "image. Lip movements and voice share more.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (same bound, no rival), and each image was '
            "tested once. Each image is now tested with four samples of noise, because the standard error "
            "with a single sample was 0.02."
        ),
    ),
)

SHARED = Claim(
    name="shared representation",
    sentence="After 500 steps, an autoencoder that must reconstruct both modalities from either one has a "
    "shared code. A classifier trained on its sound codes is more accurate on images than one "
    "trained on the codes of an autoencoder that reconstructs only its inputs, or on features from "
    "canonical correlation analysis.",
    paper=Figure(
        "A classifier trained on audio alone is tested on video alone, and vice versa.",
        where="abstract",
        read="abstract",
    ),
    rule=(
        at_least(CROSSED, "both modalities", 0.2, minus="own modality", toward=0.0),
        at_least(CROSSED, "both modalities", 0.05, minus="CCA", toward=0.0),
    ),
    control="the same autoencoder at its best learning rate from the same grid, with inputs missing equally "
    "often. It reconstructs only the modalities that are present",
    control_arm="own modality",
    control_reaches=(at_least(IMAGES, "own modality", 0.4),),
    after_steps=500,
    breaks=(ANOTHER_SOUND, NEVER_MISSING, TOWERS, UNTRAINED),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + "The ridge penalty is chosen on sounds only. Image and sound share only the "
    "digit, so the sound is a noisy label of the image.",
    history=('Until November 2026 the verdict was "reproduced" (same bounds, no rival).',),
)

SHUT = Claim(
    name="output with closed gates",
    sentence="Flamingo's gated cross-attention leaves the output of a frozen language model unchanged at "
    "initialisation, and its gates have nonzero gradients.",
    paper=Figure(
        "Gates of tanh(α), with α initialised to 0, keep the frozen model's output unchanged (Flamingo).",
        where="section 2.2 of arXiv 2204.14198v2",
        read="text",
    ),
    kind="identity",
    rule=(Bound("largest change of a logit", "==", 0), Bound("gates without a gradient", "==", 0)),
)

# Learning rates for image features, and for the shared code, whose control is best at low learning rates.
RATES, SHARED_RATES = (0.0005, 0.002, 0.008, 0.032, 0.128), (0.000125, 0.0005, 0.002, 0.008, 0.032)
RIDGES = (0.01, 0.1, 1.0)
BATCH = 64


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SHUT):
        shut(run)
    run.phase("setup")
    data = task.draw(run, run.pick(smoke=40, quick=100, full=100))
    learn_features(run, data)
    learn_shared(run, data)


def with_other_sounds(run: Run, data: Data) -> Data:
    """Pair the training images with the sounds of random digits. Labelled data keep their sounds."""
    order = torch.randperm(len(data.train.digit), generator=run.generator("other sounds"))
    return data._replace(train=data.train._replace(sound=data.train.sound[order.to(run.device)]))


def shut(run: Run) -> None:
    torch.manual_seed(run.seed)
    language = GPT2(50, context=12, model=32, heads=4, layers=3, std=0.2).to(run.device, run.dtype)
    flamingo = Flamingo(language, context=24).to(run.device, run.dtype)
    ids = torch.randint(50, (4, 12), generator=run.generator("tokens")).to(run.device)
    seen = torch.randn(4, 6, 24, generator=run.generator("what is seen")).to(run.device, run.dtype)
    logits = flamingo(ids, seen)
    logits.log_softmax(-1)[..., 0].sum().backward()
    still = sum(int((gated.gates.grad == 0).sum()) for gated in flamingo.gated)
    change = (logits - language(ids)).abs().max().item()
    run.claim(SHUT, {"largest change of a logit": change, "gates without a gradient": still})


def autoencoder(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> MultimodalAutoencoder:
    sizes = ({name: FEATURES[name] for name in names} for names in (inputs, outputs))
    return MultimodalAutoencoder(*sizes, hidden=96, code=32)


class Towers(nn.Module):
    """An encoder for each modality, whose codes are unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(size, 96), nn.ReLU(), nn.Linear(96, 32))
                for name, size in FEATURES.items()
            }
        )

    def code(self, present: dict[str, Tensor]) -> Tensor:
        """The code of the only modality present."""
        ((name, features),) = present.items()
        return nn.functional.normalize(self.towers[name](features), dim=1)


class Learner(NamedTuple):
    """A function that builds a network, and the loss that trains it."""

    make: Callable[[], Any]
    objective: Callable[[Any, Pairs], Tensor]


def contest(network: Towers, batch: Pairs) -> Tensor:
    """CLIP's contrastive loss between the codes of images and of their sounds."""
    image, sound = (network.code(batch.present(name)) for name in FEATURES)
    return contrastive(image, sound, image.new_tensor(5.0))


def whole(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """Reconstruction loss with all inputs present and all outputs as targets (figure 3a)."""
    return reconstruction_loss(network(batch.present(*network.encoders)), batch.present())


def both_from_either(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """The loss of section 3 on each pair as it is and with either input zeroed, always with both targets."""
    return reconstruction_loss(network.decode(network.tripled(batch.present())), batch.present())


def each_from_itself(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """The control's loss: the inputs of `both_from_either`, with only the modalities present as targets."""
    made, count = network.decode(network.tripled(batch.present())), len(batch.digit)
    alone = {name: 1 + place for place, name in enumerate(network.encoders)}
    there = {name: made[name].unflatten(0, (-1, count))[[0, alone[name]]].flatten(0, 1) for name in made}
    return reconstruction_loss(there, batch.present())


def train(at: Run | Trial, data: Data, learner: Learner, rate: float, steps: int, label: str) -> Any:
    run = at.run if isinstance(at, Trial) else at
    network = learner.make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = at.generator("batches")
    run.phase("train")
    for step in at.steps(steps, label, state=(network, optimizer, schedule)):
        batch = data.train.take(torch.randint(len(data.train.digit), (BATCH,), generator=batches))
        at.descend(learner.objective(network, batch), optimizer, step=step, arm=label)
        schedule.step()
    run.phase("evaluate")
    return network.eval()


def attempt(at: Trial, learner: Learner, rate: float, *, of: str) -> tuple[float, Any]:
    """Train a network. Return the image accuracy of a classifier trained on `of`, and the network."""
    steps = at.length(at.run.pick(smoke=3, quick=500, full=4000))
    network = train(at, at.world, learner, rate, steps, f"{at.name}, rate {rate:g}")
    return judged(network.code, at.world, at.world.choose, of=of, on="image").mean().item(), network


def reader(code: Callable[[dict[str, Tensor]], Tensor], data: Data, name: str) -> LinearReader:
    """A classifier trained on codes of one modality, with the best ridge penalty for that modality."""

    def of(part: Pairs) -> Tensor:
        return code(part.present(name))

    readers = [fit_reader(of(data.labelled), data.labelled.digit, 10, ridge=ridge) for ridge in RIDGES]
    return max(readers, key=lambda one: accuracy(one(of(data.choose)), data.choose.digit))


@torch.no_grad()
def judged(
    code: Callable[[dict[str, Tensor]], Tensor], data: Data, part: Pairs, *, of: str, on: str
) -> Tensor:
    """For each row, whether a classifier trained on modality `of` is right on modality `on`."""
    return (reader(code, data, of)(code(part.present(on))).argmax(1) == part.digit).double()


def of_images(right: Float[Tensor, " rows"]) -> Float[Tensor, " images"]:
    """The mean accuracy on each image over its noisy copies."""
    return right.unflatten(0, (task.JUDGED, -1)).mean(0)


def learn_features(run: Run, data: Data) -> None:
    """Figure 3a: a code of the image, which reconstructs the image alone, or the image and the sound."""
    with_sound = partial(autoencoder, ("image",), ("image", "sound"))
    alone = partial(autoencoder, ("image",), ("image",))

    def read(at: Trial, found: Sweep[Any]) -> dict[str, Tensor]:
        right = of_images(judged(found.chosen.code, data, data.judge, of="image", on="image"))
        at.metric("accuracy of image features", right.mean().item())
        return {RIGHT: right}

    pixels = judged(only, data, data.judge, of="image", on="image")
    run.compare(
        BETTER_FEATURES,
        arms={"with sound": Arm(Learner(with_sound, whole)), "images alone": Arm(Learner(alone, whole))},
        attempt=partial(attempt, of="image"),
        read=read,
        grid=rates(run, RATES),
        score="validation accuracy",
        keep="highest",
        references={"": {"accuracy of the pixels": pixels.mean().item()}},
        breaks={
            ANOTHER_SOUND.name: partial(with_other_sounds, run),
            TOWERS.name: {"with sound": Arm(Learner(Towers, contest))},
        },
        world=data,
    )


def rates(run: Run, grid: tuple[float, ...]) -> tuple[float, ...]:
    return run.pick(smoke=grid[1:2], quick=grid, full=grid)


def only(present: dict[str, Tensor]) -> Tensor:
    """The features of the only modality present."""
    (features,) = present.values()
    return features


def learn_shared(run: Run, data: Data) -> None:
    """Figure 3b: both modalities are inputs, one of them zeroed in two thirds of the data."""
    make = partial(autoencoder, ("image", "sound"), ("image", "sound"))
    cca = fit_cca(data.train.image.double(), data.train.sound.double(), 9)

    def projected(present: dict[str, Tensor]) -> Tensor:
        (name,) = present
        return cca.project(present[name].double(), ("image", "sound").index(name))

    def read(at: Trial, found: Sweep[Any]) -> dict[str, Tensor]:
        crossed, images = (
            of_images(judged(found.chosen.code, data, data.judge, of=name, on="image"))
            for name in ("sound", "image")
        )
        at.metric(CROSSED, crossed.mean().item())
        return {CROSSED: crossed, IMAGES: images}

    table = run.compare(
        SHARED,
        arms={
            "both modalities": Arm(Learner(make, both_from_either)),
            "own modality": Arm(Learner(make, each_from_itself)),
        },
        attempt=partial(attempt, of="sound"),
        read=read,
        grid=rates(run, SHARED_RATES),
        score="validation accuracy, sounds to images",
        keep="highest",
        references={"CCA": {CROSSED: of_images(judged(projected, data, data.judge, of="sound", on="image"))}},
        breaks={
            ANOTHER_SOUND.name: partial(with_other_sounds, run),
            NEVER_MISSING.name: {"both modalities": Arm(Learner(make, whole))},
            TOWERS.name: {"both modalities": Arm(Learner(Towers, contest))},
        },
        world=data,
    )
    if not (run.null or run.broken) and table.sweeps:
        torch.manual_seed(run.seed)
        steps = run.pick(smoke=3, quick=300, full=4000)
        contrasted = train(run, data, Learner(Towers, contest), 0.003, steps, "contrastive")
        both, own = (table.sweeps[arm].chosen for arm in ("both modalities", "own modality"))
        codes = {
            "both modalities": both.code,
            "own modality": own.code,
            "CCA": projected,
            "contrastive (CLIP)": contrasted.code,
        }
        tabulate(run, data, codes)
        over_noise(run, data, both)
        show(run, data, both)


def tabulate(run: Run, data: Data, codes: dict[str, Callable[[dict[str, Tensor]], Tensor]]) -> None:
    """The paper's table: accuracy for each training modality and each test modality."""
    ways = [(of, on) for of in FEATURES for on in FEATURES]
    rows = []
    for name, code in codes.items():
        found = [judged(code, data, data.judge, of=of, on=on).mean().item() for of, on in ways]
        rows.append([name, *(round(one, 3) for one in found)])
    columns = ["code", *(f"{of} to {on}" for of, on in ways)]
    run.table(
        "from one to the other", columns, rows, caption="Classifiers trained on 100 labels. Chance is 0.1."
    )


@torch.no_grad()
def over_noise(run: Run, data: Data, network: MultimodalAutoencoder) -> None:
    """Plot accuracy against the sounds' noise, from sounds, from images and from both."""

    def of_both(present: dict[str, Tensor]) -> Tensor:
        return network.code(present)

    readers = {name: reader(of_both, data, name) for name in ("sound", "image")}
    both = [
        fit_reader(of_both(data.labelled.present()), data.labelled.digit, 10, ridge=ridge) for ridge in RIDGES
    ]
    readers["both"] = max(both, key=lambda r: accuracy(r(of_both(data.choose.present())), data.choose.digit))
    for noise in (0.35, 0.7, 1.4, 2.8, 5.6):
        heard = task.spectra(task.waves(data.judge.digit.cpu(), run.generator(f"noise {noise}"), noise))
        part = data.judge._replace(sound=heard.to(run.device, run.dtype))
        for arm, one in readers.items():
            present = part.present(*(() if arm == "both" else (arm,)))
            run.metric(
                "accuracy over the sound's noise",
                accuracy(one(of_both(present)), part.digit),
                step=noise,
                arm=arm,
            )
    run.headline("accuracy over the sound's noise")
    run.axes("accuracy over the sound's noise", x="standard deviation of the noise", y="accuracy")


@torch.no_grad()
def show(run: Run, data: Data, network: MultimodalAutoencoder) -> None:
    """Show images, and their reconstructions from the image's code and from the sound's code."""
    first = [int((data.judge.digit == digit).nonzero()[0]) for digit in data.judge.digit.unique().tolist()]
    part = data.judge.take(torch.tensor(first, device=run.device))
    drawn = network(part.present("sound"))["image"]
    cleaned = network(part.present("image"))["image"]
    sheet = torch.cat((part.image, cleaned, drawn)).float().cpu().view(-1, 1, 8, 8) + 0.3
    run.image(
        "images and sounds",
        sheet.repeat_interleave(6, 2).repeat_interleave(6, 3),
        columns=[str(digit) for digit in part.digit.tolist()],
        rows=["image", "from image", "from sound"],
        caption="Images, and their reconstructions from the image alone and from the sound alone.",
    )
