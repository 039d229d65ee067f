"""VITS: text to waves in one network, by way of latents that are aligned with the text while it learns.

Kim, Kong and Son 2021, "Conditional Variational Autoencoder with Adversarial Learning for End-to-End
Text-to-Speech", arXiv 2106.06103.

The problem. One network turns text into spectrograms and another spectrograms into waves. The second must be
trained on the first one's mistakes, and the spectrogram between them is not what either would choose. And a
text has one predicted rhythm, where people have many.

The idea. A variational autoencoder of sound: a posterior encoder turns spectra into latents, HiFi-GAN's
generator turns latents into waves. The prior of the latents comes from the text: a normal distribution for
each symbol, bent by a flow that keeps volumes, along the best monotonic path (Glow-TTS's search). Judges of
the waves train along. How long symbols last is drawn from a flow too, so a text has many rhythms.

This folder. `spline` and `durations` are the stochastic duration predictor, `model` is the rest, `weights`
reads released weights. `experiment` asks whether drawn durations are nearer to real ones than one prediction;
`voice` trains the whole and measures its sounds; `benchmark` times splines, and one stage against two.

Dimensions: batch, symbols of the text, frames of a spectrogram, samples of a wave, latents, bins.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .durations import DurationFlow, SplineCoupling, StochasticDurations
from .experiment import EXACT, RHYTHM, experiment
from .model import VITS, MeanFlow, Sizes, path_of, pieces
from .spline import spline
from .weights import from_released


@hookimpl
def implementation() -> type[nn.Module]:
    return VITS
