"""Implements the backward pass through a plain network: the deconvnet, and the gradient for comparison.

A deconvnet (section 2.1) goes back through the transposed filters, puts values at the positions that
max-pooling chose, and applies a ReLU to them. It depends on the weights and the switches, but not on which
ReLUs were active in the forward pass. The gradient depends on the active ReLUs, but applies no ReLU to the
signal.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch maps rows columns"]
Maps = Float[Tensor, "batch outputs down across"]
Rule = Callable[
    [Tensor, Tensor], Tensor
]  # maps the backward signal and the ReLU's input to the outgoing signal


def gradient(signal: Tensor, x: Tensor) -> Tensor:
    """The gradient's rule: pass the signal where the forward input was positive."""
    return signal * (x > 0)


def deconvnet(signal: Tensor, x: Tensor) -> Tensor:
    """The deconvnet's rule: pass positive signals."""
    return signal.relu()


def pull_back(
    layers: nn.Sequential,
    images: Images,
    rule: Rule,
    signal: Callable[[Maps], Maps],
    *,
    switches: bool = True,
) -> Images:
    """Project an activation of the last feature maps to the pixels.

    layers    convolutions with stride 1, ReLUs and max-poolings
    signal    maps the last feature maps to the start of the backward pass, which is zero except at the
              activation
    switches  False spreads a value evenly over the pooling window

    Raises TypeError for any other layer.
    """
    x, inputs, places = images, [], {}
    for index, layer in enumerate(layers):
        inputs.append(x)
        if isinstance(layer, nn.MaxPool2d):
            x, places[index] = F.max_pool2d(x, layer.kernel_size, layer.stride, return_indices=True)
        else:
            x = layer(x)
    back = signal(x)
    for index in range(len(layers) - 1, -1, -1):
        layer, x = layers[index], inputs[index]
        if isinstance(layer, nn.Conv2d):
            back = F.conv_transpose2d(back, layer.weight, padding=layer.padding)
        elif isinstance(layer, nn.ReLU):
            back = rule(back, x)
        elif isinstance(layer, nn.MaxPool2d):
            kernel, stride = layer.kernel_size, layer.stride
            if switches:
                back = F.max_unpool2d(back, places[index], kernel, stride, output_size=x.shape[2:])
            else:
                back = F.interpolate(back, x.shape[2:]) / kernel**2
        else:
            raise TypeError(f"cannot project through {type(layer).__name__}")
    return back
