"""The selective scan as the paper writes it, one step after the other: the reference for all faster ones."""

import torch
from jaxtyping import Float
from torch import Tensor

Channels = Float[Tensor, "batch time channels"]
Diagonal = Float[Tensor, "channels order"]
Shared = Float[Tensor, "batch time order"]
State = Float[Tensor, "batch channels order"]
Coefficients = Float[Tensor, "batch time channels order"]


def discretise(x: Channels, delta: Channels, A: Diagonal, B: Shared) -> tuple[Coefficients, Coefficients]:
    """What each step multiplies the state by, and what it adds to it.

    Equation 4 has B̄ = (ΔA)⁻¹(e^{ΔA} - 1) ΔB; the authors' code takes its first term, and so do we.
    """
    return (delta[..., None] * A).exp(), (delta * x)[..., None] * B[:, :, None]


def scan_loop(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State
) -> tuple[Channels, State]:
    """The slow reference: outputs, and the state after the last step."""
    decays, drives = discretise(x, delta, A, B)
    outputs = []
    # Unbound: to index a step would make its backward pass fill a tensor of full length.
    for decay, drive, readout in zip(decays.unbind(1), drives.unbind(1), C.unbind(1), strict=True):
        state = decay * state + drive
        outputs.append((state * readout[:, None]).sum(-1))
    return torch.stack(outputs, 1), state


def scan_again(inputs: tuple[Tensor, ...], doutputs: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of those of `inputs` that have one, by autograd through `scan_loop`, and their graph."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(scan_loop(*inputs), wanted, (doutputs, dstate), create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)
