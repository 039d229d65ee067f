"""Spoken words in a studio, with varied noise, and in conditions on which no network is trained."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data import audio, recordings, speech
from readtrack.plugin import Run, Trial

from .tokens import Tokens

BANDS = 40
HOP = 160  # samples, 20 ms
STEP = 2 * HOP / speech.RATE  # seconds between timestamps: one per encoder position
CONDITIONS = ("babble", "hum", "telephone", "echo", "clipping")
Waves = Float[Tensor, "n samples"]
Mels = Float[Tensor, "n frames mels"]


class Sounds(NamedTuple):
    """Spectrograms of single words, their labels, and each word's start and end in units of `STEP`."""

    mels: Mels
    labels: Int[Tensor, " n"]
    times: Int[Tensor, "n 2"]
    tokens: Tokens


def features(waves: Waves) -> Mels:
    """Log-mel spectrograms as in section 2.2, but for waves sampled at 8 kHz."""
    return audio.log_mel_whisper(waves, rate=speech.RATE, window=speech.WINDOW, hop=HOP, bands=BANDS)


class Said(NamedTuple):
    """Zero-padded waves, with their labels, start and end times, and the unpadded lengths in samples."""

    waves: Waves
    labels: Int[Tensor, " n"]
    times: Int[Tensor, "n 2"]
    lengths: Int[Tensor, " n"]
    tokens: Tokens = Tokens()

    def noisy(
        self, snr: int | float | Tensor, generator: torch.Generator, colour: speech.Colour = "white"
    ) -> Waves:
        """Add noise at a signal-to-noise ratio of `snr` dB. The padding gets noise, too."""
        return speech.add_noise(self.waves, snr, generator, colour, self.lengths)

    def sounds(self, waves: Waves) -> Sounds:
        """The spectrograms of `waves`, in which the same words are said."""
        return Sounds(features(waves), self.labels, self.times, self.tokens)


def say(count: int, first: int, speakers: int, seed: int) -> Said:
    """Digits said by `speakers` people, numbered from `first`. Padded to 0.8 s, as Whisper pads to 30 s."""
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(10, (count,), generator=generator)
    who = first + torch.randint(speakers, (count,), generator=generator)
    waves, times = torch.zeros(count, Tokens().frames * HOP), torch.zeros(count, 2)
    lengths = torch.zeros(count, dtype=torch.long)
    for row, (digit, person) in enumerate(zip(digits.tolist(), who.tolist(), strict=True)):
        said = speech.say([digit], speech.speaker(person), generator)
        wave = said.wave[: waves.shape[1]]
        waves[row, : len(wave)], lengths[row] = wave, len(wave)
        ends = said.durations.cumsum(0)[[0, -2]]  # end of the initial silence and of the last phoneme
        times[row] = ends * speech.HOP / (2 * HOP)
    return Said(waves, digits, times.round().long().clamp(max=Tokens().frames // 2), lengths)


def recorded(run: Run) -> list[Said]:
    """Training, validation and test words of `--data`. Their start and end times are not known."""
    source = run.source("speech", needs="classes", at_most=run.pick(smoke=20, quick=1500, full=None))
    said = []
    for part in source.parts:
        waves, lengths, labels = recordings.normalised(part, source.rate)
        frames = -(-waves.shape[1] // (2 * HOP)) * 2
        waves = F.pad(waves, (0, frames * HOP - waves.shape[1]))
        times = torch.zeros(len(labels), 2, dtype=torch.long)
        said.append(Said(waves, labels, times, lengths, Tokens(source.names, frames)))
    return said


def studio(said: Said, seed: int) -> Sounds:
    """A quiet room: a signal-to-noise ratio of 40 dB."""
    return said.sounds(said.noisy(40, torch.Generator().manual_seed(seed)))


def varied(said: Said, seed: int) -> Sounds:
    """White noise in the first half and pink noise in the second, at 15 to 40 dB below the speech."""
    generator, count = torch.Generator().manual_seed(seed), len(said.labels)
    half, snr = count // 2, 15 + 25 * torch.rand(count, generator=generator)
    noisy = [
        Said(*(field[rows] for field in said[:4])).noisy(snr[rows], generator, colour)
        for rows, colour in ((slice(half), "white"), (slice(half, None), "pink"))
    ]
    return said.sounds(torch.cat(noisy))


def mishear(labels: Int[Tensor, " n"], seed: int, share: float = 0.1, words: int = 10) -> Int[Tensor, " n"]:
    """Replace a `share` of the labels with different labels, out of `words` in total."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(labels.shape, generator=generator) < share
    other = (labels + torch.randint(1, words, labels.shape, generator=generator)) % words
    return torch.where(wrong, other, labels)


def ruin(said: Said, condition: str, seed: int) -> Waves:
    """Distort speech in a way that neither arm was trained on, with background noise at 40 dB."""
    generator = torch.Generator().manual_seed(seed)

    def room(waves: Waves) -> Waves:
        return said._replace(waves=waves).noisy(40, generator)

    waves = said.waves
    if condition == "babble":
        return room(said.noisy(5, generator, "babble"))
    if condition == "hum":
        return room(said.noisy(0, generator, "hum"))
    if condition == "telephone":
        spectrum = torch.fft.rfft(waves)
        hertz = torch.linspace(0, speech.RATE / 2, spectrum.shape[1])
        return room(torch.fft.irfft(spectrum * ((hertz > 600) & (hertz < 2400)), waves.shape[1]))
    if condition == "echo":
        late = [F.pad(waves[:, : -int(s * speech.RATE)], (int(s * speech.RATE), 0)) for s in (0.05, 0.11)]
        return room(waves + 0.7 * late[0] + 0.5 * late[1])
    edge = 0.4 * waves.square().mean(1, keepdim=True).sqrt()
    return room(waves.clamp(-edge, edge))


class Kind(NamedTuple):
    """The recording conditions of an arm's training sounds.

    speakers   number of speakers of synthetic digits
    recording  maps words and a seed to sounds: `studio` or `varied`
    wrong      fraction of wrong transcripts
    """

    speakers: int
    recording: Callable[[Said, int], Sounds]
    wrong: float


STUDIO, VARIED = Kind(20, studio, 0.0), Kind(100, varied, 0.1)
MANY_IN_STUDIO, STUDIO_IN_NOISE = Kind(100, studio, 0.1), Kind(20, varied, 0.0)


class Heard(NamedTuple):
    """An arm's training and validation sounds."""

    train: Sounds
    choose: Sounds


def hear(kind: Kind, data: Sequence[Said] | None, at: Trial) -> Heard:
    """Training and validation sounds of this kind: synthetic digits, or the words of `--data`."""
    run = at.run
    count = run.pick(smoke=8, quick=600, full=20_000)
    held = run.pick(smoke=4, quick=200, full=1000)
    seeds = 100 * run.data_seed("train"), 100 * run.data_seed("choose")
    said = data or [
        say(count, 0, kind.speakers, seeds[0] + 1),
        say(held, 1000, kind.speakers, seeds[1] + 3),
    ]
    train, choose = kind.recording(said[0], seeds[0] + 2), kind.recording(said[1], seeds[1] + 4)
    # A separate seed. With the seed of the noise, the noisiest words would get the wrong labels.
    labels = mishear(train.labels, seeds[0] + 8, kind.wrong, len(train.tokens.words))
    return Heard(to_run(run, train._replace(labels=labels)), to_run(run, choose))


class Judge(NamedTuple):
    """The test words in the studio and in each condition, as waves and as spectrograms."""

    waves: dict[str, Waves]
    sounds: dict[str, Sounds]


def judge_by(run: Run, data: Sequence[Said] | None) -> Judge:
    seed = 100 * run.data_seed("judge")
    said = data[2] if data else say(run.pick(smoke=4, quick=300, full=1000), 2000, 200, seed + 5)
    waves = {"studio": said.noisy(40, torch.Generator().manual_seed(seed + 6))}
    waves |= {name: ruin(said, name, seed + 7) for name in CONDITIONS}
    return Judge(waves, {name: to_run(run, said.sounds(wave)) for name, wave in waves.items()})


def to_run(run: Run, sounds: Sounds) -> Sounds:
    mels, labels, times, tokens = sounds
    return Sounds(mels.to(run.device, run.dtype), labels.to(run.device), times.to(run.device), tokens)
