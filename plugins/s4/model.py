"""HiPPO as a diagonal plus low-rank matrix, its kernel from Cauchy sums, the recurrence, and the layer.

Dimensions: batch, time, channels (one system each), order (state size), half (order / 2; complex coefficients
come in conjugate pairs, and one of each pair is stored).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from ..ssm import convolve, hippo_legs


class DPLR(NamedTuple):
    """x' = (Λ - P P*) x + B u with a diagonal Λ. One coefficient of each conjugate pair is stored."""

    lamb: Complex[Tensor, " half"]
    p: Complex[Tensor, " half"]
    b: Complex[Tensor, " half"]


def hippo_dplr(order: int) -> DPLR:
    """HiPPO-LegS as a `DPLR` system (theorem 1 and appendix C.1), in complex128.

    A + P Pᵀ with P_n = √(n + 1/2) is -1/2 on the diagonal and skew-symmetric elsewhere, so its eigenvectors
    are orthogonal. Raises ValueError if `order` is odd.
    """
    if order % 2:
        raise ValueError(f"the state size must be even, not {order}")
    a, b = hippo_legs(order)
    p = (torch.arange(order, dtype=torch.float64) + 0.5).sqrt()
    return diagonalised(-a, p, b)


def diagonalised(
    a: Float[Tensor, "order order"], p: Float[Tensor, " order"], b: Float[Tensor, " order"]
) -> DPLR:
    """Diagonalise a system whose A + P Pᵀ is a multiple of the identity plus a skew-symmetric matrix."""
    normal = a + p[:, None] * p
    shift = normal.diagonal().mean()
    skew = (normal - normal.T) / 2
    frequencies, basis = torch.linalg.eigh(skew * -1j)  # ascending: the upper half is positive
    half = len(p) // 2
    basis = basis[:, half:].conj().T
    return DPLR(
        torch.complex(shift.expand(half), frequencies[half:]), basis @ p.cdouble(), basis @ b.cdouble()
    )


Half = Complex[Tensor, "channels half"]
Kernel = Float[Tensor, "channels time"]
Steps = Float[Tensor, " channels"]


def whole(half: Complex[Tensor, "*some half"]) -> Complex[Tensor, "*some order"]:
    """Append the conjugates of the coefficients."""
    return torch.cat((half, half.conj()), -1)


def discretised(
    lamb: Half, p: Half, b: Half, step: Steps
) -> tuple[Complex[Tensor, "channels order order"], Complex[Tensor, "channels order"]]:
    """ā and b̄ from the bilinear method, as full matrices (appendix C.2 without its fast inverse)."""
    lamb, p, b = (whole(tensor) for tensor in (lamb, p, b))
    a = torch.diag_embed(lamb) - p[..., :, None] * p[..., None, :].conj()
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    half_step = step[:, None, None] / 2 * a
    right = torch.cat((identity + half_step, (step[:, None] * b)[..., None]), -1)
    solved = torch.linalg.solve(identity - half_step, right)
    return solved[..., :-1], solved[..., -1]


def kernel_by_powers(lamb: Half, p: Half, b: Half, c: Half, step: Steps, time: int) -> Kernel:
    """Equation 5: the kernel by definition, c ā^k b̄ for k = 0 .. time - 1."""
    a, state = discretised(lamb, p, b, step)
    c, values = whole(c), []
    for _ in range(time):
        values.append((c * state).sum(-1).real)
        state = (a @ state[..., None])[..., 0]
    return torch.stack(values, -1)


def kernel_by_cauchy(lamb: Half, p: Half, b: Half, c_tilde: Half, step: Steps, time: int) -> Kernel:
    """The kernel from c̃ = c (1 - ā^time) by algorithm 1, without powers of ā.

    At the roots of unity, the kernel's generating function consists of a few sums Σ_n v_n / (g - λ_n), by
    Woodbury's identity for the low-rank term. An inverse FFT gives the kernel.
    """
    angles = torch.arange(time // 2 + 1, dtype=step.dtype, device=step.device) * (-2 * math.pi / time)
    roots = torch.polar(torch.ones_like(angles), angles)
    # At z = -1, 2 / (1 + z) is infinite, so each fraction is multiplied through by 1 + z.
    nominator, denominator = 2 * (1 - roots), 1 + roots
    scaled = step[:, None] * whole(lamb)  # the poles, multiplied by the step size
    # The weights are 1 / (g - λ) / (1 + z) for each root and pole, with g = 2 (1 - z) / (step (1 + z)).
    weights = step[:, None, None] / (nominator[:, None] - denominator[:, None] * scaled[:, None, :])
    p, b, c = (whole(tensor) for tensor in (p, b, c_tilde))
    pairs = torch.stack((c * b, c * p, p.conj() * b, p.conj() * p), -1)
    k00, k01, k10, k11 = (weights @ pairs).unbind(-1)
    # Each k is a Cauchy sum divided by 1 + z, so the Woodbury term needs one factor of 1 + z.
    at_roots = 2 * (k00 - k01 * k10 * denominator / (1 + k11 * denominator))
    return torch.fft.irfft(at_roots, n=time)


def recurrent_c(lamb: Half, p: Half, b: Half, c_tilde: Half, step: Steps, time: int) -> Half:
    """The recurrence's c, computed from the c̃ of kernels with `time` samples."""
    a, _ = discretised(lamb, p, b, step)
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    c = torch.linalg.solve((identity - torch.linalg.matrix_power(a, time)).mT, whole(c_tilde)[..., None])
    return c[..., : c_tilde.shape[-1], 0]


class S4(nn.Module):
    """One HiPPO system for each channel, with step sizes spread evenly on a logarithmic scale.

    Λ (its real part stays negative), P, B, c̃, the step sizes and a skip connection D are learned. Computes
    in float32 or better, even under autocast.

    time  length of the kernels, and the largest sequence length
    """

    def __init__(self, channels: int, order: int, time: int, *, system: DPLR | None = None) -> None:
        super().__init__()
        self.time = time
        start = hippo_dplr(order) if system is None else system
        single = [torch.view_as_real(part.cfloat()).expand(channels, -1, -1).clone() for part in start]
        self.log_decay = nn.Parameter((-single[0][..., 0]).log())
        self.frequency = nn.Parameter(single[0][..., 1])
        self.p, self.b = nn.Parameter(single[1]), nn.Parameter(single[2])
        self.c_tilde = nn.Parameter(torch.randn(channels, order // 2, 2) * 0.5**0.5)
        self.log_step = nn.Parameter(torch.linspace(math.log(0.001), math.log(0.1), channels))
        self.bypass = nn.Parameter(torch.ones(channels))

    def system(self) -> tuple[Half, Half, Half, Half, Steps]:
        """Λ, P, B, c̃ and the step sizes."""
        single = torch.promote_types(self.log_step.dtype, torch.float32)
        lamb = torch.complex(-self.log_decay.to(single).exp(), self.frequency.to(single))
        p, b, c = (
            torch.view_as_complex(part.to(single).contiguous()) for part in (self.p, self.b, self.c_tilde)
        )
        return lamb, p, b, c, self.log_step.to(single).exp()

    def forward(self, u: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time channels"]:
        """One convolution. Raises ValueError if the sequence is longer than the layer's kernels."""
        if u.shape[1] > self.time:
            raise ValueError(f"the sequence has {u.shape[1]} samples, but the kernels have only {self.time}")
        with torch.autocast(u.device.type, enabled=False):
            kernel = kernel_by_cauchy(*self.system(), self.time)[:, : u.shape[1]]
            return (convolve(u.mT.to(kernel.dtype), kernel).mT + self.bypass * u).to(u.dtype)

    def recurrence(self) -> "Recurrence":
        """The same function as a recurrence, with a copy of the current weights."""
        with torch.no_grad():
            lamb, p, b, c_tilde, step = self.system()
            c = recurrent_c(lamb, p, b, c_tilde, step, self.time)
            return Recurrence.of(lamb, p, b, c, step, self.bypass.detach().to(step))


class Recurrence(NamedTuple):
    """x_k = ā x_{k-1} + b̄ u_k, y_k = c x_k + D u_k, in O(order) per step (appendix C.2).

    With r = 2 / step, ā = (r - Λ + P P*)⁻¹ (r + Λ - P P*). The inverse is D - q P* D with D = 1 / (r - Λ) and
    q = D P / (1 + P* D P). The compute and memory of a step do not grow with the length of the past.
    """

    plus: Half  # r + Λ
    inverse: Half  # D
    p: Half
    q: Half
    b: Half  # b̄
    c: Half  # twice c, because each coefficient also stands for its conjugate
    bypass: Steps

    @classmethod
    def of(cls, lamb: Half, p: Half, b: Half, c: Half, step: Steps, bypass: Steps) -> "Recurrence":
        r = 2 / step[:, None]
        inverse = 1 / (r - lamb)
        q = inverse * p / (1 + paired(p.conj() * inverse * p))
        solved = 2 * (inverse * b - q * paired(p.conj() * inverse * b))
        return cls(r + lamb, inverse, p, q, solved, 2 * c, bypass)

    def empty(self, batch: int) -> Complex[Tensor, "batch channels half"]:
        return self.b.new_zeros(batch, *self.b.shape)

    def step(
        self, u: Float[Tensor, "batch channels"], state: Complex[Tensor, "batch channels half"]
    ) -> tuple[Float[Tensor, "batch channels"], Complex[Tensor, "batch channels half"]]:
        conjugate = self.p.conj()
        grown = self.inverse * (self.plus * state - self.p * paired(conjugate * state))
        state = grown - self.q * paired(conjugate * grown) + self.b * u[..., None]
        return (self.c * state).sum(-1).real + self.bypass * u, state


def paired(half: Complex[Tensor, "*some half"]) -> Float[Tensor, "*some 1"]:
    """The sum over all coefficients and their conjugates, which is real."""
    return 2 * half.real.sum(-1, keepdim=True)
