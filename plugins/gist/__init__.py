"""Gist tokens: a mask hides the prompt behind a token, so that the model must press the prompt into it.

Mu, Li and Goodman 2023, "Learning to Compress Prompts with Gist Tokens", arXiv 2304.08467.

The problem. The same instructions stand before every request, and each time they are read, or at least kept:
their keys and values fill the cache and every new token looks at them.

The idea. Put a few gist tokens behind the prompt and let nothing that follows them look at what stands before
them. Fine-tuned so, the model writes what matters of any prompt into the keys and values of the gist tokens.
Those are kept, the prompt is dropped. No network is added and nothing is trained for a single prompt.

This folder. `model`: the mask, and GPT-2 with a gist token and a cache that drops the prompt. `experiment`
trains a model on prompts and tunes it with the mask, on prompts that it has never seen. `benchmark` times the
answer to a request with the prompt, with its cache, and with its gist.

Dimensions: batch, tokens, prompt, gists, heads, dim (of a head), room, vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import COMPRESSES, FASTER, HARMLESS, experiment
from .model import GistGPT2, causal_mask, gist_mask, promptless_mask


@hookimpl
def implementation() -> type[nn.Module]:
    return GistGPT2
