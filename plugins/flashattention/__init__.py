"""FlashAttention: compute exact attention in tiles, without writing the score matrix to slow memory.

Dao, Fu, Ermon, Rudra and Ré 2022, arXiv 2205.14135. The loop order is FlashAttention-2's (Dao 2023,
arXiv 2307.08691). FlashAttention-3 (Shah et al. 2024, arXiv 2407.08608) overlaps the steps on Hopper.

The problem. Attention computes tokens² scores and writes them to the GPU's main memory (HBM). It reads the
scores for the softmax, writes the weights, and reads the weights to multiply them with the values. The
arithmetic is cheap: memory bandwidth limits the speed, and memory size limits the length. Approximate
attention methods save arithmetic, which is not the bottleneck.

The idea. Compute attention in tiles that fit in the fast on-chip memory (SRAM). There are two obstacles.
First, the softmax needs a whole row of scores. FlashAttention keeps a running maximum and a running sum, and
rescales the partial results when the maximum rises (section 3.1). Second, the backward pass needs the
attention weights. FlashAttention stores one number per row, the log of the row's sum, and recomputes the
tiles (appendix B.2). The result is exact. It costs more arithmetic but less memory traffic.

This folder. `tiled` has the algorithm in PyTorch for every device, first in ten lines, then with a tiled
forward and backward pass. `triton_kernel` has GPU kernels, and `model` chooses between `tiled` and the
kernels. `accesses` counts the memory accesses of theorem 2. `experiment` measures exactness and memory
accesses, and trains a GPT-2 with tiled attention.

Dimensions: batch, heads, kv_heads (heads of keys and values, a divisor of heads), queries, keys, tokens
(either), dim (size of a query or a key), values (size of a value).
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
