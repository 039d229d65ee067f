"""Denoising diffusion: add noise to data in many small steps, and train a network to reverse each step.

Ho, Jain and Abbeel 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239.

The problem. A chain that turns data into noise in small Gaussian steps can be reversed by Gaussian steps,
trained with a bound on the likelihood (Sohl-Dickstein et al. 2015). But nobody knew what the network should
predict or how the steps should be weighted, and the samples were poor.

The idea. Any step of the chain can be sampled directly: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar)
noise. Train the network to predict this noise, and drop the weights that the bound assigns to the steps. The
steps with little noise are easy and dominate the bound. Without the weights they count less (section 3.4).

This folder. `model` has the schedule with every formula of sections 2 and 3, ancestral sampling, DDIM's
steps, and the experiment's perceptron. `unet` has the paper's U-Net, and `weights` renames its released
parameters. `experiment` trains with the simple loss and with the bound, and compares the samples. It also
samples from one network with algorithm 2 and with DDIM.

Dimensions: batch, then channels, height and width of an image or its pixels as one vector. The step t counts
from 0.
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
