"""Tacotron 2: text to mel spectrograms by attention that knows where it has looked, then to sound.

Shen et al. 2017, "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram Predictions",
arXiv 1712.05884.

The problem. Synthesisers needed phonemes, durations and pitch from separate models. A network that attends
to letters needs none of them, but attention by content alone loses its place where symbols repeat.

The idea. Mel spectrograms stand between text and sound. A recurrent decoder writes them frame after frame;
its attention also sees its own previous weights and their sum, so it can move on from where it was. A
post-net refines the whole, and a logit says when to stop. The paper's WaveNet turns the frames into sound;
here Griffin and Lim's iteration does.

This folder. `model` has encoder, decoder and post-net. `experiment` counts symbols that are skipped and steps
back on long texts, with and without places; `benchmark` times attention's steps.

Dimensions: batch, symbols of the text, frames and bands of a spectrogram, steps of the decoder.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import EQUATION, FORWARD, experiment
from .model import LocationSensitiveAttention, Prenet, Sizes, Spoken, Tacotron2


@hookimpl
def implementation() -> type[nn.Module]:
    return Tacotron2
