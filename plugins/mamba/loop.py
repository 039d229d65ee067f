"""The selective scan as a loop over time, the reference for all faster versions."""

import torch
from jaxtyping import Float
from torch import Tensor

Channels = Float[Tensor, "batch time channels"]
Diagonal = Float[Tensor, "channels order"]
Shared = Float[Tensor, "batch time order"]
State = Float[Tensor, "batch channels order"]
Coefficients = Float[Tensor, "batch time channels order"]


def discretise(x: Channels, delta: Channels, A: Diagonal, B: Shared) -> tuple[Coefficients, Coefficients]:
    """For each step, the factor that multiplies the state and the term added to it.

    Equation 4 has B̄ = (ΔA)⁻¹(e^{ΔA} - 1) ΔB. The authors' code keeps the first term of its series, as we do.
    """
    return (delta[..., None] * A).exp(), (delta * x)[..., None] * B[:, :, None]


def scan_loop(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State
) -> tuple[Channels, State]:
    """The slow reference. Returns the outputs and the state after the last step."""
    decays, drives = discretise(x, delta, A, B)
    outputs = []
    # `unbind`, because the backward pass of indexing a step would fill a tensor of full length.
    for decay, drive, readout in zip(decays.unbind(1), drives.unbind(1), C.unbind(1), strict=True):
        state = decay * state + drive
        outputs.append((state * readout[:, None]).sum(-1))
    return torch.stack(outputs, 1), state


def scan_again(inputs: tuple[Tensor, ...], doutputs: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiable gradients of `inputs` (None where not required), by autograd through `scan_loop`."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(scan_loop(*inputs), wanted, (doutputs, dstate), create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)
