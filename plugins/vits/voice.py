"""Trains end to end on the synthetic voice, and measures and shows the generated sounds.

After the quick budget's 70 steps, the model has learned the loudness and pauses of a text and the lengths of
phonemes. Its sounds hum and hiss, without the formants that distinguish vowels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.data import audio, speech
from readtrack.plugin import Run
from readtrack.scores import log_spectral_distance, periodicity

from ..glow_tts import pad_mels, pad_text
from ..hifigan import Periods, Version, discriminator_loss, feature_loss, generator_loss
from .model import VITS, Sizes, pieces

SIZES = Sizes(
    symbols=len(speech.PHONEMES),
    bins=speech.WINDOW // 2 + 1,
    hidden=32,
    latents=16,
    ffn=64,
    layers=1,
    posterior=3,
    couplings=2,
    depth=2,
    kernel=3,
    durations=1,
    splines=2,
    version=Version(32, (10, 8), (20, 16), (3, 7), ((1, 3), (1, 3))),
    dropout=0.0,
)
WINDOW = 16  # frames per training window of the decoder
MEL_WEIGHT = 45.0  # section 4.1
EVENLY = 20  # steps with even division, before the search starts
RATE = 0.01


class Said(NamedTuple):
    spoken: speech.Utterance
    wave: Float[Tensor, " samples"]


class Batch(NamedTuple):
    text: Tensor
    symbols: Tensor
    spectrogram: Float[Tensor, "batch bins frames"]
    frames: Tensor
    waves: Float[Tensor, "batch samples"]


def batch(run: Run, said: list[Said]) -> Batch:
    """A batch of texts, spectra and waves. Spectra are log magnitudes, approximately standardised."""
    text, symbols = pad_text([one.spoken.phonemes for one in said])
    spectra = [audio.stft(one.wave, window=speech.WINDOW, hop=speech.HOP).abs() for one in said]
    logs = [(one.clamp(min=speech.FLOOR).log() + 2) / 2 for one in spectra]
    spectrogram, frames = pad_mels(logs)
    waves = torch.nn.utils.rnn.pad_sequence([one.wave for one in said], batch_first=True)
    to = run.device, run.dtype
    return Batch(text.to(run.device), symbols, spectrogram.to(*to), frames, waves.to(*to))


def end_to_end(run: Run, train: list[Said], judge: list[Said]) -> None:
    """Train with the losses of section 2.4: divergence, durations, mel distance and adversarial losses."""
    torch.manual_seed(run.seed)
    model = VITS(SIZES)
    # Weights as small as the paper's would silence a decoder with few channels.
    for layer in (*model.decoder.upsampler, model.decoder.conv_post):
        layer.reset_parameters()
    model = model.to(run.device, run.dtype)
    judges = Periods((6, 12), 12).to(run.device, run.dtype)
    ours, theirs = (
        torch.optim.AdamW(one.parameters(), lr=RATE, betas=(0.8, 0.99), weight_decay=0.01)
        for one in (model, judges)
    )
    generator, steps = run.generator("voice"), run.pick(smoke=2, quick=70, full=3000)
    run.phase("train")
    for step in run.steps(steps, "text to waves"):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 10) * (1 - step / steps)
        rows = torch.randint(len(train), (4,), generator=generator).tolist()
        given = batch(run, [train[row] for row in rows])
        evenly = step < EVENLY
        noise, rhythm = noises(given, generator)
        result = model(*given[:4], noise, rhythm, evenly)
        starts = [int(torch.randint(int(n) - WINDOW + 1, (), generator=generator)) for n in given.frames]
        fake = model.decoder(pieces(result.latents, starts, WINDOW))
        at = [start * speech.HOP for start in starts]
        real = pieces(given.waves.unsqueeze(1), at, WINDOW * speech.HOP).squeeze(1)
        distance = (speech.log_mel(fake.float()) - speech.log_mel(real.float())).abs().mean()
        divergence = result.divergence.sum() / given.frames.sum()
        # With full weight from the start, the divergence would make the latents uninformative too early.
        counted = min(1.0, 2 * step / steps)
        lasts = result.durations.sum() / given.symbols.sum()
        loss = MEL_WEIGHT * distance + counted * divergence + lasts
        if step >= 3 * steps // 4:  # earlier sounds are too poor to train discriminators
            told = discriminator_loss(judges(real), judges(fake.detach()))
            run.descend(told, theirs, step=step, metric="loss of the judges", arm="voice")
            seen = judges(fake)
            loss = loss + generator_loss(seen) + feature_loss(judges(real), seen)
        run.metric("distance of mel spectrograms", distance.item(), step=step, arm="voice")
        run.metric("divergence (nats a frame)", divergence.item(), step=step, arm="voice")
        run.descend(loss, ours, step=step, metric="loss of the voice", arm="voice", clip=10.0)
    run.phase("evaluate")
    model.eval()
    listen(run, model, judge)


def noises(given: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random noise for the latents and for the durations."""
    latents = torch.randn(len(given.text), SIZES.latents, given.spectrogram.shape[2], generator=generator)
    rhythm = torch.randn(len(given.text), 2, given.text.shape[1], generator=generator)
    return latents.to(given.spectrogram), rhythm.to(given.spectrogram)


@torch.no_grad()
def listen(run: Run, model: VITS, judge: list[Said]) -> None:
    """Show sounds and pictures: an unseen utterance, its reconstruction, and its text spoken twice."""
    said, generator = judge[0], run.generator("listen")
    given = batch(run, [said])
    noise, rhythm = noises(given, generator)
    result = model(*given[:4], noise, rhythm)
    sounds = {"the voice": said.wave, "by way of the latents": model.decoder(result.latents)[0]}
    for number in (1, 2):
        sounds[f"from text, {number}"] = model.speak(given.text, given.symbols, generator)[0][0]
    sounds = {name: wave.float().cpu() for name, wave in sounds.items()}
    words = " ".join(speech.WORDS[word] for word in said.spoken.words if isinstance(word, int))
    rows = []
    for name, wave in sounds.items():
        values = measured(wave)
        rows.append([name, *(f"{value:.3g}" for value in values.values())])
        told = ", ".join(f"{what} {value:.2g}" for what, value in values.items())
        beside = "" if name == "the voice" else "the voice"
        run.audio(name, wave, speech.RATE, caption=f"{words!r}, {name}: {told}", beside=beside)
    run.table("sounds", ["sound", *values], rows, caption=f"Statistics of the sounds of {words!r}.")
    same = sounds["by way of the latents"]
    gap = log_spectral_distance(said.wave, same, window=512, hop=128)
    run.metric("log-spectral distance by way of the latents (dB)", gap, arm="voice")
    for name in ("the voice", "by way of the latents"):
        periodic = periodicity(sounds[name], said.spoken.pitch, rate=speech.RATE)
        run.metric("periodicity of voiced frames", periodic, arm=name)
    found, wanted = (one.cpu().cumsum(0)[:-1] for one in (result.path[0].sum(1), said.spoken.durations))
    run.metric("boundary error (frames)", (found - wanted).abs().double().mean().item(), arm="voice")
    mels = [(speech.log_mel(wave).T.flip(0) + 7) / 10 for wave in sounds.values()]
    longest = max(mel.shape[1] for mel in mels)
    panels = [F.pad(mel, (0, longest - mel.shape[1]), value=1.0) for mel in mels]
    run.image(
        "spectrograms",
        torch.stack(panels)[:, None].repeat_interleave(3, 2).repeat_interleave(3, 3),
        columns=1,
        rows=list(sounds),
        caption=f"{words!r}: 0 to 4 kHz from bottom to top, one column per 10 ms.",
    )


def measured(wave: Float[Tensor, " samples"]) -> dict[str, float]:
    """Statistics that distinguish speech from silence, noise and clipping."""
    frames = wave[: len(wave) // speech.HOP * speech.HOP].view(-1, speech.HOP)
    loud = frames.square().mean(1).sqrt()
    power = audio.stft(wave, window=speech.WINDOW, hop=speech.HOP).abs().square().mean(0)
    below = power.cumsum(0) / power.sum().clamp(min=1e-12)
    return {
        "seconds": len(wave) / speech.RATE,
        "peak": wave.abs().max().item(),
        "share clipped": (wave.abs() >= 0.999).float().mean().item(),
        "share of frames 40 dB below the loudest": (loud < 0.01 * loud.max()).float().mean().item(),
        "mean of the wave": wave.mean().item(),
        "share of power below 1 kHz": below[32].item(),
        "share of power below 2 kHz": below[64].item(),
        "flatness": (power.clamp(min=1e-12).log().mean().exp() / power.mean().clamp(min=1e-12)).item(),
    }
