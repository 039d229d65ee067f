"""Whisper: one encoder-decoder for speech, controlled by tokens and trained on large, varied data.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv 2212.04356.

The problem. Speech recognisers trained on clean corpora transcribe these corpora as well as people do, but
fail on other recordings. They must be fine-tuned for each domain, and fine-tuning only fits them to one more
corpus.

The idea. Train an unmodified Transformer on audio from all over the internet, even if the transcripts are
imperfect. The encoder reads log-mel frames, and the decoder writes text. The first tokens of the text specify
the language and the task, transcription or translation, so a single network performs all tasks.

This folder. `model` has the network, under the parameter names of the released weights, and its KV cache.
`decoding` decodes greedily, with timestamps, by beam search, and at rising temperatures if the text is
unlikely or repetitive. `weights` loads released weights. `sounds` makes the recordings. `experiment` compares
training on studio sound with training on varied sound with wrong transcripts, in recording conditions that
are new to both.

Dimensions: batch, frames and mels of a spectrogram; positions (two frames), tokens, width, heads.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .decoding import Text, beam_search, decode, greedy, in_time
from .experiment import CACHE, ROBUST, experiment
from .model import SIZES, Size, Whisper
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Whisper
