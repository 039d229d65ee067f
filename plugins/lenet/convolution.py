"""A convolution as one matrix product, and the squashing function."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

A, S = 1.7159, 2 / 3  # equation 6: then f(1) = 1 and f(-1) = -1


def squash(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Equation 6: A tanh(S x). Second derivatives are refused."""
    return _Squash.apply(x)


class _Squash(torch.autograd.Function):
    """In one tensor, which is all that the gradient needs."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        y = (x * S).tanh_().mul_(A)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return (y * y).mul_(-S / A).add_(A * S).mul_(gradient)


def convolve(
    x: Float[Tensor, "batch maps_in height width"],
    weight: Float[Tensor, "maps maps_in kernel kernel"],
    bias: Float[Tensor, " maps"],
) -> Float[Tensor, "batch maps rows columns"]:
    """Each unit: the filter of its map times its window, all maps_in of them, plus its map's bias.

    rows = height - kernel + 1, columns likewise: `F.conv2d` without padding or stride. The result lies in
    memory row by row, the maps of a row together, as the next convolution wants it. Second derivatives are
    refused. Raises ValueError for an image that is smaller than the window.
    """
    if min(x.shape[2:]) < weight.shape[-1]:
        raise ValueError(f"a window of {weight.shape[-1]} on an image of {tuple(x.shape[2:])}")
    return _Convolve.apply(x, weight, bias)


def band(weight: Float[Tensor, "maps maps_in kernel kernel"], width: int) -> Float[Tensor, "inputs units"]:
    """What leads from `kernel` rows of the input to a row of units: each filter again at every column."""
    columns = width - weight.shape[-1] + 1
    # A filter's row and then zeros to width + 1, repeated, is one further right in each row of `width`.
    repeated = F.pad(weight, (0, columns))[:, :, :, None].expand(-1, -1, -1, columns, -1).flatten(3)
    shifted = repeated[..., : columns * width].unflatten(3, (columns, width))
    return shifted.permute(2, 1, 4, 0, 3).flatten(3).flatten(0, 2)


def unband(
    matrix: Float[Tensor, "inputs units"], shape: torch.Size, width: int
) -> Float[Tensor, "maps maps_in kernel kernel"]:
    """The sum over all places at which `band` puts a weight: its transpose, for the gradient."""
    maps, maps_in, kernel, _ = shape
    columns = width - kernel + 1
    shifted = matrix.view(kernel, maps_in, width, maps, columns).permute(3, 1, 0, 4, 2)
    repeated = F.pad(shifted.flatten(3), (0, columns)).unflatten(3, (columns, width + 1))
    return repeated[..., :kernel].sum(3)


class _Convolve(torch.autograd.Function):
    """One product for all rows of all images. A band matrix is mostly zeros, but on images as small as
    LeNet's to multiply by them costs less than to copy every window: what is copied is whole rows, each
    value `kernel` times and not its square."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (batch, maps_in, height, width), (maps, _, kernel, _) = x.shape, weight.shape
        rows, columns = height - kernel + 1, width - kernel + 1
        strips = x.transpose(1, 2).flatten(2).unfold(1, kernel, 1).transpose(2, 3)
        strips = strips.reshape(batch * rows, kernel * maps_in * width)
        matrix = band(weight, width)
        ctx.shapes = x.shape, weight.shape
        ctx.save_for_backward(strips, matrix)
        y = torch.addmm(bias.repeat_interleave(columns), strips, matrix)
        return y.view(batch, rows, maps, columns).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        strips, matrix = ctx.saved_tensors
        (batch, maps_in, height, width), shape = ctx.shapes
        rows, kernel = gradient.shape[2], shape[-1]
        gradient = gradient.transpose(1, 2).reshape(len(strips), matrix.shape[1])
        for_x = None
        if ctx.needs_input_grad[0]:
            for_strips = (gradient @ matrix.T).view(batch, rows, kernel, maps_in * width)
            for_x = gradient.new_zeros(batch, height, maps_in * width)
            for row in range(kernel):
                for_x[:, row : row + rows] += for_strips[:, :, row]
            for_x = for_x.unflatten(2, (maps_in, width)).transpose(1, 2)
        for_weight = unband(strips.T @ gradient, shape, width)
        for_bias = gradient.sum(0).view(shape[0], -1).sum(1)
        return for_x, for_weight, for_bias
