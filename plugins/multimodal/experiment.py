"""The claims: what a sound does for the features of an image, a code for both, and gates that begin shut."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores import accuracy

from ..clip import contrastive
from ..gpt2 import GPT2
from . import task
from .flamingo import Flamingo
from .model import LinearReader, MultimodalAutoencoder, fit_cca, fit_reader, reconstruction_loss
from .task import FEATURES, Data, Pairs

ANOTHER_SOUND = Break("another digit's sound", "In training each image is beside the sound of any digit.")

BETTER_FEATURES = Claim(
    name="cross modality learning",
    sentence="Image features learned together with the matching sounds give a more accurate image classifier "
    "than features learned from images alone, although classifier and test see only images.",
    paper=Figure(
        "Better features for video when sound is present while features are learned.",
        where="abstract",
        read="abstract",
    ),
    rule=(Bound("accuracy, learned with sound - with images alone", ">=", 0.05, direction=0.0),),
    control="the same autoencoder that gives back the image alone, at its best of the same rates",
    control_reaches=(Bound("accuracy, learned with images alone", ">=", 0.4),),
    breaks=(ANOTHER_SOUND,),
    shortcuts=("accuracy of the pixels",),
    chosen_on=(0, 1),
    deviations="Handwritten digits of 8 × 8 in noise for the video of lips, a telephone's tones for the "
    "voice, about 800 to learn from, each four times in other noise beside another sound; tanh codes of one "
    "network trained at once, not sparse RBMs trained layer by layer; ridge regression on 100 labels for the "
    "SVM. Image and sound have nothing in common but the digit, so sound is a noisy label of the image; lips "
    "and voice share more.",
)

SHARED = Claim(
    name="shared representation",
    sentence="An autoencoder that must reconstruct both modalities from either one learns a shared code: a "
    "classifier trained on codes of sounds recognises images more accurately than with an autoencoder that "
    "reconstructs only its input, and than with canonical correlation analysis.",
    paper=Figure(
        "A classifier trained with audio alone is tested with video alone, and the other way round.",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound(
            "accuracy from sounds to images, both from either - each from itself", ">=", 0.2, direction=0.0
        ),
        Bound("accuracy from sounds to images, both from either - CCA", ">=", 0.05, direction=0.0),
    ),
    control="the same autoencoder, its inputs missing as often, but only what is there has to be given back; "
    "at its best of the same rates",
    control_reaches=(Bound("accuracy from images to images, each from itself", ">=", 0.4),),
    breaks=(ANOTHER_SOUND,),
    shortcuts=("accuracy from sounds to images, CCA",),
    chosen_on=(0, 1),
    deviations="Handwritten digits of 8 × 8 in noise for the video of lips, a telephone's tones for the "
    "voice, about 800 to learn from, each four times in other noise beside another sound; tanh codes of one "
    "network trained at once, not sparse RBMs trained layer by layer. Image and sound have nothing in common "
    "but the digit, so sound is a noisy label of the image. Ridge regression on 100 labels for the SVM, "
    "chosen by sounds alone.",
)

SHUT = Claim(
    name="gates that begin shut",
    sentence="Flamingo's gated cross-attention leaves the output of a frozen language model unchanged at "
    "initialisation, and its gates have a gradient.",
    paper=Figure(
        "Gates of tanh(α), α at first 0, keep the frozen model's results at the start (Flamingo).",
        where="section 3.1.2 of arXiv 2204.14198",
        read="memory",
    ),
    kind="identity",
    rule=(
        Bound("largest change of a logit", "==", 0),
        Bound("gates without a gradient", "==", 0),
    ),
)

# Of features of images, and of the shared code, whose control is best at low rates.
RATES, SHARED_RATES = (0.0005, 0.002, 0.008, 0.032, 0.128), (0.000125, 0.0005, 0.002, 0.008, 0.032)
RIDGES = (0.01, 0.1, 1.0)
BATCH = 64


class Learned(NamedTuple):
    """What a set of features gives: readers of images and of sounds, and their accuracies."""

    code: Callable[[dict[str, Tensor]], Tensor]
    images: float
    crossed: float


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SHUT):
        shut(run)
    if not run.wants(BETTER_FEATURES, SHARED):
        return
    run.phase("setup")
    data = task.draw(run, run.pick(smoke=40, quick=100, full=100))
    if run.without(ANOTHER_SOUND.name):
        order = torch.randperm(len(data.train.digit), generator=run.generator("other sounds"))
        mixed = data.train._replace(sound=data.train.sound[order.to(run.device)])
        # What is labelled stays as it is: the break is one of the features.
        data = data._replace(train=mixed)
    if run.wants(BETTER_FEATURES):
        learn_features(run, data)
    if run.wants(SHARED):
        learn_shared(run, data)


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


Objective = Callable[[MultimodalAutoencoder, Pairs], Tensor]


def whole(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """Figure 3a: all inputs there, all outputs wanted."""
    return reconstruction_loss(network(batch.present(*network.encoders)), batch.present())


def both_from_either(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """Section 3: each pair three times, as it is and with either input zeroed; the targets always both."""
    return reconstruction_loss(network.decode(network.tripled(batch.present())), batch.present())


def each_from_itself(network: MultimodalAutoencoder, batch: Pairs) -> Tensor:
    """The same inputs, but what is missing is not wanted: the control has seen zeros as often."""
    made, count = network.decode(network.tripled(batch.present())), len(batch.digit)
    alone = {name: 1 + place for place, name in enumerate(network.encoders)}
    there = {name: made[name].unflatten(0, (-1, count))[[0, alone[name]]].flatten(0, 1) for name in made}
    return reconstruction_loss(there, batch.present())


def train(
    run: Run,
    data: Data,
    make: Callable[[], nn.Module],
    objective: Objective,
    rate: float,
    label: str,
) -> MultimodalAutoencoder:
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    steps, batches = run.pick(smoke=3, quick=500, full=4000), run.generator("batches")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    run.phase("train")
    for step in run.steps(steps, label):
        batch = data.train.take(torch.randint(len(data.train.digit), (BATCH,), generator=batches))
        run.descend(objective(network, batch), optimizer, step=step, arm=label)
        schedule.step()
    run.phase("evaluate")
    return network.eval()


def reader(code: Callable[[dict[str, Tensor]], Tensor], data: Data, name: str) -> LinearReader:
    """Learned from the labelled rows' codes of one modality; the ridge chosen on the same modality."""

    def of(part: Pairs) -> Tensor:
        return code(part.present(name))

    readers = [fit_reader(of(data.labelled), data.labelled.digit, 10, ridge=ridge) for ridge in RIDGES]
    return max(readers, key=lambda one: accuracy(one(of(data.choose)), data.choose.digit))


@torch.no_grad()
def judged(
    code: Callable[[dict[str, Tensor]], Tensor], data: Data, part: Pairs, *, of: str, on: str
) -> float:
    """The accuracy on one modality of `part` of a classifier that was trained on another, or the same."""
    return accuracy(reader(code, data, of)(code(part.present(on))), part.digit)


def learn_features(run: Run, data: Data) -> None:
    """Figure 3a: the code is made of the image alone; its outputs are the image, or the sound as well."""
    with_sound = partial(autoencoder, ("image",), ("image", "sound"))
    alone = partial(autoencoder, ("image",), ("image",))
    arms = run.arms({"with sound": with_sound, "images alone": alone}, control="images alone")
    best: dict[str, Best[float]] = {}
    for arm, make in arms.items():

        def attempt(rate: float, arm: str = arm, make: Callable[[], nn.Module] = make) -> tuple[float, float]:
            network = train(run, data, make, whole, rate, f"{arm}, rate {rate:g}")
            found = [judged(network.code, data, p, of="image", on="image") for p in (data.choose, data.judge)]
            return found[0], found[1]

        best[arm] = run.sweep(arm, rates(run, RATES), attempt, score="validation accuracy", keep="highest")
        run.metric("accuracy of image features", best[arm].result, arm=arm)
    ours, theirs = (best[arm].result for arm in ("with sound", "images alone"))
    values = {
        "accuracy, learned with sound - with images alone": ours - theirs,
        "accuracy, learned with images alone": theirs,
        "accuracy of the pixels": judged(only, data, data.judge, of="image", on="image"),
    }
    run.claim(BETTER_FEATURES, values, tuned=list(best.values()))


def rates(run: Run, grid: tuple[float, ...]) -> tuple[float, ...]:
    return run.pick(smoke=grid[1:2], quick=grid, full=grid)


def only(present: dict[str, Tensor]) -> Tensor:
    """The features themselves, of the one modality that is there."""
    (features,) = present.values()
    return features


class Crossed(NamedTuple):
    network: MultimodalAutoencoder
    crossed: float
    images: float


def learn_shared(run: Run, data: Data) -> None:
    """Figure 3b: both in, one of them zeroed in two thirds of the data; both out, or what is there."""
    make = partial(autoencoder, ("image", "sound"), ("image", "sound"))
    arms: dict[str, Objective] = run.arms(
        {"both from either": both_from_either, "each from itself": each_from_itself},
        control="each from itself",
    )
    best: dict[str, Best[Crossed]] = {}
    for arm, objective in arms.items():

        def attempt(rate: float, arm: str = arm, objective: Objective = objective) -> tuple[float, Crossed]:
            network = train(run, data, make, objective, rate, f"{arm}, rate {rate:g}")
            choose = judged(network.code, data, data.choose, of="sound", on="image")
            crossed, images = (
                judged(network.code, data, data.judge, of=name, on="image") for name in ("sound", "image")
            )
            return choose, Crossed(network, crossed, images)

        best[arm] = run.sweep(
            arm,
            rates(run, SHARED_RATES),
            attempt,
            score="validation accuracy, sounds to images",
            keep="highest",
        )
        run.metric("accuracy from sounds to images", best[arm].result.crossed, arm=arm)
    both, own = (best[arm].result for arm in ("both from either", "each from itself"))
    cca = fit_cca(data.train.image.double(), data.train.sound.double(), 9)

    def projected(present: dict[str, Tensor]) -> Tensor:
        (name,) = present
        return cca.project(present[name].double(), ("image", "sound").index(name))

    by_cca = judged(projected, data, data.judge, of="sound", on="image")
    values = {
        "accuracy from sounds to images, both from either - each from itself": both.crossed - own.crossed,
        "accuracy from sounds to images, both from either - CCA": both.crossed - by_cca,
        "accuracy from images to images, each from itself": own.images,
        "accuracy from sounds to images, CCA": by_cca,
    }
    run.claim(SHARED, values, tuned=list(best.values()))
    if not (run.null or run.broken):
        codes = {
            "both from either": both.network.code,
            "each from itself": own.network.code,
            "CCA": projected,
            "contrastive (CLIP)": learn_contrastive(run, data),
        }
        tabulate(run, data, codes)
        over_noise(run, data, both.network)
        show(run, data, both.network)


def learn_contrastive(run: Run, data: Data) -> Callable[[dict[str, Tensor]], Tensor]:
    """An encoder for either side, and CLIP's loss: which sound belongs to which image?"""
    torch.manual_seed(run.seed)
    towers = nn.ModuleDict(
        {n: nn.Sequential(nn.Linear(size, 96), nn.ReLU(), nn.Linear(96, 32)) for n, size in FEATURES.items()}
    ).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(towers.parameters(), lr=0.003)
    steps, batches = run.pick(smoke=3, quick=300, full=4000), run.generator("batches of contests")

    def code(present: dict[str, Tensor]) -> Tensor:
        (name,) = present
        return nn.functional.normalize(towers[name](present[name]), dim=1)

    for step in run.steps(steps, "contrastive"):
        batch = data.train.take(torch.randint(len(data.train.digit), (BATCH,), generator=batches))
        both = (code(batch.present(name)) for name in FEATURES)
        run.descend(contrastive(*both, batch.image.new_tensor(5.0)), optimizer, step=step, arm="contrastive")
    return code


def tabulate(run: Run, data: Data, codes: dict[str, Callable[[dict[str, Tensor]], Tensor]]) -> None:
    """The paper's table: what the classifier is trained on, and what it is tested on."""
    ways = [(of, on) for of in FEATURES for on in FEATURES]
    rows = []
    for name, code in codes.items():
        found = [judged(code, data, data.judge, of=of, on=on) for of, on in ways]
        rows.append([name, *(round(one, 3) for one in found)])
    columns = ["code", *(f"{of} to {on}" for of, on in ways)]
    run.table("from one to the other", columns, rows, caption="Trained on 100 labels; chance is 0.1.")


@torch.no_grad()
def over_noise(run: Run, data: Data, network: MultimodalAutoencoder) -> None:
    """Sounds in more and more noise, which the classifiers have not heard: alone, and with the image."""

    def of_both(present: dict[str, Tensor]) -> Tensor:
        return network.code(present)

    readers = {
        "sound": reader(of_both, data, "sound"),
        "image": reader(of_both, data, "image"),
    }
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
    """Images as they are, and as the code of their sound alone draws them."""
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
        caption="Images, and as they are drawn from the code of the image and of the sound alone.",
    )
