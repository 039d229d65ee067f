"""VITS: end-to-end text-to-speech with latents that are aligned with the text during training.

Kim, Kong and Son 2021, "Conditional Variational Autoencoder with Adversarial Learning for End-to-End
Text-to-Speech", arXiv 2106.06103.

The problem. Two-stage systems have one network from text to spectrograms and another from spectrograms to
waves. The second must be trained on the outputs of the first, and the spectrogram is a hand-designed
interface. In addition, two-stage systems predict a single rhythm for each text, although people can speak it
with many rhythms.

The idea. VITS is a conditional variational autoencoder. A posterior encoder maps spectra to latents, and
HiFi-GAN's generator maps latents to waves. The prior of the latents is computed from the text: a normal
distribution for each symbol, transformed by a volume-preserving flow and aligned along the best monotonic
path (Glow-TTS's search). Discriminators of the waves are trained jointly. Durations are sampled from another
flow, so the same text can be spoken with different rhythms.

This folder. `spline` and `durations` are the stochastic duration predictor, `model` is the rest, `weights`
loads released weights. `experiment` tests whether sampled durations score better than a single prediction.
`voice` trains the whole model and measures its sounds. `benchmark` times splines, and one stage against two.

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
