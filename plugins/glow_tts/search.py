"""Implements algorithm 1: monotonic alignment search for the most probable path of symbols and frames."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scores = Float[Tensor, "batch symbols frames"]
Lengths = Int[Tensor, " batch"]


@torch.no_grad()
@torch.compiler.disable
def search(scores: Scores, symbols: Lengths, frames: Lengths) -> Bool[Tensor, "batch symbols frames"]:
    """The symbol of each frame on the path with the largest sum of scores.

    A path begins with the first symbol in the first frame and ends with the last symbol in the last frame.
    From one frame to the next it stays or advances by one symbol, so every symbol has a frame. In a tie,
    backtracking stays on the current symbol. Half-precision scores are summed in float32.

    scores   finite scores of symbol i in frame j
    symbols  number of symbols of each row; scores beyond it and beyond `frames` are ignored

    Raises ValueError if a row has fewer frames than symbols.
    """
    if (frames < symbols).any():
        raise ValueError("a row has fewer frames than symbols, but every symbol needs a frame")
    # Computed on the CPU, like the paper's code. One numpy call per column takes a quarter of the time that
    # torch needs.
    half = scores.dtype in (torch.float16, torch.bfloat16)
    values = (scores.float() if half else scores).cpu().numpy()
    values = np.ascontiguousarray(values.transpose(2, 0, 1))
    length, batch, count = values.shape
    # An additional column of -inf before the first symbol.
    best = np.full((batch, count + 1), -np.inf, dtype=values.dtype)
    best[:, 1] = values[0, :, 0]
    moves = np.zeros(values.shape, dtype=bool)
    for frame in range(1, length):
        np.greater(best[:, :-1], best[:, 1:], out=moves[frame])
        best[:, 1:] = np.maximum(best[:, 1:], best[:, :-1]) + values[frame]
    paths = np.zeros(scores.shape, dtype=bool)
    for row, (last, end) in enumerate(zip(symbols.tolist(), frames.tolist(), strict=True)):
        symbol = last - 1
        for frame in range(end - 1, -1, -1):
            paths[row, symbol, frame] = True
            symbol -= moves[frame, row, symbol]
    return torch.from_numpy(paths).to(scores.device)


def divide(symbols: Lengths, frames: Lengths) -> Bool[Tensor, "batch symbols frames"]:
    """The path that divides each row's frames equally among its symbols, up to rounding."""
    frame = torch.arange(int(frames.max()))
    owner = (frame * symbols.unsqueeze(1)).div(frames.unsqueeze(1), rounding_mode="floor")
    inside = frame < frames.unsqueeze(1)
    paths = torch.zeros(len(symbols), int(symbols.max()), len(frame), dtype=torch.bool)
    return paths.scatter_(1, owner.clamp(max=paths.shape[1] - 1).unsqueeze(1), inside.unsqueeze(1))
