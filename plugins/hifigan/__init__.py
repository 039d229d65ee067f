"""HiFi-GAN: spectrograms to waves by a convolutional generator, judged at several periods and scales.

Kong, Kim and Bae 2020, "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech
Synthesis", arXiv 2010.05646.

The problem. A mel spectrogram has no phases. Networks that write a wave sample after sample are slow, and
generators that write all at once sounded worse than those.

The idea. Speech is made of periods of many lengths. The generator repeats each frame by transposed
convolutions and refines the samples by residual blocks of several kernels and dilations, whose results are
averaged. Judges of one period each look at every second, third, fifth, seventh or eleventh sample; others
look at the wave at three scales. Beside them stand the distances of mel spectrograms and of features.

This folder. `model` has the generator's three versions and both kinds of judges with their losses.
`experiment` asks how well either kind tells speech from the same spectrogram with made phases; `training`
trains a small generator against both and holds it beside Griffin and Lim's phases; `weights` takes the
released ones; `benchmark` times the versions.

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
