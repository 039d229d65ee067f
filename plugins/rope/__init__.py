"""RoPE: positions as rotations of queries and keys.

Su, Lu, Pan, Murtadha, Wen and Liu 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
arXiv 2104.09864.

The problem. Attention does not know order. A vector learned for each position and added to the input ties
what is learned to places in the window, ends with the last of them, and leaves it to the model to find out
that what matters is mostly how far apart two tokens are.

The idea. Take the coordinates of queries and keys in pairs, and turn each pair by an angle that grows with
the position, each pair at its own speed. The product of two turned vectors holds the difference of their
angles alone: the distance, never the place. Nothing is learned and nothing is added.

This folder. `model`: equation 15 as it is written, the same as one complex product, and `RotaryAttention`,
multi-head attention between turned queries and keys. `experiment` checks that moving a sequence changes
nothing, and trains a character model with rotations, with learned positions, and with the sines of the
Transformer, which are the same angles, added.

Dimensions: batch and heads (any leading axes), tokens, dim (of a head, even), pairs (dim / 2).
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CONVERGES, DISTANCE, experiment
from .model import RotaryAttention, halves_to_pairs, line_by_line, phases, rotate, sines


@hookimpl
def implementation() -> type[nn.Module]:
    return RotaryAttention
