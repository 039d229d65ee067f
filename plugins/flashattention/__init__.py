"""FlashAttention: never write the score matrix to slow memory, and attention is exact, linear and fast.

Dao, Fu, Ermon, Rudra and Ré 2022, arXiv 2205.14135. The loop order is that of FlashAttention-2, Dao 2023,
arXiv 2307.08691. FlashAttention-3, Shah et al. 2024, arXiv 2407.08608, overlaps the steps on Hopper.

The problem. Attention computes tokens² scores, writes them to the GPU's main memory (HBM), reads them for
the softmax, writes the weights, and reads those for the product with the values. The arithmetic is cheap: the
time goes into that traffic, and the memory limits the length. Approximations save arithmetic: not the cost.

The idea. Work in tiles that fit the fast memory on the chip (SRAM). Two things stand in the way. The softmax
needs a whole row: keep its maximum and its sum so far, and scale what was summed up when the maximum rises
(section 3.1). And the backward pass needs the weights: keep one number a row, the log of its sum, and compute
the tiles again (appendix B.2). More arithmetic, less traffic, nothing approximated.

This folder. `tiled` has the algorithm in PyTorch, in ten lines and in tiles, forward and backward, for every
device; `triton_kernel` has it as GPU kernels; `model` chooses between the two; `accesses` counts what theorem
2 is about. `experiment` measures exactness and accesses, and trains a GPT-2 with it.

Dimensions: batch, heads, kv_heads (heads of keys and values, a divisor of heads), queries, keys, tokens
(either), dim (of a query or a key), values (of a value).
"""

from readtrack.plugin import hookimpl

from .accesses import blocks_for, standard_accesses, tiled_accesses
from .baselines import standard_attention
from .benchmark import benchmark
from .experiment import ACCESSES, EXACT, FASTER, LINEAR, TRAINING, experiment, largest_errors, results
from .model import flash_attention, in_kernels
from .tiled import online_attention, tiled_attention


@hookimpl
def implementation() -> object:
    return flash_attention
