"""GPT-2: one large decoder that is only ever asked what comes next.

Radford, Wu, Child, Luan, Amodei and Sutskever 2019, "Language Models are Unsupervised Multitask Learners"
(OpenAI).

The problem. Every task had its data set and its training: a system for translation, one for questions, each
good at that alone. GPT (2018) trained a language model first, and still adapted it to each task.

The idea. A text shows tasks along with their answers, so a model that predicts text well enough does tasks
that are put as text, without any training for them. What it takes is size and varied text: 1.5 billion
parameters, pages that people had linked to. For a stack that deep the block changed: normalise before each
sub-layer and once at the end, so that the residual path runs through untouched, and begin with the layers
that write to it divided by the root of their number. Most language models since have this block.

This folder. `model`: the decoder with a cache for generation, sampling by temperature and from the likeliest
k; attention, normalisation and the vocabulary come from their own folders. `weights` puts the released
weights into it. `experiment` counts the paper's parameters, measures what the division does to the residual
path, and trains three sizes; `ngrams` counts what stands in their place.

Dimensions: batch, tokens, vocab (tokens that there are), model (width), heads, dim (model / heads), room
(tokens that a cache can take).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import LARGER, RESIDUAL, SIZE, SIZES, experiment, nats, parameters, train, windows_of
from .model import GPT2, XL, Cache, sampling_probabilities
from .weights import from_released, read_merges


@hookimpl
def implementation() -> type[nn.Module]:
    return GPT2
