"""PixelRNN and PixelCNN: images generated pixel by pixel, each pixel conditioned on all previous ones.

Van den Oord, Kalchbrenner and Kavukcuoglu 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759.

The problem. The pixels of an image have no natural order. A model that generates them one by one must
remember distant pixels, and training should process all pixels in parallel. Latent-variable models give only
a bound on the likelihood, and models with independent pixels generate only noise.

The idea. Order the pixels row by row, from the top left. The likelihood factorises into one conditional
distribution per pixel, a softmax over its values. Masked convolutions hide pixels that have not yet been
generated. The PixelCNN consists of masked convolutions only. The row LSTM is a recurrence over rows, with a
triangular receptive field above the pixel. The diagonal BiLSTM is a recurrence over diagonals, from the left
and from the right, and its receptive field covers all previous pixels. Within a pixel, red is generated
first, then green conditioned on red, and blue conditioned on both.

This folder. `model` has the masked convolution, the two recurrent layers, and the network, whose input and
output layers are the same for all three. `experiment` compares the networks' exact likelihoods on digits, and
completes the lower halves of digits.

Dimensions: batch, channels (of a feature map), height, width; h is the state size, and feature maps have 2 h
channels.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CAUSAL, DIAGONAL, ROW, experiment
from .model import DiagonalBiLSTM, MaskedConv2d, PixelNetwork, ResidualBlock, RowLSTM, sample, skew, unskew


@hookimpl
def implementation() -> type[nn.Module]:
    return PixelNetwork
