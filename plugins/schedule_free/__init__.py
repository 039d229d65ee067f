"""Schedule-Free: averaging replaces the learning-rate schedule.

Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky 2024, "The Road Less Scheduled", arXiv 2405.15682.

The problem. The best results come from learning rates that fall to zero at the end of training, so the length
of training must be known beforehand. A run that stops early or continues for longer has used the wrong
schedule. Averaging the iterates is equally good in theory, but worse in practice, because the average lags
behind.

The idea. There are three sequences. z takes the steps. x is the running mean of all z and is used for
evaluation. Gradients are computed at y, a fraction β of the way from z to x. β = 0 gives Polyak averaging and
β = 1 primal averaging. With β = 0.9, the mean at every step is as good as with a schedule that ends at that
step.

This folder. `model` has equations 3 to 5, with SGD and with AdamW (algorithm 1), and stores two tensors per
weight instead of three. `experiment` trains once and compares the results at three stopping times with cosine
schedules tuned for each time. `benchmark` times a step, and training to a target loss.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import WITH_ADAMW, WITH_SGD, experiment
from .model import ScheduleFreeAdamW, ScheduleFreeSGD


@hookimpl
def implementation() -> type[ScheduleFreeSGD]:
    return ScheduleFreeAdamW
