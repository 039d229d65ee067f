"""HiFi-GAN: generate waveforms from spectrograms, trained against discriminators of several periods.

Kong, Kim and Bae 2020, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
Synthesis", arXiv 2010.05646.

The problem. A mel spectrogram has no phases. Autoregressive networks that generate a wave sample by sample
are slow, and earlier parallel generators had lower quality.

The idea. Speech consists of periodic signals of many periods. The generator upsamples frames by transposed
convolutions and refines the samples by residual blocks with several kernel sizes and dilations, whose outputs
are averaged. Multi-period discriminators each see every second, third, fifth, seventh or eleventh sample.
Multi-scale discriminators see the wave at three scales. The loss also includes distances between mel
spectrograms and between discriminator features.

This folder. `model` has the generator's three versions and both kinds of discriminators with their losses.
`experiment` measures how well each kind distinguishes speech from the same spectrogram with reconstructed
phases. `training` trains a small generator against both kinds and compares it with Griffin-Lim. `weights`
renames the released parameters. `benchmark` times the versions.

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
