"""Denoising diffusion: noise is added in many small steps, and a network learns to take each of them back.

Ho, Jain and Abbeel 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239.

The problem. A chain that turns data into noise in small Gaussian steps can be reversed by Gaussian steps, and
is trained by a bound of the likelihood (Sohl-Dickstein et al. 2015). But what the network should predict, and
what the steps should count, was open, and the samples were poor.

The idea. Any step of the chain can be drawn at once, x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise.
Let the network predict this noise, and drop the weights that the bound gives to the steps: the steps of
little noise, which are easy and count most in the bound, then count less (section 3.4).

This folder. `model` has the schedule with every formula of sections 2 and 3, ancestral sampling and the steps
of DDIM, and the perceptron of the experiment; `unet` the paper's U-Net, `weights` the way from the released
files to it. `experiment` trains by the simple loss and by the bound and compares the samples; the same
network draws by algorithm 2 and by DDIM.

Dimensions: batch, then channels, height and width of an image or the pixels in a row; t counts from 0.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import AT_ONCE, SAMPLES, experiment
from .model import Perceptron, Schedule, linear_schedule, timestep_embedding
from .unet import UNet


@hookimpl
def implementation() -> type[nn.Module]:
    return UNet
