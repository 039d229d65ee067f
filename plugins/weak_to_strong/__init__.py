"""Weak-to-strong generalisation: training a strong model on the labels of a weaker one.

Burns et al. 2023, "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision", arXiv
2312.09390.

The problem. People can correct today's models because they can tell right from wrong. Human labels for models
that know more than people will often be wrong, and such models do not exist yet.

The idea. Use an analogy: a small model trained on a task labels examples for a large pre-trained model. A
student that merely imitated its teacher would be no better. But the large model already represents the task,
and the labels only need to elicit this ability. The measure is the performance gap recovered, relative to
training on the true labels. It is now the usual measure for weak supervision. A loss that also trains the
student towards its own hardened predictions, even where they contradict the teacher, recovers more of the
gap.

This folder. `model` has the performance gap recovered (section 3), and the auxiliary confidence loss with its
threshold and warm-up (section 4.3 and the appendix with its details). `experiment` resembles the paper's
experiment with AlexNet labels and linear probes on DINO features. Weak teachers see a few pixels of a digit
and predict whether it is odd. The student is a linear probe on features trained to classify the ten digits.
`claims` has its claims, `classroom` the training of teachers and students, and `benchmark` times the loss and
the training of students.

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
