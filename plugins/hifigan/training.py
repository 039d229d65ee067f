"""Trains a small generator against both kinds of discriminator, and compares it with Griffin-Lim.

After the few steps of the quick budget, the sound is far worse than Griffin-Lim's. The paper trains for 2.5
million steps.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.data import speech
from readtrack.plugin import Run
from readtrack.scores import log_spectral_distance, periodicity

from .model import (
    Generator,
    Judged,
    Periods,
    Scales,
    Version,
    Wave,
    discriminator_loss,
    feature_loss,
    generator_loss,
)

TOY = Version(32, (10, 8), (20, 16), (3, 7), ((1, 3), (1, 3)))
MEL_WEIGHT = 45.0  # equation 5
RATE = 0.002
PIECE = 1600  # samples of a training segment, 20 frames


class Pair(NamedTuple):
    """One set of each kind of discriminator."""

    periods: Periods
    scales: Scales

    def judge(self, wave: Wave) -> Judged:
        return [*self.periods(wave), *self.scales(wave)]


def mel_of(wave: Wave) -> Float[Tensor, "batch 40 frames"]:
    return ((speech.log_mel(wave.float()) - speech.MEL_MEAN) / speech.MEL_DEVIATION).mT.to(wave.dtype)


def adversarial(run: Run, train: Wave, pair: Pair) -> Generator:
    """Section 2.4: alternate discriminator steps on detached samples with generator steps on equation 5."""
    torch.manual_seed(run.seed)
    model = Generator(TOY, speech.MELS).normed().to(run.device, run.dtype)
    for judges in pair:
        judges.to(run.device, run.dtype)
    both = [weight for judges in pair for weight in judges.parameters()]
    ours, theirs = (
        torch.optim.AdamW(weights, lr=RATE, betas=(0.8, 0.99)) for weights in (model.parameters(), both)
    )
    generator, steps = run.generator("pieces"), run.pick(smoke=2, quick=40, full=20_000)
    run.phase("train")
    for step in run.steps(steps, "a generator and its judges"):
        rows = torch.randint(len(train), (4,), generator=generator)
        real = train[rows, :PIECE]
        mel = mel_of(real)
        fake = model(mel)
        told = discriminator_loss(pair.judge(real), pair.judge(fake.detach()))
        run.descend(told, theirs, step=step, metric="loss of the judges", arm="generator")
        distance = (mel_of(fake) - mel).abs().mean() * speech.MEL_DEVIATION
        with torch.no_grad():
            of_real = pair.judge(real)
        of_fake = pair.judge(fake)
        loss = generator_loss(of_fake) + feature_loss(of_real, of_fake) + MEL_WEIGHT * distance
        run.metric("distance of mel spectrograms", distance.item(), step=step, arm="generator")
        run.descend(loss, ours, step=step, metric="loss of the generator", arm="generator")
    return model.eval()


@torch.no_grad()
def against_griffin_lim(
    run: Run,
    model: Generator,
    said: list[Float[Tensor, " _"]],
    pitches: list[Float[Tensor, " _"]] | None = None,
) -> None:
    """Score unseen words that the generator and Griffin-Lim reconstruct from mel spectrograms."""
    run.phase("evaluate")
    generator = run.generator("phases")
    ways = {
        "generator": lambda mel: model(mel.to(run.device, run.dtype))[0].float().cpu(),
        "Griffin-Lim": lambda mel: speech.wave_of(
            mel[0].mT * speech.MEL_DEVIATION + speech.MEL_MEAN, generator
        ),
    }
    for name, way in ways.items():
        made = [way(mel_of(wave[None])) for wave in said]
        gaps = [
            log_spectral_distance(real, wave, window=512, hop=128)
            for real, wave in zip(said, made, strict=True)
        ]
        run.metric("log-spectral distance from mels (dB)", sum(gaps) / len(gaps), arm=name)
        if pitches:
            periodic = [
                periodicity(wave, pitch, rate=speech.RATE) for pitch, wave in zip(pitches, made, strict=True)
            ]
            run.metric("periodicity from mels", sum(periodic) / len(periodic), arm=name)
        first = made[0] / made[0].abs().max().clamp(min=1e-6) * 0.5
        caption = f"an unseen sound, {name}: {gaps[0]:.1f} dB log-spectral distance"
        beside = "from mels, Griffin-Lim" if name == "generator" else ""
        run.audio(f"from mels, {name}", first, speech.RATE, caption=caption, beside=beside)
