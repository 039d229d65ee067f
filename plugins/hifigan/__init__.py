"""HiFi-GAN: generate waveforms from mel spectrograms with a GAN that has multi-period discriminators.

Kong, Kim and Bae 2020, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
Synthesis", arXiv 2010.05646.

The problem. A mel spectrogram contains no phase. Autoregressive networks that generate a wave sample by
sample are slow, and earlier parallel generators had lower audio quality.

The idea. Speech consists of periodic signals with different periods. The generator upsamples frames with
transposed convolutions. At each stage, it averages residual blocks with several kernel sizes and dilations.
The multi-period discriminators see every 2nd, 3rd, 5th, 7th or 11th sample, and the multi-scale
discriminators see the wave at three resolutions. The loss also includes distances between mel spectrograms
and between discriminator features.

This folder. `model` has the three versions of the generator, both kinds of discriminator, and the losses.
`experiment` measures how well each kind of discriminator distinguishes speech from its Griffin-Lim
reconstruction. `training` trains a small generator against both kinds and compares it with Griffin-Lim.
`weights` renames the parameters of released checkpoints. `benchmark` times the versions.

Dimensions: batch, bands and frames of a spectrogram, samples of a wave.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import FASTER, benchmark
from .experiment import PERIODS_TELL, SIZES, experiment
from .model import (
    V1,
    V2,
    V3,
    Generator,
    PeriodDiscriminator,
    Periods,
    ScaleDiscriminator,
    Scales,
    Version,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return Generator
