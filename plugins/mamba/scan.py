"""Four versions of the selective scan, h_t = e^{Δ_t A} h_{t-1} + Δ_t B_t x_t and y_t = C_t·h_t.

`scan_loop`, in `loop`, is the recurrence as written. `scan_chunked` runs all chunks of the sequence in
parallel, then passes the states from chunk to chunk. `scan_associative` combines neighbours in a tree. Both
do more work in fewer steps. The model uses `selective_scan`: the recurrence with only one chunk's states at a
time in fast memory, recomputed in the backward pass (section 3.3.2), in PyTorch or, on a GPU, in Triton.

Dimensions: batch, time, channels, order (state size per channel, the paper's N). Channels have their own x, Δ
(`delta`) and row of A (a diagonal matrix), and share B and C.
"""

import importlib.util
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .loop import Channels, Coefficients, Diagonal, Shared, State, discretise, scan_again

# State entries per chunk: 1 MiB of float32, which stays in a core's cache.
CHUNK_NUMBERS = 2**18


def scan_chunked(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State, *, size: int | None = None
) -> tuple[Channels, State]:
    """Scan chunks of `size` steps (default √time) in parallel, then pass the state from chunk to chunk."""
    time = x.shape[1]
    size = size or math.ceil(math.sqrt(time))
    rest = 0, 0, 0, 0, 0, -time % size
    decays, drives = discretise(x, delta, A, B)
    decays = F.pad(decays, rest, value=1.0).unflatten(1, (-1, size))
    drives = F.pad(drives, rest).unflatten(1, (-1, size))
    here, product = torch.zeros_like(drives[:, :, 0]), torch.ones_like(drives[:, :, 0])
    states, products = [], []
    for decay, drive in zip(decays.unbind(2), drives.unbind(2), strict=True):
        here, product = decay * here + drive, decay * product
        states.append(here)
        products.append(product)
    entering = []
    for chunk_end, chunk_product in zip(here.unbind(1), product.unbind(1), strict=True):
        entering.append(state)
        state = chunk_product * state + chunk_end
    arrived = torch.stack(products, 2) * torch.stack(entering, 1)[:, :, None]
    every = (torch.stack(states, 2) + arrived).flatten(1, 2)[:, :time]
    return read(every, C), state


def scan_associative(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State
) -> tuple[Channels, State]:
    """Pairs (decay, drive) compose associatively, so all prefixes form a tree of depth 2 log₂ time."""
    decays, drives = discretise(x, delta, A, B)
    first = drives[:, :1] + decays[:, :1] * state[:, None]
    states = prefixes(decays, torch.cat((first, drives[:, 1:]), 1))
    return read(states, C), states[:, -1]


def prefixes(decay: Coefficients, drive: Coefficients) -> Coefficients:
    """All h_t = decay_t h_{t-1} + drive_t from a zero state (Blelloch 1990), at twice the work of a loop."""
    time = drive.shape[1]
    if time == 1:
        return drive
    pairs = time // 2
    odd_decay, odd_drive = decay[:, 1::2], drive[:, 1::2]
    odd = prefixes(odd_decay * decay[:, : 2 * pairs : 2], odd_decay * drive[:, : 2 * pairs : 2] + odd_drive)
    later = drive[:, 2::2] + decay[:, 2::2] * odd[:, : (time - 1) // 2]
    even = torch.cat((drive[:, :1], later), 1)
    woven = torch.stack((even[:, :pairs], odd), 2).flatten(1, 2)
    return woven if time % 2 == 0 else torch.cat((woven, even[:, -1:]), 1)


def read(states: Coefficients, C: Shared) -> Channels:
    return (states @ C[..., None])[..., 0]


class SelectiveScan(torch.autograd.Function):
    """The recurrence in chunks whose states fit in cache. Saves one state per chunk for the backward pass.

    Internally time is the first axis, so each step is contiguous in memory. Double backward goes through
    autograd on `scan_loop`.
    """

    @staticmethod
    def forward(
        ctx, x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State, size: int
    ) -> tuple[Channels, State]:
        outputs, starts = torch.empty_like(x), []
        for start in range(0, x.shape[1], size):
            chunk = slice(start, start + size)
            starts.append(state)
            _, states = chunk_states(x[:, chunk], delta[:, chunk], A, B[:, chunk], state)
            readout = C[:, chunk].transpose(0, 1)[..., None]
            outputs[:, chunk] = (states @ readout)[..., 0].transpose(0, 1)
            state = states[-1].clone()
        ctx.save_for_backward(x, delta, A, B, C, *starts)
        ctx.size = size
        return outputs, state

    @staticmethod
    def backward(ctx, doutputs: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
        x, delta, A, B, C, *starts = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward
            return *scan_again((x, delta, A, B, C, starts[0]), doutputs, dstate), None
        dx, ddelta, dB, dC = (torch.empty_like(tensor) for tensor in (x, delta, B, C))
        dA = torch.zeros_like(A)
        for index in reversed(range(len(starts))):
            chunk = slice(index * ctx.size, (index + 1) * ctx.size)
            x_t, delta_t, B_t, C_t, dout = (
                tensor[:, chunk].transpose(0, 1) for tensor in (x, delta, B, C, doutputs)
            )
            decays, states = chunk_states(x[:, chunk], delta[:, chunk], A, B[:, chunk], starts[index])
            dC[:, chunk] = (dout[:, :, None] @ states)[:, :, 0].transpose(0, 1)
            # The same recurrence backwards: the gradient of a state is the sum of the gradients that come
            # from its readout and from the next state.
            dstates = dout[..., None] * C_t[..., None, :]
            gradient, decay = dstates.unbind(), decays.unbind()
            gradient[-1].add_(dstate)
            for t in reversed(range(len(gradient) - 1)):
                gradient[t].addcmul_(decay[t + 1], gradient[t + 1])
            dstate = decay[0] * gradient[0]

            ddrive = (dstates @ B_t[..., None])[..., 0]
            dB[:, chunk] = ((delta_t * x_t)[:, :, None] @ dstates)[:, :, 0].transpose(0, 1)
            exponent = dstates.mul_(decays)  # the gradient of Δ A, once multiplied by the previous state
            exponent[1:].mul_(states[:-1])
            exponent[0].mul_(starts[index])
            dA += (exponent * delta_t[..., None]).sum((0, 1))
            dx[:, chunk] = (delta_t * ddrive).transpose(0, 1)
            ddelta[:, chunk] = (x_t * ddrive + torch.einsum("tbcn,cn->tbc", exponent, A)).transpose(0, 1)
        return dx, ddelta, dA, dB, dC, dstate, None


def chunk_states(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, state: State
) -> tuple[Float[Tensor, "time batch channels order"], Float[Tensor, "time batch channels order"]]:
    """Decays and states of all steps of a chunk that starts from `state`. Time is the first axis."""
    x, delta, B = (tensor.transpose(0, 1) for tensor in (x, delta, B))
    decays = (delta[..., None] * A).exp_()
    states = (delta * x)[..., None] * B[:, :, None]
    for decay, here in zip(decays.unbind(), states.unbind(), strict=True):
        state = here.addcmul_(decay, state)
    return decays, states


def selective_scan(
    x: Channels, delta: Channels, A: Diagonal, B: Shared, C: Shared, state: State | None = None
) -> tuple[Channels, State]:
    """The fastest version for the device of `x`. Returns outputs in x's precision and the last state.

    Computes in float32 or wider, even under autocast, because a state sums many small steps. The returned
    state keeps that precision. `state` is the initial state, zeros by default.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    if state is None:
        state = x.new_zeros(len(x), *A.shape)
    with torch.autocast(x.device.type, enabled=False):
        inputs = [tensor.to(precision) for tensor in (x, delta, A, B, C, state)]
        if x.is_cuda and importlib.util.find_spec("triton"):
            from .kernel import TritonScan

            outputs, state = TritonScan.apply(*(tensor.contiguous() for tensor in inputs))
        else:
            size = min(max(1, CHUNK_NUMBERS // state.numel()), x.shape[1])
            outputs, state = SelectiveScan.apply(*inputs, size)
    return outputs.to(x.dtype), state
