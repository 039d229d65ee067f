"""The selective scan as Triton kernels. The states live in registers and never reach main memory.

A program handles a block of channels of one sequence and steps through time (section 3.3.2: discretisation
and recurrence happen in fast memory, and only the outputs are written to slow memory). The forward pass saves
the state at the start of each chunk. The backward pass visits the chunks from last to first: it recomputes a
chunk's states into the program's own scratch buffer, then walks back through them. B and C are shared by all
channels, so each block writes a partial gradient and the partial gradients are summed afterwards, which keeps
the result deterministic.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .loop import scan_again

BLOCK, CHUNK = 32, 32


@triton.jit
def forward_kernel(
    x, delta, A, B, C, start, outputs, last, kept,
    TIME, CHANNELS, ORDER, CHUNKS,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    coefficient = tl.arange(0, WIDTH)
    row, column = channel < CHANNELS, coefficient < ORDER
    tile = channel[:, None] * ORDER + coefficient[None, :]
    inside = row[:, None] & column[None, :]
    states = CHANNELS * ORDER

    A_n = tl.load(A + tile, mask=inside, other=0.0)
    state = tl.load(start + sequence * states + tile, mask=inside, other=0.0)
    for t in range(TIME):
        if t % CHUNK == 0:
            tl.store(kept + (sequence * CHUNKS + t // CHUNK) * states + tile, state, mask=inside)
        at = sequence * TIME + t
        delta_t = tl.load(delta + at * CHANNELS + channel, mask=row, other=0.0)
        x_t = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
        B_t = tl.load(B + at * ORDER + coefficient, mask=column, other=0.0)
        C_t = tl.load(C + at * ORDER + coefficient, mask=column, other=0.0)
        state = tl.exp(delta_t[:, None] * A_n) * state + (delta_t * x_t)[:, None] * B_t[None, :]
        tl.store(outputs + at * CHANNELS + channel, tl.sum(state * C_t[None, :], 1), mask=row)
    tl.store(last + sequence * states + tile, state, mask=inside)


@triton.jit
def backward_kernel(
    x, delta, A, B, C, kept, doutputs, dlast, scratch,
    dx, ddelta, dA, dB, dC, dstart,
    TIME, CHANNELS, ORDER, CHUNKS, BLOCKS,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    sequence, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    program = sequence * BLOCKS + block
    lane, coefficient = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    channel = block * BLOCK + lane
    row, column = channel < CHANNELS, coefficient < ORDER
    tile = channel[:, None] * ORDER + coefficient[None, :]
    inside = row[:, None] & column[None, :]
    states = CHANNELS * ORDER
    own = scratch + program * CHUNK * BLOCK * WIDTH + lane[:, None] * WIDTH + coefficient[None, :]

    A_n = tl.load(A + tile, mask=inside, other=0.0)
    dstate = tl.load(dlast + sequence * states + tile, mask=inside, other=0.0)
    dA_n = tl.zeros_like(A_n)
    for reverse in range(CHUNKS):
        chunk = CHUNKS - 1 - reverse
        first = chunk * CHUNK
        count = tl.minimum(CHUNK, TIME - first)
        state = tl.load(kept + (sequence * CHUNKS + chunk) * states + tile, mask=inside, other=0.0)
        for k in range(count):
            tl.store(own + k * BLOCK * WIDTH, state)  # the state before step k
            at = sequence * TIME + first + k
            delta_t = tl.load(delta + at * CHANNELS + channel, mask=row, other=0.0)
            x_t = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
            B_t = tl.load(B + at * ORDER + coefficient, mask=column, other=0.0)
            state = tl.exp(delta_t[:, None] * A_n) * state + (delta_t * x_t)[:, None] * B_t[None, :]
        tl.debug_barrier()
        for back in range(count):
            k = count - 1 - back
            at = sequence * TIME + first + k
            delta_t = tl.load(delta + at * CHANNELS + channel, mask=row, other=0.0)
            x_t = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
            arriving = tl.load(doutputs + at * CHANNELS + channel, mask=row, other=0.0)
            B_t = tl.load(B + at * ORDER + coefficient, mask=column, other=0.0)
            C_t = tl.load(C + at * ORDER + coefficient, mask=column, other=0.0)
            before = tl.load(own + k * BLOCK * WIDTH)
            decay = tl.exp(delta_t[:, None] * A_n)
            now = decay * before + (delta_t * x_t)[:, None] * B_t[None, :]
            part = (program * TIME + first + k) * ORDER + coefficient
            tl.store(dC + part, tl.sum(arriving[:, None] * now, 0), mask=column)
            dstate += arriving[:, None] * C_t[None, :]
            tl.store(dB + part, tl.sum((delta_t * x_t)[:, None] * dstate, 0), mask=column)
            ddrive = tl.sum(dstate * B_t[None, :], 1)
            dstate *= decay
            exponent = dstate * before
            dA_n += exponent * delta_t[:, None]
            tl.store(dx + at * CHANNELS + channel, delta_t * ddrive, mask=row)
            ddelta_t = x_t * ddrive + tl.sum(exponent * A_n, 1)
            tl.store(ddelta + at * CHANNELS + channel, ddelta_t, mask=row)
        tl.debug_barrier()
    tl.store(dA + sequence * states + tile, dA_n, mask=inside)
    tl.store(dstart + sequence * states + tile, dstate, mask=inside)


class TritonScan(torch.autograd.Function):
    """`scan_loop` for contiguous float32 or float64 tensors. Double backward goes through autograd."""

    @staticmethod
    def forward(
        ctx, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, time, channels = x.shape
        order, chunks = A.shape[1], triton.cdiv(time, CHUNK)
        outputs, last = torch.empty_like(x), torch.empty_like(state)
        kept = x.new_empty(batch, chunks, channels, order)
        sizes = {"CHUNK": CHUNK, "BLOCK": BLOCK, "WIDTH": triton.next_power_of_2(order)}
        grid = batch, triton.cdiv(channels, BLOCK)
        forward_kernel[grid](
            x, delta, A, B, C, state, outputs, last, kept, time, channels, order, chunks, **sizes
        )
        ctx.save_for_backward(x, delta, A, B, C, state, kept)
        ctx.sizes = sizes
        return outputs, last

    @staticmethod
    def backward(ctx, doutputs: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # double backward
            return scan_again(tuple(inputs), doutputs, dlast)
        x, delta, A, B, C, _ = inputs
        batch, time, channels = x.shape
        order, blocks = A.shape[1], triton.cdiv(channels, BLOCK)
        scratch = x.new_empty(batch, blocks, CHUNK, BLOCK, ctx.sizes["WIDTH"])
        dx, ddelta = torch.empty_like(x), torch.empty_like(delta)
        dA, dstart = torch.empty_like(dlast), torch.empty_like(dlast)
        dB, dC = (x.new_empty(batch, blocks, time, order) for _ in range(2))
        backward_kernel[batch, blocks](
            x, delta, A, B, C, kept, doutputs.contiguous(), dlast.contiguous(), scratch,
            dx, ddelta, dA, dB, dC, dstart, time, channels, order, kept.shape[1], blocks, **ctx.sizes,
        )  # fmt: skip
        return dx, ddelta, dA.sum(0), dB.sum(1), dC.sum(1), dstart
