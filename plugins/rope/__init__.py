"""RoPE: positions as rotations of queries and keys.

Su, Lu, Pan, Murtadha, Wen and Liu 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
arXiv 2104.09864.

The problem. Attention ignores order. Adding a learned vector for each position to the input ties the model to
absolute positions and does not extend beyond the last position. The model has to learn that mostly relative
distance matters.

The idea. Group the coordinates of queries and keys into pairs, and rotate each pair by an angle proportional
to the position, each pair at its own speed. The dot product of two rotated vectors depends only on the
difference of their positions. RoPE has no learned parameters and adds nothing to the input.

This folder. `model` has equation 15 as written, the same computation as one complex multiplication, and
`RotaryAttention`, multi-head attention with rotated queries and keys. `experiment` checks that scores are
invariant to a shift of the sequence, and trains a character model with rotations, with learned positions, and
with the Transformer's sinusoids, which use the same angles. `benchmark` times the rotation.

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
