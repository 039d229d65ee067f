"""Pixel recurrent networks: an image drawn pixel by pixel, each given all that were drawn before.

Van den Oord, Kalchbrenner and Kavukcuoglu 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759.

The problem. Images have no order, and a model that draws them one pixel after another must carry far-away
pixels along while it is trained on all pixels at once. Models with latent variables have only a bound of the
likelihood, and independent pixels are no image.

The idea. Rows from the top, in each row from the left: the likelihood is a product of distributions of one
pixel, a softmax over its values. Masks in convolutions hide what is not yet drawn. The PixelCNN has nothing
else; in the row LSTM each row is a step of a recurrence, whose view is a triangle above the pixel; in the
diagonal BiLSTM each diagonal is one, from both sides, and every pixel before is in view. Of one pixel's
colours red is drawn first, green sees it, and blue sees both.

This folder. `model` has the masked convolution, the two recurrent layers, and the three networks with equal
ends. `experiment` compares their exact likelihoods of digits and completes halves of digits.

Dimensions: batch, channels (of a map), height, width; h is the recurrent state's size, and a map has 2 h.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CAUSAL, DIAGONAL, ROW, experiment
from .model import DiagonalBiLSTM, MaskedConv2d, PixelNetwork, ResidualBlock, RowLSTM, sample, skew, unskew


@hookimpl
def implementation() -> type[nn.Module]:
    return PixelNetwork
