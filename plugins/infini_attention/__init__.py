"""Infini-attention: combine attention within a segment with a constant-size memory of earlier segments.

Munkhdalai, Faruqui and Gopal 2024, "Leave No Context Behind: Efficient Infinite Context Transformers with
Infini-attention", arXiv 2404.07143.

The problem. Attention stores the keys and values of every token, so the KV cache grows with the text. A model
that processes a text in segments forgets earlier segments.

The idea. As in linear attention, each head applies a positive nonlinearity to its keys, and sums the outer
products of keys and values in one matrix. Queries of later segments read from this memory, and a gate per
head mixes the result with ordinary attention within the segment. A variant with the delta rule adds only the
part of a value that the memory does not return yet.

This folder. `model` has the attention in two forms: over all segments at once with prefix sums, and segment
by segment with a memory. `experiment` compares the recall of a hidden value with that of a KV cache of about
the same size, on texts of up to eight times the training length. `benchmark` times attention over a text, and
the decoding of one token after texts of several lengths.

A public attempt to reproduce the paper (Hugging Face, August 2024) found that retrieval degrades with each
write to the memory.

Dimensions: batch, tokens, segments, model (hidden size), heads, dim (model / heads).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BEYOND, CONSTANT, COUNT, INSIDE, STREAM, experiment
from .model import InfiniAttention, Memory


@hookimpl
def implementation() -> type[nn.Module]:
    return InfiniAttention
