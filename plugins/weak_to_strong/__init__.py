"""Weak-to-strong generalisation: what a strong model learns from a teacher that knows less than it does.

Burns et al. 2023, "Weak-to-Strong Generalization: Eliciting Strong Capabilities With Weak Supervision",
arXiv 2312.09390.

The problem. People correct today's models because they can tell right from wrong. Of models that know more
than people do, they could only give labels that are often mistaken; and nobody has such models yet to try.

The idea. Take a stand-in: a small model that has learned a task labels examples for a large, pre-trained one.
If the large one copied its teacher it would come no further; but it has its own idea of the task, and the
labels need only bring it out. How much of the gap to training on the truth it recovers is the measure, today
the usual one for supervision that is to outgrow its supervisor. A loss that lets the student trust itself
where it contradicts the teacher recovers more.

This file. The performance gap recovered (section 3), and the auxiliary confidence loss with its threshold and
its warm-up (section 4.3 and the appendix on its details). The experiment is like the paper's with AlexNet's
labels for probes on DINO's features: weak teachers see a few pixels of a digit and say whether it is odd; the
student is a linear probe on features that were trained to tell the ten digits.

Dimensions: teachers (as many students, trained side by side), batch, classes, inputs (of a probe).
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
