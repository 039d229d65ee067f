"""The selective SSM, the block around it (figure 3), and the language model.

Each module takes the previous state and returns the new one, so a sequence can be processed in pieces. With
one token per call it is a recurrent network.

Dimensions: batch, time, model (residual stream), channels (inside a block, twice `model`), order (state size
per channel), rank (of the projection to Δ). Modules and parameters are named as in the authors' code.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..ssm import hippo_legs
from .scan import selective_scan

Stream = Float[Tensor, "batch time model"]
Channels = Float[Tensor, "batch time channels"]
State = Float[Tensor, "batch channels order"]
Recent = Float[Tensor, "batch channels before"]  # the last inputs, which the next convolution needs
BlockState = tuple[Recent, State]


class SelectiveSSM(nn.Module):
    """Algorithm 2 (S6): an SSM whose step size Δ and vectors B and C depend on the input.

    A is -exp(`A_log`). `D` scales the skip connection.
    """

    def __init__(self, channels: int, order: int, rank: int) -> None:
        super().__init__()
        self.order, self.rank = order, rank
        self.x_proj = nn.Linear(channels, rank + 2 * order, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        # Minus the eigenvalues 1 .. order of the HiPPO matrix (S4D-Real, section 3.6).
        eigenvalues = hippo_legs(order)[0].diagonal().float()
        self.A_log = nn.Parameter(eigenvalues.log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        # Initial step sizes are log-uniform between 1/1000 and 1/10. The bias is their inverse softplus.
        steps = torch.empty(channels).uniform_(math.log(0.001), math.log(0.1)).exp()
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.dt_proj.bias.copy_(steps + (-torch.expm1(-steps)).log())

    def forward(self, x: Channels, state: State | None = None) -> tuple[Channels, State]:
        dt, B, C = self.x_proj(x).split((self.rank, self.order, self.order), -1)
        delta, A = F.softplus(self.dt_proj(dt)), -self.A_log.exp()
        y, state = selective_scan(x, delta, A, B, C, state)
        return y + self.D * x, state


class MambaBlock(nn.Module):
    """Figure 3: one branch has a short causal convolution and the SSM, the other branch has the gate.

    window  kernel size of the convolution
    """

    def __init__(self, model: int, *, order: int = 16, expand: int = 2, window: int = 4) -> None:
        super().__init__()
        channels = expand * model
        self.in_proj = nn.Linear(model, 2 * channels, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, window, groups=channels)
        self.ssm = SelectiveSSM(channels, order, rank=math.ceil(model / 16))
        self.out_proj = nn.Linear(channels, model, bias=False)

    def forward(self, x: Stream, state: BlockState | None = None) -> tuple[Stream, BlockState]:
        signal, gate = self.in_proj(x).chunk(2, -1)
        signal, before = signal.mT, self.conv1d.kernel_size[0] - 1
        if state is None:
            recent, space = signal.new_zeros(*signal.shape[:2], before), None
        else:
            recent, space = state
        signal = torch.cat((recent, signal), -1)
        y, space = self.ssm(F.silu(self.conv1d(signal).mT), space)
        return self.out_proj(y * F.silu(gate)), (signal[..., signal.shape[-1] - before :], space)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    layers: int
    model: int
    vocab: int = 50_280  # GPT-NeoX's vocabulary, padded to a multiple of eight


# The smallest and the largest released model.
MAMBA_130M = Config(layers=24, model=768)
MAMBA_2_8B = Config(layers=64, model=2560)


class Mamba(nn.Module):
    """The language model: embedding, pre-norm residual blocks, and a readout tied to the embedding.

    As in the authors' code, the initial projections into the residual stream are scaled by 1/√layers.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab, config.model)
        self.norms = nn.ModuleList(nn.RMSNorm(config.model, eps=1e-5) for _ in range(config.layers))
        self.blocks = nn.ModuleList(MambaBlock(config.model) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.model, eps=1e-5)
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            for block in self.blocks:
                block.out_proj.weight /= math.sqrt(config.layers)

    def forward(
        self, ids: Int[Tensor, "batch time"], state: list[BlockState] | None = None
    ) -> tuple[Float[Tensor, "batch time vocab"], list[BlockState]]:
        """Logits of the next token after each of `ids`, and the state after the last one.

        `state` is the state after the previous tokens. Its size does not depend on their number.
        """
        x, after = self.embedding(ids), []
        for norm, block, before in zip(
            self.norms, self.blocks, state or [None] * len(self.blocks), strict=True
        ):
            found, now = block(norm(x), before)
            x = x + found
            after.append(now)
        return self.norm(x) @ self.embedding.weight.mT, after
