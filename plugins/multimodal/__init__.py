"""Multimodal deep learning: features learned from several senses at once serve each of them alone.

Ngiam, Khosla, Kim, Nam, Lee and Ng 2011, "Multimodal Deep Learning", ICML. Its modern form, images shown to a
frozen language model: Alayrac et al. 2022, "Flamingo", arXiv 2204.14198.

The problem. What is seen of a mouth and what is heard of it are two views of one thing, each with noise of
its own. A classifier of the two side by side learns neither from the other, and is lost when one is missing.

The idea. Learn a code without labels: an autoencoder that has to give back both modalities. If its input is
one alone, its features must hold what tells about the other, and they are better features, also where the
other is never there again (cross modality learning). If its inputs are both and one of them is zeroed in part
of the training, one code comes out of either, and what was learned of the one holds for the other (shared
representation).

This folder. `model`: the autoencoder over any modalities, canonical correlation analysis, a linear reader of
codes. `flamingo`: gated cross-attention into a frozen language model. `task` draws handwritten digits with
the tones of a telephone's keys. `experiment` learns features of images with the sounds there or not, and
reads images by what was learned from sounds.

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
