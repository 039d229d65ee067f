"""GPT-2: a large decoder, trained only to predict the next token, performs tasks without fine-tuning.

Radford, Wu, Child, Luan, Amodei and Sutskever 2019, "Language Models are Unsupervised Multitask Learners"
(OpenAI).

The problem. Each task needed its own data set and training, and each system could perform only one task. GPT
(2018) pre-trained a language model first, but still fine-tuned it for each task.

The idea. Text contains demonstrations of tasks, so a model that predicts text well enough can perform tasks
that are phrased as text, without training for them. This needs a large model and varied text: 1.5 billion
parameters, and web pages that people had linked to. The block was also changed to suit deeper stacks. Layer
normalisation moved to the input of each sub-layer, so the residual path is a plain sum, and one more
normalisation follows the last block. The initial weights of layers that write to the residual path are
divided by the square root of the number of these layers. Most later language models use this block.

This folder. `model` has the decoder with a KV cache for generation, and sampling with a temperature and from
the top k tokens. It imports attention, layer normalisation and the vocabulary from the plugins of their
papers. `weights` loads the released parameters. `experiment` counts the paper's parameters, measures the
effect of the scaled initial weights on the residual path, and trains three sizes. `ngrams` has the n-gram
rival.

Dimensions: batch, tokens, vocab (size of the vocabulary), model (hidden size), heads, dim (model / heads),
room (entries of a cache).
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
