"""The selective scan as GPU kernels, in Triton: the states live in registers and never see main memory.

A program takes a block of channels of one sequence and walks through time with their states (section 3.3.2:
discretisation and recurrence happen in fast memory, and only the outputs are written to slow memory). Forward
keeps the state at the start of each chunk. Backward goes through the chunks from the last: it computes a
chunk's states again into a scratch buffer of the program's own, then walks back. What all channels share (B,
C) gets its gradient in one part for each block, which are summed afterwards: nothing depends on who comes
first.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK, CHUNK = 32, 32


@triton.jit
def forward_kernel(
    x, step, a, b, c, start, outputs, last, kept,
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

    rate = tl.load(a + tile, mask=inside, other=0.0)
    state = tl.load(start + sequence * states + tile, mask=inside, other=0.0)
    for t in range(TIME):
        if t % CHUNK == 0:
            tl.store(kept + (sequence * CHUNKS + t // CHUNK) * states + tile, state, mask=inside)
        at = sequence * TIME + t
        width = tl.load(step + at * CHANNELS + channel, mask=row, other=0.0)
        signal = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
        into = tl.load(b + at * ORDER + coefficient, mask=column, other=0.0)
        out = tl.load(c + at * ORDER + coefficient, mask=column, other=0.0)
        state = tl.exp(width[:, None] * rate) * state + (width * signal)[:, None] * into[None, :]
        tl.store(outputs + at * CHANNELS + channel, tl.sum(state * out[None, :], 1), mask=row)
    tl.store(last + sequence * states + tile, state, mask=inside)


@triton.jit
def backward_kernel(
    x, step, a, b, c, kept, doutputs, dlast, scratch,
    dx, dstep, da, db, dc, dstart,
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

    rate = tl.load(a + tile, mask=inside, other=0.0)
    dstate = tl.load(dlast + sequence * states + tile, mask=inside, other=0.0)
    drate = tl.zeros_like(rate)
    for reverse in range(CHUNKS):
        chunk = CHUNKS - 1 - reverse
        first = chunk * CHUNK
        count = tl.minimum(CHUNK, TIME - first)
        state = tl.load(kept + (sequence * CHUNKS + chunk) * states + tile, mask=inside, other=0.0)
        for k in range(count):
            tl.store(own + k * BLOCK * WIDTH, state)  # the state before step k
            at = sequence * TIME + first + k
            width = tl.load(step + at * CHANNELS + channel, mask=row, other=0.0)
            signal = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
            into = tl.load(b + at * ORDER + coefficient, mask=column, other=0.0)
            state = tl.exp(width[:, None] * rate) * state + (width * signal)[:, None] * into[None, :]
        tl.debug_barrier()
        for back in range(count):
            k = count - 1 - back
            at = sequence * TIME + first + k
            width = tl.load(step + at * CHANNELS + channel, mask=row, other=0.0)
            signal = tl.load(x + at * CHANNELS + channel, mask=row, other=0.0)
            arriving = tl.load(doutputs + at * CHANNELS + channel, mask=row, other=0.0)
            into = tl.load(b + at * ORDER + coefficient, mask=column, other=0.0)
            out = tl.load(c + at * ORDER + coefficient, mask=column, other=0.0)
            before = tl.load(own + k * BLOCK * WIDTH)
            decay = tl.exp(width[:, None] * rate)
            now = decay * before + (width * signal)[:, None] * into[None, :]
            part = (program * TIME + first + k) * ORDER + coefficient
            tl.store(dc + part, tl.sum(arriving[:, None] * now, 0), mask=column)
            dstate += arriving[:, None] * out[None, :]
            tl.store(db + part, tl.sum((width * signal)[:, None] * dstate, 0), mask=column)
            ddrive = tl.sum(dstate * into[None, :], 1)
            dstate *= decay
            exponent = dstate * before
            drate += exponent * width[:, None]
            tl.store(dx + at * CHANNELS + channel, width * ddrive, mask=row)
            dwidth = signal * ddrive + tl.sum(exponent * rate, 1)
            tl.store(dstep + at * CHANNELS + channel, dwidth, mask=row)
        tl.debug_barrier()
    tl.store(da + sequence * states + tile, drate, mask=inside)
    tl.store(dstart + sequence * states + tile, dstate, mask=inside)


class TritonScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, time, channels = x.shape
        order, chunks = a.shape[1], triton.cdiv(time, CHUNK)
        outputs, last = torch.empty_like(x), torch.empty_like(state)
        kept = x.new_empty(batch, chunks, channels, order)
        sizes = {"CHUNK": CHUNK, "BLOCK": BLOCK, "WIDTH": triton.next_power_of_2(order)}
        grid = batch, triton.cdiv(channels, BLOCK)
        forward_kernel[grid](
            x, step, a, b, c, state, outputs, last, kept, time, channels, order, chunks, **sizes
        )
        ctx.save_for_backward(x, step, a, b, c, kept)
        ctx.sizes = sizes
        return outputs, last

    @staticmethod
    @once_differentiable
    def backward(ctx, doutputs: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
        x, step, a, b, c, kept = ctx.saved_tensors
        batch, time, channels = x.shape
        order, blocks = a.shape[1], triton.cdiv(channels, BLOCK)
        scratch = x.new_empty(batch, blocks, CHUNK, BLOCK, ctx.sizes["WIDTH"])
        dx, dstep = torch.empty_like(x), torch.empty_like(step)
        da, dstart = torch.empty_like(dlast), torch.empty_like(dlast)
        db, dc = (x.new_empty(batch, blocks, time, order) for _ in range(2))
        backward_kernel[batch, blocks](
            x, step, a, b, c, kept, doutputs.contiguous(), dlast.contiguous(), scratch,
            dx, dstep, da, db, dc, dstart, time, channels, order, kept.shape[1], blocks, **ctx.sizes,
        )  # fmt: skip
        return dx, dstep, da.sum(0), db.sum(1), dc.sum(1), dstart


def triton_scan(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """`scan_loop`, in float32 (or float64) inside and in x's dtype outside."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    outputs, last = TritonScan.apply(*(tensor.to(dtype).contiguous() for tensor in (x, step, a, b, c, state)))
    return outputs.to(x.dtype), last.to(state.dtype)
