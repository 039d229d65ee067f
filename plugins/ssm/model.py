"""Implements the HiPPO matrix and memory, discretisation, the views of a linear system, and the layer."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Matrix = Float[Tensor, "*systems order order"]
Vector = Float[Tensor, "*systems order"]
Signal = Float[Tensor, "*signals time"]  # one signal for each system, or batches of signals


def hippo_legs(order: int) -> tuple[Float[Tensor, "order order"], Float[Tensor, " order"]]:
    """A and B of Theorem 2, in float64: dc/dt = -A c / t + B f / t for the coefficients c of the past of f.

    A is lower triangular, and its eigenvalues 1, 2, ..., order are on the diagonal.
    """
    root = (2 * torch.arange(order, dtype=torch.float64) + 1).sqrt()
    diagonal = torch.arange(1, order + 1, dtype=torch.float64).diag()
    return (root[:, None] * root).tril(-1) + diagonal, root


def legs_memory(order: int, time: int) -> Float[Tensor, "order time"]:
    """The matrix that maps `time` samples, over any span, to the state after the last sample.

    Solves the equation of Theorem 2 by the bilinear method, one of the methods in the paper. The step 1/k
    shrinks as the past grows.
    """
    a, b = hippo_legs(order)
    identity = torch.eye(order, dtype=torch.float64)
    memory = torch.zeros(order, time, dtype=torch.float64)
    for k in range(1, time + 1):
        if k > 1:
            memory = memory - a @ memory / (2 * (k - 1))
        memory[:, k - 1] += b / k
        memory = torch.linalg.solve_triangular(identity + a / (2 * k), memory, upper=False)
    return memory


def legendre(order: int, time: int) -> Float[Tensor, "time order"]:
    """The matrix that reconstructs `time` samples from a state: Legendre polynomials at the samples'
    midpoints.

    The polynomials are √(2n+1) P_n on [0, 1], by Bonnet's recurrence.
    """
    x = (torch.arange(time, dtype=torch.float64) + 0.5) / time * 2 - 1
    polynomials = [torch.ones_like(x), x]
    for n in range(1, order - 1):
        polynomials.append(((2 * n + 1) * x * polynomials[n] - n * polynomials[n - 1]) / (n + 1))
    return torch.stack([math.sqrt(2 * n + 1) * p for n, p in enumerate(polynomials[:order])], 1)


def bilinear(a: Matrix, b: Vector, step: Float[Tensor, "*#systems"]) -> tuple[Matrix, Vector]:
    """Discretise dx/dt = a x + b u to x_k = ā x_{k-1} + b̄ u_k by the trapezoid rule (Tustin's method)."""
    half = step[..., None, None] / 2 * a
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    right = torch.cat((identity + half, (step[..., None] * b)[..., None]), -1)
    solved = torch.linalg.solve(identity - half, right)
    return solved[..., :-1], solved[..., -1]


def zero_order_hold(a: Matrix, b: Vector, step: Float[Tensor, "*#systems"]) -> tuple[Matrix, Vector]:
    """Discretise dx/dt = a x + b u to x_k = ā x_{k-1} + b̄ u_k, exactly for an input constant over a step."""
    # One exponential gives e^{step a} and a⁻¹(e^{step a} - 1) b, so `a` need not be invertible.
    block = F.pad(torch.cat((a, b[..., None]), -1), (0, 0, 0, 1)) * step[..., None, None]
    exponential = torch.linalg.matrix_exp(block)
    return exponential[..., :-1, :-1], exponential[..., :-1, -1]


def hold_diagonal(
    a: Float[Tensor, "*#systems"], b: Float[Tensor, "*#systems"], step: Float[Tensor, "*#systems"]
) -> tuple[Float[Tensor, "*systems"], Float[Tensor, "*systems"]]:
    """`zero_order_hold` for systems with one coefficient each, as with a diagonal matrix. `a` is nonzero."""
    return (step * a).exp(), (step * a).expm1() / a * b


def recurrence(a: Matrix, b: Vector, c: Vector, u: Signal) -> Signal:
    """The view for inference: x_k = ā x_{k-1} + b̄ u_k, y_k = c·x_k, from x = 0 (2110.13985, section 3.1)."""
    state, outputs = torch.zeros_like(b * u[..., :1]), []
    for sample in u.unbind(-1):
        state = (state[..., None, :] @ a.mT)[..., 0, :] + b * sample[..., None]
        outputs.append((c * state).sum(-1))
    return torch.stack(outputs, -1)


def kernel(a: Matrix, b: Vector, c: Vector, time: int) -> Float[Tensor, "*systems {time}"]:
    """c·ā^k b̄ for k = 0 .. time - 1: the impulse response of the system."""
    # Multiplying the first m vectors ā^k b̄ by the matrix ā^m gives the next m vectors.
    vectors, power = b[..., None], a
    while vectors.shape[-1] < time:
        if vectors.shape[-1] > 1:
            power = power @ power
        more = time - vectors.shape[-1]
        vectors = torch.cat((vectors, power @ vectors[..., :more]), -1)
    return (c[..., None, :] @ vectors)[..., 0, :]


def convolve(u: Signal, response: Float[Tensor, "*#systems time"]) -> Signal:
    """The view for training: y_k = Σ_j response_j u_{k-j}, for all steps at once in O(time log time)."""
    time, dtype = u.shape[-1], torch.promote_types(u.dtype, torch.float32)
    spectra = (torch.fft.rfft(signal.to(dtype), n=2 * time) for signal in (u, response))
    return torch.fft.irfft(math.prod(spectra), n=2 * time)[..., :time].to(u.dtype)


class StateSpace(nn.Module):
    """One system per channel: the HiPPO matrix with a learned step, a learned readout, and a skip connection.

    Initial steps are between 1/1000 and 1/10, evenly spaced on a logarithmic scale. Computes in float32 or
    better, even under autocast, because powers of a matrix need this precision.
    """

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        a, b = hippo_legs(order)
        self.register_buffer("a", -a.float())
        self.register_buffer("b", b.float())
        self.log_step = nn.Parameter(torch.linspace(math.log(0.001), math.log(0.1), channels))
        self.c = nn.Parameter(torch.randn(channels, order) / order)
        self.bypass = nn.Parameter(torch.ones(channels))

    def system(
        self,
    ) -> tuple[
        Float[Tensor, "channels order order"],
        Float[Tensor, "channels order"],
        Float[Tensor, "channels order"],
    ]:
        """ā, b̄ and c of every channel."""
        channels, precision = len(self.c), torch.promote_types(self.c.dtype, torch.float32)
        a, b = (tensor.to(precision).expand(channels, *tensor.shape) for tensor in (self.a, self.b))
        return *bilinear(a, b, self.log_step.to(precision).exp()), self.c.to(precision)

    def forward(
        self, u: Float[Tensor, "batch time channels"], *, recurrent: bool = False
    ) -> Float[Tensor, "batch time channels"]:
        """Compute the output by convolution, or by the recurrence, which gives the same result."""
        with torch.autocast(u.device.type, enabled=False):
            a, b, c = self.system()
            signal = u.mT.to(a.dtype)
            y = recurrence(a, b, c, signal) if recurrent else convolve(signal, kernel(a, b, c, u.shape[1]))
            return (y.mT + self.bypass * u).to(u.dtype)
