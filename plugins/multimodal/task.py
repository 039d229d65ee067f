"""Handwritten digits and the tones of telephone keys: two modalities with the same content.

Dimensions: count, pixels, bins (spectra of all frames, concatenated).
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack import data
from readtrack.data import audio
from readtrack.plugin import Run

RATE, SAMPLES, WINDOW = 8000, 1024, 256
ROWS, COLUMNS = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0)  # Hz
KEYS = "123456789*0#"
BINS = slice(18, 52)  # bins of the spectrum, from 560 to 1590 Hz
IMAGE_NOISE, SOUND_NOISE = 0.4, 0.7  # standard deviations; pixels are in [0, 1], tones have amplitude 1/2
PIXELS = 64
COPIES = 4  # copies of each training image, with different noise and sounds
JUDGED = 4  # copies of each test image, with different noise and sounds
FRAMES = SAMPLES // WINDOW
FEATURES = {"image": PIXELS, "sound": FRAMES * (BINS.stop - BINS.start)}


class Pairs(NamedTuple):
    """An image and a sound of the same digit in each row."""

    image: Float[Tensor, "count pixels"]
    sound: Float[Tensor, "count bins"]
    digit: Int64[Tensor, " count"]

    def present(self, *names: str) -> dict[str, Tensor]:
        """The named modalities, or both if no name is given."""
        return {name: getattr(self, name) for name in names or ("image", "sound")}

    def take(self, rows: Tensor) -> "Pairs":
        return Pairs(*(field[rows] for field in self))


class Data(NamedTuple):
    train: Pairs
    labelled: Pairs  # the first rows of `train`, in which no image occurs twice
    choose: Pairs
    judge: Pairs


def draw(run: Run, labels: int) -> Data:
    """Split the digits at random, using the seed. Only the first `labels` training images are labelled."""
    images, digits = data.digits()
    most = run.pick(smoke=200, quick=len(images), full=len(images))
    images, digits = images[:most], digits[:most]
    parted = data.parts(images.flatten(1), digits, seed=run.seed, choose=0.15, judge=0.4)
    images, digits = parted.train
    train = paired(run, "train", images.repeat(COPIES, 1), digits.repeat(COPIES))
    choose = paired(run, "choose", *parted.choose)
    images, digits = parted.judge
    judge = paired(run, "judge", images.repeat(JUDGED, 1), digits.repeat(JUDGED))
    return Data(train, train.take(torch.arange(labels)), choose, judge)


Part = Literal["train", "choose", "judge"]


def paired(run: Run, part: Part, images: Tensor, digits: Tensor) -> Pairs:
    """Add noise to each image, and pair it with a newly generated sound of its digit."""
    generator = run.data(f"noise and sounds to {part}", part)
    noisy = images + IMAGE_NOISE * torch.randn(images.shape, generator=generator)
    sound = spectra(waves(digits, generator, SOUND_NOISE))
    return Pairs(
        (noisy - 0.3).to(run.device, run.dtype), sound.to(run.device, run.dtype), digits.to(run.device)
    )


def waves(
    digits: Int64[Tensor, " count"], generator: torch.Generator, noise: float
) -> Float[Tensor, "count samples"]:
    """Two sines per key in white noise, with random phase and loudness, each detuned by up to 3 %."""
    places = torch.tensor([KEYS.index(str(digit)) for digit in digits.tolist()])
    pitches = torch.stack((torch.tensor(ROWS)[places // 3], torch.tensor(COLUMNS)[places % 3]), 1)
    count = len(digits)
    tune = 1 + 0.03 * (2 * torch.rand(count, 2, generator=generator) - 1)
    phase = torch.rand(count, 2, generator=generator)
    loud = 0.3 + 0.4 * torch.rand(count, 2, 1, generator=generator)
    cycles = (pitches * tune)[..., None] * torch.arange(SAMPLES) / RATE + phase[..., None]
    tones = (loud * (2 * torch.pi * cycles).sin()).sum(1)
    return tones + noise * torch.randn(count, SAMPLES, generator=generator)


def spectra(wave: Float[Tensor, "count samples"]) -> Float[Tensor, "count bins"]:
    """Log magnitudes around the tones, with a mean of about 0 and a variance of about 1."""
    magnitude = audio.stft(wave, window=WINDOW, hop=WINDOW).abs()[..., BINS]
    return ((magnitude + 1).log() - 2).flatten(1)
