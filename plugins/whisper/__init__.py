"""Whisper: one encoder-decoder for speech, told by tokens what to do, trained on much and varied sound.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv 2212.04356.

The problem. Recognisers trained on clean corpora read those corpora as well as people do, and break on other
recordings. They have to be fine-tuned for each use, and what they learn in it is again the corpus.

The idea. Take sound with transcripts from everywhere, however imperfect the transcripts, and change nothing
in the Transformer. Log-mel frames go in, text comes out; the first tokens of the text say the language and
whether it is to be transcribed or translated, so that one network does every task.

This folder. `model` has the network with the names of its released weights and its cache, `decoding` reads
greedily, with times, in beams, and at rising temperatures where the text looks wrong; `weights` takes the
released ones. `experiment` trains on sound of a
studio and on varied sound with wrong transcripts, and reads both in conditions that neither has heard.

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
