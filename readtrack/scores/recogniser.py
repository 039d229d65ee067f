"""A speech recogniser: a network that transcribes digits from a log-mel spectrogram.

It evaluates papers that synthesise speech: its error rate on their output is compared with its error rate on
the synthetic voice itself. It is a convolutional network, trained with the loss of connectionist temporal
classification (Graves et al. 2006, doi 10.1145/1143844.1143891) on many speakers of `readtrack.data.speech`
with noise at 0 to 40 dB.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from readtrack.data import audio, speech

if TYPE_CHECKING:
    from readtrack.runs.run import Run

_BATCH = 16


class Recogniser(nn.Module):
    """Maps log-mel (n, frames, 40) to log probabilities (n, rows, 11): 0 is blank, digit d is d + 1.

    A row covers four frames. Content after a sequence's length does not affect its output.
    """

    def __init__(self, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(
            [nn.Conv1d(speech.MELS, width, 3, 2, 1), nn.Conv1d(width, width, 3, 2, 1)]
        )
        self.blocks = nn.ModuleList([_Block(width) for _ in range(blocks)])
        self.out = nn.Linear(width, len(speech.WORDS) + 1)

    def forward(
        self, mel: Float[Tensor, "n frames 40"], lengths: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n rows 11"], Int64[Tensor, " n"]]:
        x = (mel - speech.MEL_MEAN) / speech.MEL_DEVIATION
        for convolution in self.narrow:
            x = F.silu(convolution((x * _inside(x, lengths)).mT)).mT
            lengths = (lengths + 1) // 2
        for block in self.blocks:
            x = block(x, _inside(x, lengths))
        return self.out(x).log_softmax(-1), lengths


class _Block(nn.Module):
    """Residual block of a gated depthwise convolution over time and a feed-forward layer."""

    def __init__(self, width: int, kernel: int = 15) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GLU())
        self.over_time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "n rows width"], inside: Bool[Tensor, "n rows 1"]
    ) -> Float[Tensor, "n rows width"]:
        x = x + self.mix(self.over_time((self.gate(x) * inside).mT).mT)
        return cast(Tensor, x + self.feed(x))


def _inside(x: Float[Tensor, "n rows width"], lengths: Int64[Tensor, " n"]) -> Bool[Tensor, "n rows 1"]:
    return (torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)).unsqueeze(2)


def recogniser(run: Run) -> Recogniser:
    """The trained network, from the cache (`Run.trained`), else trained in 20 seconds on one core."""

    def train(network: nn.Module) -> None:
        _train(network, run)

    # The key includes the code that generates the speech, because other speech needs another network.
    source = inspect.getsource(speech) + inspect.getsource(audio)
    key = f"speech.recogniser.{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return cast(Recogniser, run.trained(key, Recogniser, train).network)


def _train(network: nn.Module, run: Run) -> None:
    utterances = run.pick(smoke=16, quick=600, full=2000)
    steps = run.pick(smoke=3, quick=400, full=1500)
    corpus = [speech.draw(i, "train", (1, 4))[0] for i in range(utterances)]
    generator = run.generator("recogniser")
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for step in run.steps(steps, "training the recogniser"):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        picked = torch.randint(utterances, (_BATCH,), generator=generator).tolist()
        batch = [corpus[i] for i in picked]
        waves, samples = speech.pad(batch)
        snr = 40 * torch.rand(_BATCH, generator=generator)
        mel = speech.log_mel(speech.add_noise(waves, snr, generator, lengths=samples))
        labels, rows = network(mel.to(run.device, run.dtype), (samples // speech.HOP).to(run.device))
        digits = torch.tensor([word + 1 for said in batch for word in said.words if isinstance(word, int)])
        counts = torch.tensor([len(said.words) for said in batch])
        loss = F.ctc_loss(
            labels.float().transpose(0, 1),
            digits.to(run.device),
            rows,
            counts.to(run.device),
            zero_infinity=True,
        )
        run.descend(loss, optimizer, step=step, metric="recogniser loss", clip=1.0)


@torch.no_grad()
def transcribe(network: Recogniser, mels: Sequence[Float[Tensor, "_ 40"]]) -> list[list[int]]:
    """The digits in each log-mel spectrogram, by best-path decoding: repeats merged, blanks removed.

    Pass speech with room noise, as in training: `add_noise(wave, 40, generator)`.
    """
    place = network.out.weight
    lengths = torch.tensor([len(mel) for mel in mels], device=place.device)
    padded = nn.utils.rnn.pad_sequence([mel.to(place) for mel in mels], batch_first=True)
    said, rows = network(padded, lengths)
    paths = [
        labels[:length].unique_consecutive() for labels, length in zip(said.argmax(-1), rows, strict=True)
    ]
    return [[label - 1 for label in path.tolist() if label] for path in paths]
