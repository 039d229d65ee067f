"""The performance gap recovered (section 3), and the auxiliary confidence loss (section 4.3)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "*teachers batch classes"]
Classes = Int[Tensor, "*teachers batch"]
Losses = Float[Tensor, "*teachers batch"]
EvenOdd = Float[Tensor, "*teachers batch 2"]
Loss = Callable[[Tensor, Tensor, float], Tensor]


def gap_recovered(weak: float, student: float, ceiling: float) -> float:
    """PGR (section 3): 0 is as good as the teacher, and 1 is as good as training on the true labels."""
    return (student - weak) / (ceiling - weak)


def gap_of_images(
    weak: Float[Tensor, " images"], student: Float[Tensor, " images"], ceiling: Float[Tensor, " images"]
) -> Float[Tensor, " images"]:
    """A value for each image, whose mean is the gap recovered.

    To first order, the standard error of their mean is that of the gap recovered.
    """
    gap = (ceiling - weak).mean()
    recovered = (student - weak).mean() / gap
    return recovered + (student - weak - recovered * (ceiling - weak)) / gap


def harden(score: Losses, share: float) -> Classes:
    """The student's prediction I[f(x) > t], with t such that it is 1 for a fraction `share` of a batch.

    score  any increasing function of f(x), such as the logit of class 1 minus that of class 0
    share  frequency of class 1; half if the classes are balanced
    """
    above = round(share * score.shape[-1])
    falling = F.pad(score.sort(-1, descending=True).values, (0, 1), value=-math.inf)
    return (score > falling[..., above, None]).long()


def warm_up(progress: float, peak: float) -> float:
    """The weight alpha, which grows to `peak` (1/2, or 3/4 for large students) in a fifth of training."""
    return peak * min(1.0, progress / 0.2)


def confidence_loss(logits: EvenOdd, weak: EvenOdd, alpha: float, *, share: float = 0.5) -> Losses:
    """Section 4.3's L_conf: alpha is the weight of the student's own hardened predictions.

    weak  the teacher's distribution f_w; it gets no gradient
    """
    # (1 - alpha) CE(f(x), f_w(x)) + alpha CE(f(x), I[f(x) > t]), where the hard label is a constant.
    score = logits.detach()
    return mixed_cross_entropy(logits, weak, harden(score[..., 1] - score[..., 0], share), alpha)


def mixed_cross_entropy(logits: Logits, weak: Logits, hard: Classes, alpha: float) -> Losses:
    """Cross-entropies with soft and hard labels, for any number of classes. `weak` must sum to 1."""
    # (1 - alpha) CE(f, weak) + alpha CE(f, hard)
    log_f = logits.log_softmax(-1)
    own = log_f.gather(-1, hard[..., None])[..., 0]
    return -torch.lerp((weak.detach() * log_f).sum(-1), own, alpha)
