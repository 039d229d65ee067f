"""Gist tokens: an attention mask makes the model compress a prompt into the keys and values of a few tokens.

Mu, Li and Goodman 2023, "Learning to Compress Prompts with Gist Tokens", arXiv 2304.08467.

The problem. The same instructions precede every request. They are either processed again each time or cached.
The cache takes memory, and every new token attends to it.

The idea. Insert a few gist tokens after the prompt, and mask the prompt for all later tokens. With this mask,
fine-tuning teaches the model to write the relevant content of any prompt into the gist tokens' keys and
values. Only these stay in the cache. There is no additional network and no training per prompt.

This folder. `model` has the mask, and GPT-2 with a gist token and a KV cache without the prompt. `experiment`
trains a model on prompts, fine-tunes it with the mask, and tests it on unseen prompts. `benchmark` times an
answer with the prompt reprocessed, with its KV cache, and with the KV cache of its gist.

Dimensions: batch, tokens, prompt, gists, heads, dim (of a head), room (free entries of a cache), vocab.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import COMPRESSES, FASTER, HARMLESS, experiment
from .model import GistGPT2, causal_mask, gist_mask, promptless_mask


@hookimpl
def implementation() -> type[nn.Module]:
    return GistGPT2
