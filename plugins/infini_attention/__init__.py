"""Infini-attention: what segments before this one said, in a memory that never grows.

Munkhdalai, Faruqui and Gopal 2024, "Leave No Context Behind: Efficient Infinite Context Transformers with
Infini-attention", arXiv 2404.07143.

The problem. Attention keeps the keys and values of every token. A text that never ends needs a cache that
never ends; a text cut into segments forgets what lies before the segment.

The idea. Each head adds the outer products of its keys and values, made positive, into one matrix, as linear
attention does. A later segment reads from it with its queries, and a gate of each head mixes what it reads
with ordinary attention within the segment. The delta rule adds only what the memory does not say already.

This folder. `model`: the attention, over all segments at once where sums can be taken first, and segment by
segment with a memory that is carried on. `experiment` hides a value in a text and asks for it at lengths up
to eight times those of training, against a cache of as many numbers. `benchmark` times a text, and one token
after texts of many lengths.

A public attempt to reproduce the paper (Hugging Face, August 2024) found that retrieval gets worse with each
time that the memory is written to.

Dimensions: batch, tokens, segments, model (width), heads, dim (model / heads).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BEYOND, CONSTANT, COUNT, INSIDE, STREAM, experiment
from .model import InfiniAttention, Memory


@hookimpl
def implementation() -> type[nn.Module]:
    return InfiniAttention
