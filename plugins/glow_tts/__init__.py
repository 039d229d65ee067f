"""Glow-TTS: generate all frames of speech in parallel with a flow that learns its alignment with the text.

Kim, Kim, Kong and Yoon 2020, "Glow-TTS: A Generative Flow for Text-to-Speech via Monotonic Alignment Search",
arXiv 2005.11129.

The problem. Parallel text-to-speech models need the duration of each symbol. They used to obtain it from the
attention of a slower autoregressive model.

The idea. An invertible network maps a spectrogram to latents, which have a normal distribution for each
symbol. A spectrogram therefore has an exact likelihood under every alignment. Text is read in order, so the
path through symbols and frames is monotonic, and dynamic programming finds the most probable one. Training
alternates between finding the path and a gradient step on the likelihood along it. A small network learns to
predict the durations on this path, for use in synthesis.

This folder. `flow` has the invertible layers, `search` has the alignment search, and `model` has the text
encoder and the complete model. `weights` renames the released parameters. `experiment` measures by how much
coupling layers raise the likelihood over that of a linear flow. `benchmark` times the search, and synthesis
compared with Tacotron 2.

Dimensions: batch, symbols of the text, frames and bands of a spectrogram, channels.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import FAST_SEARCH, benchmark
from .experiment import BEST_PATH, COUPLINGS, INVERSE, experiment
from .flow import ActNorm, ChannelMixing, Coupling, Flow, WaveNet, mask_of, squeeze, unsqueeze
from .model import EncoderLayer, GlowTTS, Sizes, log_normal, pad_mels, pad_text
from .search import divide, search
from .weights import from_released, load_released


@hookimpl
def implementation() -> type[nn.Module]:
    return GlowTTS
