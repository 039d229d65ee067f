"""Tacotron 2: text to mel spectrograms by location-sensitive attention, then to sound.

Shen et al. 2017, "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions",
arXiv 1712.05884.

The problem. Speech synthesis needed phonemes, durations and pitch from separate models. A network that
attends to letters needs none of these models, but purely content-based attention loses its place where
symbols repeat.

The idea. Mel spectrograms are an intermediate representation between text and sound. A recurrent decoder
generates them frame by frame. Its attention also sees its own previous weights and their sum, so it can move
on from its last position. A post-net refines the whole spectrogram, and a logit decides when to stop. The
paper's WaveNet turns the frames into sound. We use the Griffin-Lim algorithm instead.

This folder. `model` has the encoder, the decoder and the post-net. `equation` compares attention with loops.
`experiment` counts skipped symbols and backward steps on long texts, with and without location features.
`benchmark` times the attention of several decoder steps, and seconds of speech from the whole network.

Dimensions: batch, symbols of the text, frames and bands of a spectrogram, steps of the decoder.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .equation import EQUATION
from .experiment import FORWARD, experiment
from .model import LocationSensitiveAttention, Prenet, Sizes, Spoken, Tacotron2


@hookimpl
def implementation() -> type[nn.Module]:
    return Tacotron2
