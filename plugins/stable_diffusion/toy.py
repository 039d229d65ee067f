"""The experiment's data: small scenes with one coloured digit, their captions, and a classifier as judge."""

import re
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.errors import ReadtrackError
from readtrack.plugin import Run
from readtrack.scores import frechet_distance

from .autoencoder import drawn

DEVIATIONS = (
    "The pictures are scenes of 8 × 8 pixels with one digit in one of four colours, 2,000 of them to train "
    "on (10,000 in a full run), and captions have three words. The autoencoder has f = 2. The paper's good "
    "range is f = 4 to 16, and with f = 1 and 2 it finds that training is slow (section 4.1, figure 6). The "
    "autoencoder has four convolutions and is trained for 500 updates (2,000 in a full run). Its loss is the "
    "mean squared error plus 1e-4 times the mean KL penalty per latent entry, without the paper's perceptual "
    "and adversarial terms. Diffusion is trained on the standardised means of the latents. The U-Net for "
    "latents has one resolution, 32 channels and 183 thousand parameters, and only its middle attends to the "
    "words (in a full run every block does, with more parameters). It is trained by Adam with a linearly "
    "decaying learning rate, together with a text tower of one layer and width 32. There is no moving "
    "average of the weights. The noise schedule is that of the released Stable Diffusion. Sampling takes 10 "
    "DDIM steps (50 in a full run), in which the predicted data are clamped. No network is trained to "
    "convergence. In a quick run most pictures have their caption's colour, but not its digit, which needs a "
    "full run."
)

COLOURS = 4
WORDS = ("a", *scenes.COLOURS[:COLOURS], *scenes.DIGITS)
END = len(WORDS)  # also fills empty captions
LENGTH = 4  # three words and the end
SIDE, LATENT, GRID = 8, 4, 4

Pictures = Float[Tensor, "n 3 8 8"]
Grid = Float[Tensor, "n 4 4 4"]


class Pairs(NamedTuple):
    """Pictures in [-1, 1], their captions' tokens, their digits and their colours."""

    x: Pictures
    ids: Int64[Tensor, "n 4"]
    digits: Int64[Tensor, " n"]
    colours: Int64[Tensor, " n"]


def encode(caption: str) -> Int[Tensor, " 4"]:
    """The tokens of a caption. Raises ReadtrackError for an unknown word or too many words."""
    words = re.findall(r"\w+", caption.lower())  # users may type capitals and quotation marks
    strange = [word for word in words if word not in WORDS]
    if strange or len(words) >= LENGTH:
        raise ReadtrackError(f"A caption has up to 3 of these words: {', '.join(WORDS)}.")
    return torch.tensor([*map(WORDS.index, words), *[END] * (LENGTH - len(words))])


def caption(colour: int, digit: int) -> str:
    return f"a {scenes.COLOURS[colour]} {scenes.DIGITS[digit]}"


def pairs(run: Run, count: int, part: scenes.Part) -> Pairs:
    """Digits of 11 to 13 pixels in the middle of dark photographs of 16 × 16, at half that resolution."""
    made = {"size": 2 * SIDE, "digit": (11.0, 13.0), "rotate": 5.0, "dim": 0.3, "colours": COLOURS}
    found = scenes.draw(count, run.data_seed(part), part, centred=True, **made)
    digits, colours = found.labels[:, 0], found.colours[:, 0]
    texts = [caption(*both) for both in zip(colours.tolist(), digits.tolist(), strict=True)]
    ids = torch.stack([encode(text) for text in texts])
    x = 2 * F.avg_pool2d(found.images, 2).to(run.device, run.dtype) - 1
    return Pairs(x, ids.to(run.device), digits.to(run.device), colours.to(run.device))


class Judge(nn.Module):
    """Classifies the digit and the colour of a picture. Its last hidden layer gives the features."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        )
        self.narrow = nn.Linear(32 * (SIDE // 2) ** 2, 16)
        self.digit, self.colour = nn.Linear(16, 10), nn.Linear(16, COLOURS)

    def features(self, x: Pictures) -> Float[Tensor, "n 16"]:
        return torch.tanh(self.narrow(self.convolutions(x)))

    def forward(self, x: Pictures) -> tuple[Float[Tensor, "n 10"], Float[Tensor, "n colours"]]:
        seen = self.features(x)
        return self.digit(seen), self.colour(seen)


def judge(run: Run, train: Pairs) -> Judge:
    """A judge trained on the training scenes (cached by `Run.trained`)."""

    def fit(network: nn.Module) -> None:
        generator, steps = run.generator("judge's batches"), run.pick(smoke=3, quick=300, full=1000)
        optimizer = torch.optim.Adam(network.parameters(), 5e-3, fused=True)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        for step in run.steps(steps, "training the judge"):
            rows = torch.randint(len(train.x), (64,), generator=generator)
            digit, colour = network(train.x[rows])
            loss = F.cross_entropy(digit, train.digits[rows]) + F.cross_entropy(colour, train.colours[rows])
            run.descend(loss, optimizer, step=step, metric="judge's loss")
            decay.step()

    return cast(Judge, run.trained("stable_diffusion.judge", Judge, fit).network)


class Setting(NamedTuple):
    """The scenes of each part, and the judge."""

    train: Pairs
    choose: Pairs
    judge: Pairs
    eye: Judge

    @torch.no_grad()
    def distance(self, x: Pictures) -> float:
        """The Fréchet distance to as many test pictures, in the judge's features."""
        return frechet_distance(self.eye.features(x), self.eye.features(self.judge.x[: len(x)]))


def setting(run: Run) -> Setting:
    train = pairs(run, run.pick(smoke=40, quick=2000, full=10_000), "train")
    count = run.pick(smoke=20, quick=1000, full=2000)
    return Setting(train, pairs(run, count, "choose"), pairs(run, count, "judge"), judge(run, train))


class SmallAutoencoder(nn.Module):
    """Four convolutions with the interface of `Autoencoder`: a latent of size 4 per 2 × 2 pixels (f = 2).

    It has no normalisation. A hundred updates are enough to train it, while residual blocks hardly improve in
    so few.
    """

    def __init__(self) -> None:
        super().__init__()
        halve, double = nn.Conv2d(3, 48, 4, 2, padding=1), nn.ConvTranspose2d(48, 3, 4, 2, padding=1)
        self.encoder = nn.Sequential(halve, nn.SiLU(), nn.Conv2d(48, 2 * LATENT, 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(LATENT, 48, 3, padding=1), nn.SiLU(), double)

    def encode(self, x: Pictures) -> tuple[Grid, Grid]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance

    def decode(self, z: Grid) -> Pictures:
        return self.decoder(z)

    def forward(self, x: Pictures, noise: Grid) -> tuple[Pictures, Grid, Grid]:
        """The reconstruction from a sampled latent, and the latent's mean and log-variance."""
        mean, log_variance = self.encode(x)
        return self.decode(drawn(mean, log_variance, noise)), mean, log_variance


def large(x: Pictures) -> Float[Tensor, "n 3 52 52"]:
    """Enlarge each pixel to 6 × 6, and add frames between the pictures."""
    grown = ((x.float() + 1) / 2).repeat_interleave(6, 2).repeat_interleave(6, 3)
    return F.pad(grown, (2, 2, 2, 2), value=0.8)
