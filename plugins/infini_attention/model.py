"""Implements section 2: attention within a segment and a memory of all earlier segments."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attention import merge_heads, scaled_dot_product_attention, split_heads
from ..rope import phases, rotate

Heads = Float[Tensor, "*batch heads tokens dim"]


class Memory(NamedTuple):
    """M and z of every head: sums of σ(k)ᵀ v and of σ(k) over all earlier tokens, in float32 or wider."""

    M: Float[Tensor, "*batch heads dim dim"]
    z: Float[Tensor, "*batch heads dim"]


def sigma(x: Heads) -> Heads:
    """Equation 3's nonlinearity ELU + 1, which makes attention weights positive, in float32 or wider."""
    return F.elu(x.to(torch.promote_types(x.dtype, torch.float32))) + 1


def retrieve(memory: Memory, q: Heads) -> Heads:
    """Equation 3: the value that each query retrieves, 0 from an empty memory."""
    total = (sigma(q) @ memory.z[..., None]).clamp(min=1e-6)
    return (sigma(q) @ memory.M) / total  # σ(q) M / (σ(q) z)


def update(memory: Memory, k: Heads, v: Heads, *, delta: bool) -> Memory:
    """Equation 4, or equation 5 with the delta rule."""
    v = v.to(memory.M.dtype)
    if delta:
        v = v - retrieve(memory, k)  # the value that the memory already returns
    return Memory(memory.M + sigma(k).mT @ v, memory.z + sigma(k).sum(-2))


def memories(
    k: Float[Tensor, "batch segments heads tokens dim"], v: Float[Tensor, "batch segments heads tokens dim"]
) -> Memory:
    """The memory before each segment (equation 4): a sum over all earlier segments."""
    written = sigma(k).mT @ v.to(torch.promote_types(v.dtype, torch.float32)), sigma(k).sum(-2)
    return Memory(*(F.pad(x.cumsum(1)[:, :-1], [0, 0] * (x.ndim - 2) + [1, 0]) for x in written))


class InfiniAttention(nn.Module):
    """Causal self-attention in segments with a compressive memory.

    segment  length of a segment in tokens
    delta    whether to write to the memory by the delta rule
    """

    def __init__(self, model: int, heads: int, segment: int, *, delta: bool = False) -> None:
        super().__init__()
        if model % heads:
            raise ValueError(f"a model of width {model} cannot be split over {heads} heads")
        self.heads = heads
        self.segment = segment
        self.delta = delta
        self.qkv = nn.Linear(model, 3 * model, bias=False)
        self.output = nn.Linear(model, model, bias=False)
        self.gate = nn.Parameter(torch.zeros(heads))  # β; 0 weights memory and segment equally

    def forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        """Attention over a whole text. All segments are computed at once, except with the delta rule, where
        each memory depends on the one before."""
        if self.delta:
            memory, found = self.empty(len(x)), []
            for part in x.split(self.segment, 1):
                result, memory = self.stream(part, memory)
                found.append(result)
            return torch.cat(found, 1)
        tokens = x.shape[1]
        whole = F.pad(x, (0, 0, 0, -tokens % self.segment)).unflatten(1, (-1, self.segment))
        q, k, v = self.project(whole)  # batch segments heads segment dim
        return self.mixed(q, k, v, memories(k, v)).flatten(1, 2)[:, :tokens]

    def stream(
        self, x: Float[Tensor, "batch tokens model"], memory: Memory
    ) -> tuple[Float[Tensor, "batch tokens model"], Memory]:
        """Attention over at most one segment, and the memory after this segment."""
        q, k, v = self.project(x)
        # Retrieve before writing.
        return self.mixed(q, k, v, memory), update(memory, k, v, delta=self.delta)

    def project(self, x: Float[Tensor, "*batch tokens model"]) -> list[Heads]:
        return [split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1)]

    def mixed(self, q: Heads, k: Heads, v: Heads, memory: Memory) -> Float[Tensor, "*batch tokens model"]:
        """Equation 6: memory and local attention, mixed with each head's gate.

        Positions are counted within the segment. The memory has no positions (section 4.1).
        """
        single = torch.promote_types(q.dtype, torch.float32)
        freqs_cis = phases(torch.arange(q.shape[-2], device=q.device, dtype=single), q.shape[-1])
        local = scaled_dot_product_attention(rotate(q, freqs_cis), rotate(k, freqs_cis), v, causal=True)
        gate = self.gate.sigmoid()[:, None, None]
        # The memory gets the weight sigmoid(β), and the segment gets the rest.
        mixed = gate * retrieve(memory, q).to(local.dtype) + (1 - gate) * local
        return self.output(merge_heads(mixed.to(local.dtype)))

    def empty(self, batch: int) -> Memory:
        """The memory before the first segment."""
        dim = self.output.in_features // self.heads
        single = torch.promote_types(self.gate.dtype, torch.float32)
        M = self.gate.new_zeros(batch, self.heads, dim, dim, dtype=single)
        return Memory(M, M[..., 0])
