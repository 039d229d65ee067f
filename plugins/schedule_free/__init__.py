"""Schedule-Free: averaging replaces the learning-rate schedule.

Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky 2024, "The Road Less Scheduled", arXiv 2405.15682.

The problem. The best results come from learning rates that fall to zero at the end of training, so the length
of training must be known beforehand. A run that is stopped early or continues for longer has had the wrong
schedule. Averaging the iterates is equally good in theory, but worse in practice, because the average lags
behind.

The idea. There are three sequences. z takes the steps. x is the running mean of all z and is used for
evaluation. Gradients are computed at y, which lies between them, a fraction β of the way from z to x. β = 0
gives Polyak averaging and β = 1 primal averaging. With β = 0.9 the mean is at every step as good as with a
schedule made for that step.

This folder. `model` has equations 3 to 5, with SGD and with AdamW (algorithm 1), and stores two tensors per
weight instead of three. `experiment` makes one run and compares it, at three stopping times, with cosine
schedules tuned for each. `benchmark` times a step, and training until a given loss.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import WITH_ADAMW, WITH_SGD, experiment
from .model import ScheduleFreeAdamW, ScheduleFreeSGD


@hookimpl
def implementation() -> type[ScheduleFreeSGD]:
    return ScheduleFreeAdamW
