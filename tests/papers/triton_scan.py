"""Run by `test_mamba` with TRITON_INTERPRET=1: compares the kernels' results and gradients with the
loop's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.testing import assert_close

import readtrack.papers

readtrack.papers.__path__ = [str(Path(__file__).parents[2] / "plugins")]

from readtrack.papers.mamba import kernel, scan_inputs, scan_loop  # noqa: E402


def results_and_gradients(scan, inputs):
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    results = scan(*leaves)
    generator = torch.Generator().manual_seed(1)
    arriving = [torch.randn(out.shape, generator=generator).to(out) for out in results]
    return *results, *torch.autograd.grad(results, leaves, arriving)


# Odd sizes, so that every mask and a partial chunk are used, and chunks and blocks of matching size.
kernel.BLOCK, kernel.CHUNK = 4, 4
for batch, time, channels, order in ((2, 6, 6, 3), (1, 4, 4, 4)):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        generator = torch.Generator().manual_seed(0)
        inputs = scan_inputs(generator, batch, time, channels, order)
        state = torch.randn(batch, channels, order, generator=generator)
        inputs = [tensor.to(dtype) for tensor in (*inputs, state)]
        ours = results_and_gradients(kernel.TritonScan.apply, inputs)
        for mine, exact in zip(ours, results_and_gradients(scan_loop, inputs), strict=True):
            assert_close(mine, exact, rtol=tolerance, atol=tolerance)
print("equal")
