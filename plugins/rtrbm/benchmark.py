"""Times mean-field updates of a film, computed frame by frame, by the model, or as rows of one matrix."""

from collections.abc import Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import RTRBM

STEPS = 5  # number of mean-field updates


def frame_by_frame(frames: Tensor, W: Tensor, U: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """Update each frame five times before the next frame."""
    bias, found = hidden_bias, []
    for frame in frames.unbind(1):
        dreamed = frame
        for _ in range(STEPS):
            h = torch.sigmoid(dreamed @ W + bias)
            dreamed = torch.sigmoid(h @ W.T + visible_bias)
        found.append(dreamed)
        bias = hidden_bias + torch.sigmoid(frame @ W + bias) @ U.T
    return torch.stack(found, 1)


class MeanFields(RTRBM):
    def forward(self, frames: Tensor) -> Tensor:
        return self.gibbs(frames, self.biases(frames), STEPS, None)


def by_model(
    frames: Tensor,
    W: Tensor,
    U: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    *,
    model: MeanFields,
) -> Tensor:
    """Compute the biases of all frames, then update all frames at once."""
    biases = {"visible_bias": visible_bias, "hidden_bias": hidden_bias, "first_bias": hidden_bias}
    return cast(Tensor, functional_call(model, {"W": W, "U": U, **biases}, (frames,)))


def in_place(frames: Tensor, W: Tensor, U: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """Update all frames as rows of one matrix, with each bias fused into the matrix multiplication."""
    batch, time, visible = frames.shape
    bias, biases, back = hidden_bias.expand(batch, -1), [], W.T.contiguous()
    for seen in (frames.transpose(0, 1) @ W).unbind():
        biases.append(bias)
        bias = torch.addmm(hidden_bias, torch.sigmoid(seen + bias), U.T)
    stacked, rows = torch.cat(biases), frames.transpose(0, 1).reshape(-1, visible)
    for _ in range(STEPS):
        h = torch.addmm(stacked, rows, W).sigmoid_()
        rows = torch.addmm(visible_bias, h, back).sigmoid_()
    return rows.view(time, batch, visible).transpose(0, 1)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, visible, hidden = bench.pick(smoke=(2, 4, 3), quick=(32, 100, 100), full=(64, 900, 400))
    with torch.device("meta"):
        model = MeanFields(visible, hidden)
    for time in bench.pick(smoke=(3,), quick=(10, 50), full=(50, 200)):
        shapes = (visible, hidden), (hidden, hidden), (visible,), (hidden,)
        flops = 2 * batch * time * hidden * (visible + hidden + 2 * STEPS * visible)
        moved = 2 * batch * time * visible + hidden * (visible + hidden)
        yield Case(
            name="mean fields of a film",
            axes={"frames": time, "visible": visible, "hidden": hidden, "batch": batch},
            inputs=lambda generator, time=time, shapes=shapes: (
                torch.rand(batch, time, visible, generator=generator).round(),
                *(torch.randn(shape, generator=generator) * 0.1 for shape in shapes),
            ),
            variants=(
                Variant(name="frame by frame", role="naive", call=frame_by_frame),
                Variant(name="rows of one matrix", role="strong", call=in_place),
                Variant(name="biases first", role="paper", call=partial(by_model, model=model)),
            ),
            cost={"forward": Cost(flops=flops, bytes=moved * bench.dtype.itemsize)},
        )
