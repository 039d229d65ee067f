"""The model: a selective state space, the block around it (figure 3), and the language model of such blocks.

Dimensions: batch, time, model (width of the residual stream), channels (width inside a block, twice that),
order (of a channel's state), rank (of the projection that sets the step).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..ssm import convolve, hippo_legs
from .scan import selective_scan

Stream = Float[Tensor, "batch time model"]
Channels = Float[Tensor, "batch time channels"]


class SelectiveSSM(nn.Module):
    """Algorithm 2 (S6): the state space whose step, input and output vectors depend on the input.

    selective  False: the three are parameters, the same at all times: algorithm 1 (S4) of a real diagonal
    """

    def __init__(self, channels: int, order: int, rank: int, *, selective: bool = True) -> None:
        super().__init__()
        self.order, self.rank, self.selective = order, rank, selective
        if selective:
            self.select = nn.Linear(channels, rank + 2 * order, bias=False)
        else:
            self.constant = nn.Parameter(torch.randn(rank + 2 * order))
        self.step = nn.Linear(rank, channels)
        # Minus the eigenvalues 1 .. order of the HiPPO matrix (S4D-Real, section 3.6).
        rates = hippo_legs(order)[0].diagonal().float()
        self.log_rate = nn.Parameter(rates.log().repeat(channels, 1))
        self.bypass = nn.Parameter(torch.ones(channels))
        # Steps start between 1/1000 and 1/10, evenly on a logarithmic scale; the bias is softplus⁻¹ of them.
        steps = torch.empty(channels).uniform_(math.log(0.001), math.log(0.1)).exp()
        with torch.no_grad():
            self.step.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.step.bias.copy_(steps + (-torch.expm1(-steps)).log())

    def forward(self, x: Channels) -> Channels:
        chosen = self.select(x) if self.selective else self.constant
        step, b, c = chosen.split((self.rank, self.order, self.order), -1)
        step, a = F.softplus(self.step(step)), -self.log_rate.exp()
        if self.selective:
            y, _ = selective_scan(x, step, a, b, c)
        else:
            y = convolve(x.mT, impulse_response(step, a, b, c, x.shape[1])).mT
        return y + self.bypass * x


def impulse_response(
    step: Float[Tensor, " channels"],
    a: Float[Tensor, "channels order"],
    b: Float[Tensor, " order"],
    c: Float[Tensor, " order"],
    time: int,
) -> Float[Tensor, "channels time"]:
    """Σ_n c_n e^{k Δ a_n} Δ b_n for k = 0 .. time - 1: what the scan amounts to where nothing is selected."""
    k = torch.arange(time, device=a.device)
    decays = ((step[:, None] * a)[..., None] * k).exp()
    return step[:, None] * ((b * c)[:, None] * decays).sum(1)


class MambaBlock(nn.Module):
    """Figure 3: in one branch a short causal convolution and the state space, in the other the gate.

    window  samples that the convolution sees
    """

    def __init__(self, model: int, *, order: int = 16, expand: int = 2, window: int = 4) -> None:
        super().__init__()
        channels = expand * model
        self.into = nn.Linear(model, 2 * channels, bias=False)
        self.convolution = nn.Conv1d(channels, channels, window, groups=channels, padding=window - 1)
        self.ssm = SelectiveSSM(channels, order, rank=math.ceil(model / 16))
        self.out = nn.Linear(channels, model, bias=False)

    def forward(self, x: Stream) -> Stream:
        signal, gate = self.into(x).chunk(2, -1)
        signal = self.convolution(signal.mT)[..., : x.shape[1]].mT
        return self.out(self.ssm(F.silu(signal)) * F.silu(gate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    layers: int
    model: int
    vocabulary: int = 50_280  # GPT-NeoX's tokens, filled up to a multiple of eight


# The smallest and the largest model that the authors released.
MAMBA_130M = Config(layers=24, model=768)
MAMBA_2_8B = Config(layers=64, model=2560)


class Mamba(nn.Module):
    """The language model: embedding, blocks in a residual stream (each normalised first), tied readout."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.norms = nn.ModuleList(nn.RMSNorm(config.model, eps=1e-5) for _ in range(config.layers))
        self.blocks = nn.ModuleList(MambaBlock(config.model) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.model, eps=1e-5)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        x = self.embedding(ids)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.norm(x) @ self.embedding.weight.mT
