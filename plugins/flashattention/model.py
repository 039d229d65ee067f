"""Runs attention in Triton kernels if they support the inputs, and in PyTorch tiles if not."""

import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

from .tiled import check_window, tiled_attention

HALF = (torch.float16, torch.bfloat16)


def flash_attention(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys values"],
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries values"]:
    """softmax(q kᵀ · scale) v without storing the score matrix.

    kv_heads must divide heads. Each head of keys and values serves heads / kv_heads query heads (GQA).

    causal  no query sees a later position; the last query is aligned with the last key (lower right)
    window  a query sees itself and the `window - 1` positions before it (needs `causal`)
    scale   factor on the scores, by default 1 / √dim

    The result for a query without visible keys is zero. Half precision on a GPU runs in the Triton kernels if
    Triton is installed. Everything else runs in PyTorch tiles. Supports double backward. Use
    `online_attention` with the transforms of `torch.func`. Raises ValueError for an invalid window.
    """
    check_window(window, causal=causal)
    attend = fused if in_kernels(q, k, v, scale) else tiled_attention
    return attend(q, k, v, causal=causal, window=window, scale=scale)


def in_kernels(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> bool:
    """Whether the Triton kernels support these inputs."""
    return (
        q.device.type == "cuda"
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
        and importlib.util.find_spec("triton") is not None
        and q.dtype in HALF
        and q.dtype == k.dtype == v.dtype
        and q.shape[-1] == v.shape[-1] in (64, 128)
        and (scale is None or scale > 0)
        and min(q.numel(), k.numel()) > 0
        and q.shape[0] * q.shape[1] < 2**16  # the second axis of a CUDA grid
    )


def fused(q: Tensor, k: Tensor, v: Tensor, **how: object) -> Tensor:
    from .triton_kernel import fused_attention  # Triton is optional, and its import takes a second

    return fused_attention(q, k, v, **how)
