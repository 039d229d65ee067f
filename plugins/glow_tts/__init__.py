"""Glow-TTS: a flow that speaks all frames at once and finds its own alignment of text and speech.

Kim, Kim, Kong and Yoon 2020, "Glow-TTS: A Generative Flow for Text-to-Speech via Monotonic Alignment Search",
arXiv 2005.11129.

The problem. Synthesisers that write all frames at once need to know how long each symbol lasts, and learnt it
from the attention of a slower one that writes frame after frame.

The idea. An invertible network maps a spectrogram to latents whose density is a normal distribution for each
symbol, so a spectrogram has an exact likelihood for every alignment. People read in order: the path through
symbols and frames is monotonic, and dynamic programming finds the most probable one. Training goes in turn:
the path by the present network, then a step on the likelihood along it; a small network learns the path's
durations for synthesis.

This folder. `flow` has the invertible layers, `search` the search, `model` the text encoder and the whole,
`weights` reads released weights.
`experiment` asks what the couplings add to a linear flow; `benchmark` times search and synthesis.

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
