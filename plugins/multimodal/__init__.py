"""Multimodal deep learning: learning from several modalities gives better features for each of them.

Ngiam, Khosla, Kim, Nam, Lee and Ng 2011, "Multimodal Deep Learning", ICML. A modern form feeds images to a
frozen language model: Alayrac et al. 2022, "Flamingo", arXiv 2204.14198.

The problem. A video of the lips and the sound of the voice are two views of the same speech, and each has its
own noise. A classifier on the concatenated inputs does not use one modality to learn about the other, and it
fails if a modality is missing.

The idea. Learn a code without labels, with an autoencoder that has to reconstruct both modalities. If the
autoencoder sees only one modality, its features must contain information about the other modality. These
features are better even if the other modality is missing at test time (cross modality learning). If the
autoencoder sees both modalities, and one of them is set to zero in part of the training data, either modality
alone gives the same code. A classifier trained on one modality then works for the other (shared
representation).

This folder. `model` has the autoencoder for any number of modalities, canonical correlation analysis, and a
linear classifier of codes. `flamingo` has gated cross-attention into a frozen language model. `task`
generates pairs of handwritten digits and telephone tones. `experiment` learns image features with and without
the sounds, and classifies images with a classifier trained on sounds. `benchmark` times the encoding of the
augmented data.

Dimensions: batch, features (of a modality), hidden, code.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import BETTER_FEATURES, SHARED, SHUT, experiment
from .flamingo import Flamingo, GatedCrossAttention
from .model import MultimodalAutoencoder, fit_cca, fit_reader, reconstruction_loss


@hookimpl
def implementation() -> type[nn.Module]:
    return MultimodalAutoencoder
