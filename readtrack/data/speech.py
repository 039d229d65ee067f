"""A synthetic voice with exactly known phonemes, durations and pitch. It contains no recordings.

Moving formants filter a train of pulses and noise. There are twenty phonemes, ten words ("zero" to "nine"),
and speakers that differ in pitch and vocal tract. The sampling rate is 8,000 Hz, so S and F sound similar, as
on a telephone. A frame is 10 ms, and every duration is a whole number of frames.

Frame t is centred at sample 80 t, in the synthesis and in `log_mel`, so the frames of a phoneme are the rows
of the mel spectrogram with the same numbers.

Two rules apply to training. Digital silence is at the floor of `log_mel`, which a network trained with noise
has never seen. So "clean" speech should have the noise of a quiet room, `add_noise(wave, 40, generator)`.
Half a second of context is enough to recognise digits, so a longer context will not help.

The vowels' formants are those that Peterson and Barney 1952 (doi 10.1121/1.1906875) measured in men.
Consonants, gains and durations were set by hand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from readtrack.data import audio

RATE = 8_000
HOP = 80
WINDOW = 256
MELS = 40
MEL_MEAN, MEL_DEVIATION = (
    -1.6,
    1.9,
)  # statistics of `log_mel` at 40 dB SNR: networks take (x - mean) / deviation
FLOOR = 1e-3  # smallest magnitude in `log_mel`

Part = Literal["train", "choose", "judge"]
Colour = Literal["white", "pink", "babble", "hum"]
Word = int | Sequence[int]

_SPEAKERS = 200  # number of speakers in each part
_FIRST_SPEAKER: dict[str, int] = {"train": 0, "choose": 1000, "judge": 2000, "babble": 3000}
_HIGHEST = 3_950.0  # Hz; there is no harmonic above this
_WIDTHS = torch.tensor([60.0, 90.0, 150.0, 250.0])  # bandwidths of the four resonances, in Hz
_FOURTH = 3_500.0  # frequency of the fourth resonance in every phoneme, in Hz
_BURST = 2  # length of the burst of noise at the end of a stop, in frames


class _Sound(NamedTuple):
    """Parameters of a phoneme: formants and a glide's targets in Hz; the noise's gain, centre and width."""

    milliseconds: float
    voice: float
    formants: tuple[float, float, float]
    glide: tuple[float, float, float] | None = None
    noise: tuple[float, float, float] = (0.0, 2_000.0, 1_000.0)
    stop: bool = False


_SOUNDS = {
    "_": _Sound(90, 0.0, (500, 1500, 2500)),
    "IY": _Sound(130, 1.0, (270, 2290, 3010)),
    "IH": _Sound(85, 1.0, (390, 1990, 2550)),
    "EH": _Sound(110, 1.0, (530, 1840, 2480)),
    "AH": _Sound(100, 1.0, (640, 1190, 2390)),
    "AO": _Sound(140, 1.0, (570, 840, 2410)),
    "UW": _Sound(140, 1.0, (300, 870, 2240)),
    "OW": _Sound(160, 1.0, (540, 1000, 2400), glide=(330, 800, 2300)),
    "AY": _Sound(180, 1.0, (730, 1090, 2440), glide=(350, 2050, 2600)),
    "EY": _Sound(160, 1.0, (530, 1800, 2480), glide=(290, 2250, 2900)),
    "R": _Sound(75, 0.7, (350, 1150, 1500)),
    "W": _Sound(75, 0.6, (290, 650, 2200)),
    "N": _Sound(85, 0.4, (250, 1400, 2500)),
    "V": _Sound(70, 0.3, (230, 1100, 2200), noise=(0.06, 2200, 1500)),
    "Z": _Sound(95, 0.25, (250, 1500, 2550), noise=(0.2, 3600, 500)),
    "S": _Sound(120, 0.0, (320, 1500, 2550), noise=(0.3, 3700, 500)),
    "F": _Sound(110, 0.0, (320, 1100, 2200), noise=(0.1, 2300, 1500)),
    "TH": _Sound(100, 0.0, (320, 1350, 2550), noise=(0.12, 3000, 900)),
    "T": _Sound(80, 0.0, (350, 1750, 2600), noise=(0.5, 3300, 700), stop=True),
    "K": _Sound(90, 0.0, (350, 1900, 2400), noise=(0.5, 1900, 450), stop=True),
}

PHONEMES = tuple(_SOUNDS)  # the silence `_` is 0
SILENCE = 0
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPELLINGS: tuple[tuple[int, ...], ...] = tuple(
    tuple(PHONEMES.index(name) for name in spelling.split())
    for spelling in (
        "Z IH R OW",
        "W AH N",
        "T UW",
        "TH R IY",
        "F AO R",
        "F AY V",
        "S IH K S",
        "S EH V AH N",
        "EY T",
        "N AY N",
    )
)

_MEANS = torch.tensor([sound.milliseconds / 10 for sound in _SOUNDS.values()])  # frames
_VOICES = torch.tensor([sound.voice for sound in _SOUNDS.values()])
_STARTS = torch.tensor([sound.formants for sound in _SOUNDS.values()]).log()
_ENDS = torch.tensor([sound.glide or sound.formants for sound in _SOUNDS.values()]).log()
_NOISES, _CENTRES, _SPREADS = torch.tensor([sound.noise for sound in _SOUNDS.values()]).unbind(1)
_STOPS = torch.tensor([sound.stop for sound in _SOUNDS.values()])


@dataclass(frozen=True)
class Speaker:
    """pitch in Hz; tract multiplies the formants; rate multiplies durations; breath is noise added to the
    pulses; tilt is the frequency in Hz above which the voice decreases by 6 dB per octave.
    """

    pitch: float
    tract: float
    rate: float
    breath: float
    tilt: float


VOICE = Speaker(140.0, 1.0, 1.0, 0.02, 500.0)  # the voice of the synthesis papers, with jitter 0.08


@dataclass(frozen=True)
class Utterance:
    """wave       (samples,) float32, root mean square 0.1
    phonemes   (phonemes,) ids; the first and the last are silence
    durations  (phonemes,) frames, 3 or more; durations.sum() * 80 == samples
    pitch      (frames,) Hz, 0 without pulses
    words      the requested words
    """

    wave: Float[Tensor, " samples"]
    phonemes: Int64[Tensor, " phonemes"]
    durations: Int64[Tensor, " phonemes"]
    pitch: Float[Tensor, " frames"]
    words: tuple[Word, ...]


def speaker(i: int) -> Speaker:
    """The i-th speaker, determined by `i` alone.

    Pitch 85 to 240 Hz; tract 0.88 to 1.15, three quarters of it determined by the pitch; rate 0.85 to 1.2;
    breath 0.01 to 0.06; tilt 300 to 800 Hz.
    """
    pitch, tract, rate, breath, tilt = torch.rand(5, generator=_generator("speaker", i)).tolist()
    return Speaker(
        pitch=85 * (240 / 85) ** pitch,
        tract=0.88 + 0.27 * (0.75 * pitch + 0.25 * tract),
        rate=0.85 + 0.35 * rate,
        breath=0.01 + 0.05 * breath,
        tilt=300 + 500 * tilt,
    )


def draw(i: int, part: Part, digits: tuple[int, int] = (2, 4)) -> tuple[Utterance, Speaker]:
    """The i-th utterance of a part, with digits[0] to digits[1] digits, and its speaker.

    The result depends only on these arguments. Speakers 0 to 199 are for training, 1000 to 1199 for `choose`,
    and 2000 to 2199 for `judge`.
    """
    generator = _generator(part, i)
    who = speaker(_FIRST_SPEAKER[part] + _integer(0, _SPEAKERS - 1, generator))
    return say(_string(digits, generator), who, generator), who


def recite(i: int, part: Part, digits: tuple[int, int] = (1, 3), seed: int = 0) -> Utterance:
    """The i-th utterance of a part, spoken by `VOICE` with jitter 0.08. No string of digits is in two parts.

    Draws strings until one is in `part` (see `part_of`). Raises ValueError after a thousand attempts.
    """
    generator = _generator("recite", seed, part, i)
    for _ in range(1000):
        string = _string(digits, generator)
        if part_of(string, seed) == part:
            return say(string, VOICE, generator, jitter=0.08)
    raise ValueError(f"no string of {digits[0]} to {digits[1]} digits is in the part {part!r}")


def part_of(words: Sequence[int], seed: int = 0) -> Part:
    """The part of a string of digits, by its hash: about 80 % train, 10 % choose, 10 % judge.

    Each seed splits the strings differently. Single digits are always in `train`.
    """
    number = _hash("string", seed, *words) % 10
    if len(words) == 1 or number >= 2:
        return "train"
    return "choose" if number == 0 else "judge"


def say(
    words: Sequence[Word], speaker: Speaker, generator: torch.Generator, jitter: float = 0.15
) -> Utterance:
    """Speak digits (0 to 9), or words as lists of phoneme ids, one after another, with random pauses.

    Durations are mean x rate x exp(jitter x normal). Raises ValueError without words and for unknown ids.
    """
    phonemes = torch.tensor(_spell(words, generator))
    spread = (jitter * torch.randn(len(phonemes), generator=generator)).exp()
    durations = (_MEANS[phonemes] * speaker.rate * spread).round().long().clamp(min=3)
    pitch = _pitch(int(durations.sum()), speaker, generator)
    wave = _synthesise(phonemes, durations, pitch, speaker, generator)
    voiced = _VOICES[phonemes].repeat_interleave(durations) > 0
    asked = tuple(word if isinstance(word, int) else tuple(word) for word in words)
    return Utterance(wave, phonemes, durations, pitch * voiced, asked)


def log_mel(wave: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch frames 40"]:
    """Natural logarithm of mel magnitudes, clamped to at least log(0.001). frames = samples // 80.

    There are 40 triangular bands of height 1 on the HTK scale from 40 Hz to 4 kHz, with a Hann window of 256
    samples.
    """
    magnitude = audio.stft(wave, window=WINDOW, hop=HOP).abs()
    return (magnitude @ _filters().to(magnitude)).clamp(min=FLOOR).log()


def wave_of(
    mel: Float[Tensor, "*batch frames 40"], generator: torch.Generator | None = None, rounds: int = 32
) -> Float[Tensor, "*batch samples"]:
    """A wave of 80 x frames samples with approximately this log-mel spectrogram.

    This vocoder needs no training. Magnitudes come from least squares, phases from Griffin and Lim's
    iteration.
    """
    loud = mel > math.log(FLOOR) + 1e-3  # values at the floor mean silence
    magnitude = audio.mel_to_magnitude(mel.exp() * loud, _filters())
    return audio.griffin_lim(magnitude, window=WINDOW, hop=HOP, rounds=rounds, generator=generator)


def add_noise(
    wave: Float[Tensor, "*batch samples"],
    snr: int | float | Float[Tensor, "*batch"],
    generator: torch.Generator,
    colour: Colour = "white",
    lengths: Int64[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch samples"]:
    """The wave with noise whose power is `snr` dB below the power of the whole utterance.

    The noise is white, pink (3 dB less power per octave), babble (three speakers outside all parts) or hum
    (50 Hz and nine harmonics). Each row gets different noise. For rows padded by `pad`, pass their `lengths`,
    so that the padding does not count as quiet speech. The noise continues in the padding.
    """
    rows = wave.reshape(-1, wave.shape[-1])
    noise = torch.stack([_noise(colour, wave.shape[-1], generator) for _ in rows]).to(wave)
    ends = torch.full((len(rows),), wave.shape[-1]) if lengths is None else lengths.reshape(-1).cpu()
    counted = (torch.arange(wave.shape[-1]) < ends.unsqueeze(1)).to(wave)
    power = (rows.square() * counted).sum(-1) / (noise.square() * counted).sum(-1)
    ratio = 10 ** (torch.as_tensor(snr, dtype=wave.dtype, device=wave.device).expand(wave.shape[:-1]) / 10)
    return wave + ((power / ratio.reshape(-1)).sqrt().unsqueeze(1) * noise).view_as(wave)


def pad(utterances: Sequence[Utterance]) -> tuple[Float[Tensor, "n samples"], Int64[Tensor, " n"]]:
    """Waves as rows padded with zeros at the end, and their lengths in samples."""
    waves = [utterance.wave for utterance in utterances]
    lengths = torch.tensor([len(wave) for wave in waves])
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths


# Synthesis


def _spell(words: Sequence[Word], generator: torch.Generator) -> list[int]:
    if not words:
        raise ValueError("no words to say")
    phonemes = [SILENCE]
    for number, word in enumerate(words):
        if number and torch.rand((), generator=generator) < 0.5:
            phonemes.append(SILENCE)
        if isinstance(word, int):
            if not 0 <= word < len(WORDS):
                raise ValueError(f"a word is 0 to {len(WORDS) - 1}, not {word}")
            phonemes += SPELLINGS[word]
        else:
            if not word or not all(0 < phoneme < len(PHONEMES) for phoneme in word):
                raise ValueError(
                    f"a word is a list of phonemes from 1 to {len(PHONEMES) - 1}, not {list(word)}"
                )
            phonemes += word
    return [*phonemes, SILENCE]


def _pitch(frames: int, speaker: Speaker, generator: torch.Generator) -> Float[Tensor, " frames"]:
    """The pitch, which falls by 12 % over the utterance, with slow variations of about 5 % over 300 ms."""
    steps = torch.randn(frames + 30, generator=generator)
    kernel = torch.hann_window(32, periodic=False)[1:-1]
    wander = F.conv1d(steps.view(1, 1, -1), (kernel / kernel.norm()).view(1, 1, -1)).flatten()[:frames]
    fall = torch.linspace(0.06, -0.06, frames)
    return speaker.pitch * (fall + 0.05 * wander).exp()


def _synthesise(
    phonemes: Int64[Tensor, " phonemes"],
    durations: Int64[Tensor, " phonemes"],
    pitch: Float[Tensor, " frames"],
    speaker: Speaker,
    generator: torch.Generator,
) -> Float[Tensor, " samples"]:
    frames = len(pitch)
    ids = phonemes.repeat_interleave(durations)
    first = (durations.cumsum(0) - durations).repeat_interleave(durations)
    length = durations.repeat_interleave(durations)
    place = torch.arange(frames) - first  # within the phoneme

    along = ((place + 0.5) / length).unsqueeze(1)
    formants = _smooth(_STARTS[ids].lerp(_ENDS[ids], along), 7).exp() * speaker.tract
    held = _STOPS[ids] & (place < length - _BURST)
    voice = _smooth(_VOICES[ids].unsqueeze(1), 3)
    noise = _smooth((_NOISES[ids] * ~held).unsqueeze(1), 2)

    hertz = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    tract = _resonances(hertz, formants, speaker)
    band = (-0.5 * ((hertz - _CENTRES[ids, None]) / _SPREADS[ids, None]).square()).exp()
    white = torch.randn(frames * HOP, generator=generator)
    shaped = audio.stft(_pulses(pitch), window=WINDOW, hop=HOP) * (voice * tract)
    hiss = audio.stft(white, window=WINDOW, hop=HOP) * (speaker.breath * voice * tract + noise * band)
    wave = audio.istft(shaped + hiss, window=WINDOW, hop=HOP)
    return wave * (0.1 / wave.square().mean().sqrt())


def _pulses(pitch: Float[Tensor, " frames"]) -> Float[Tensor, " samples"]:
    """A sum of all harmonics below 3,950 Hz in phase, in closed form, with root mean square 1."""
    frame = torch.arange(len(pitch) * HOP, dtype=torch.float64) / HOP
    left = frame.long()
    right = (left + 1).clamp(max=len(pitch) - 1)
    hertz = torch.lerp(pitch.double()[left], pitch.double()[right], frame - left)
    phase = (hertz / RATE).cumsum(0).frac()
    count = (_HIGHEST / hertz).floor()
    below = (math.pi * phase).sin()
    quotient = ((2 * count + 1) * math.pi * phase).sin() / below
    # If both sines vanish, the quotient is 2 * count + 1. Clamping the denominator would cause clicks.
    quotient = torch.where(below.abs() < 1e-9, 2 * count + 1, quotient)
    return ((quotient - 1) / (2 * count).sqrt()).float()


def _resonances(
    hertz: Float[Tensor, " bins"], formants: Float[Tensor, "frames 3"], speaker: Speaker
) -> Complex[Tensor, "frames bins"]:
    """Four second-order resonators in series, then the tilt, with root mean square 1 in every frame.

    The response includes the phase, so that the sound decays after each pulse, as in a vocal tract. With
    magnitudes alone it would also ring before the pulse, and its peaks would be a fifth higher.
    """
    fourth = torch.full((len(formants), 1), _FOURTH * speaker.tract)
    centres = torch.cat((formants, fourth), 1).unsqueeze(2)
    damping = hertz * _WIDTHS.view(1, 4, 1) / centres.square()
    gain = torch.complex(1 - (hertz / centres).square(), damping).reciprocal().prod(1)
    gain = gain / torch.complex(torch.ones_like(hertz), hertz / speaker.tilt)
    return gain / gain.abs().square().mean(1, keepdim=True).sqrt()


def _smooth(track: Float[Tensor, "frames n"], frames: int) -> Float[Tensor, "frames n"]:
    """A weighted moving average (Hann) over `frames` frames; the ends are repeated."""
    kernel = torch.hann_window(frames + 2, periodic=False)[1:-1]
    before, after = frames // 2, (frames - 1) // 2
    held = torch.cat((track[:1].expand(before, -1), track, track[-1:].expand(after, -1)))
    return torch.matmul(held.unfold(0, frames, 1), kernel / kernel.sum())


def _noise(colour: Colour, samples: int, generator: torch.Generator) -> Float[Tensor, " samples"]:
    if colour == "white":
        return torch.randn(samples, generator=generator)
    if colour == "pink":
        spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
        bins = torch.arange(len(spectrum)).clamp(min=1)
        pink: Tensor = torch.fft.irfft(spectrum / bins.sqrt(), samples)
        return pink
    if colour == "hum":
        number = torch.arange(1, 11)
        turns = torch.rand(10, 1, generator=generator)
        phase = number.unsqueeze(1) * 50 * torch.arange(samples) / RATE + turns
        return torch.matmul(1 / number, (2 * math.pi * phase).sin())
    first = _FIRST_SPEAKER["babble"]
    people = first + torch.randperm(_SPEAKERS, generator=generator)[:3]
    return torch.stack([_talk(speaker(int(i)), samples, generator) for i in people]).sum(0)


def _talk(who: Speaker, samples: int, generator: torch.Generator) -> Float[Tensor, " samples"]:
    """A random piece of an endless sequence of digits by one speaker."""
    start = _integer(0, RATE, generator)
    words = 2 + (start + samples) // (RATE // 6)  # words last 0.2 s or more
    wave = say(_string((words, words), generator), who, generator).wave
    return wave[start : start + samples]


def _string(digits: tuple[int, int], generator: torch.Generator) -> list[int]:
    count = _integer(*digits, generator)
    words: list[int] = torch.randint(len(WORDS), (count,), generator=generator).tolist()
    return words


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _filters() -> Float[Tensor, "129 40"]:
    return audio.mel_filters(MELS, window=WINDOW, rate=RATE, low=40.0, scale="htk", area=False)


def _generator(*names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(_hash(*names))


def _hash(*names: str | int) -> int:
    """A 63-bit hash of the names, so that streams with different names are independent."""
    text = "/".join(map(str, names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
