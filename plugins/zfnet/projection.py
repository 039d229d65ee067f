"""The way back through a plain network: deconvnet, and the gradient that it is compared with.

A deconvnet (section 2.1) goes back through the same filters, transposed, puts what comes back into the places
that max-pooling chose, and takes the ReLU of it: the way back sees the layers' weights and the switches, not
what the ReLUs of the way forward let through. The gradient sees that, and no ReLU of its own.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch maps rows columns"]
Maps = Float[Tensor, "batch outputs down across"]
Rule = Callable[[Tensor, Tensor], Tensor]  # what comes back to a ReLU, what came to it forward


def gradient(signal: Tensor, x: Tensor) -> Tensor:
    """Back goes what belongs to a positive input."""
    return signal * (x > 0)


def deconvnet(signal: Tensor, x: Tensor) -> Tensor:
    """Back goes what is positive itself."""
    return signal.relu()


def pull_back(
    layers: nn.Sequential,
    images: Images,
    rule: Rule,
    signal: Callable[[Maps], Maps],
    *,
    switches: bool = True,
) -> Images:
    """The projection of an activation of the last maps into the pixels.

    layers    convolutions with stride 1, ReLUs and max-poolings
    signal    given the last maps, what starts the way back: zeros but at the activation
    switches  False: unpooling spreads a value evenly over its window

    Raises TypeError for a layer of another kind.
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
            raise TypeError(f"no way back is known through {type(layer).__name__}")
    return back
