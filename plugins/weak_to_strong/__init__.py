"""Weak-to-strong generalisation: what a strong model learns from the labels of a weaker one.

Burns et al. 2023, "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision", arXiv
2312.09390.

The problem. People correct today's models because they can tell right from wrong. Models that know more than
people will get labels that are often mistaken, and no such models exist yet to experiment with.

The idea. Use an analogy: a small model trained on a task labels examples for a large pre-trained one. A
student that merely imitated its teacher would be no better, but it already represents the task, and the
labels only need to elicit that. The measure is the performance gap recovered, relative to training on the
true labels; it is now the usual one for weak supervision. A loss that lets the student trust itself where it
disagrees with the teacher recovers more.

This folder. The performance gap recovered (section 3), and the auxiliary confidence loss with its threshold
and warm-up (section 4.3 and the appendix on its details). The experiment resembles the paper's with AlexNet
labels and linear probes on DINO features: weak teachers see a few pixels of a digit and predict whether it is
odd; the student is a linear probe on features trained to classify the ten digits.

Dimensions: teachers (each with a student, trained in parallel), batch, classes, inputs (of a probe).
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .claims import BEATS_ITS_TEACHER, BOOTSTRAPPING, KNEW_BEFORE, TRUSTS_ITSELF
from .experiment import experiment
from .model import confidence_loss, gap_of_images, gap_recovered, harden, mixed_cross_entropy, warm_up


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return confidence_loss
