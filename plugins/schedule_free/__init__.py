"""Schedule-Free: averaging that takes the place of a learning-rate schedule.

Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky 2024, "The Road Less Scheduled", arXiv 2405.15682.

The problem. The best results come from learning rates that fall to zero at the end of training, so one must
know beforehand when that is, and a run that is stopped early or continues longer has had the wrong schedule.
Averaging the iterates is as good in theory, and in practice worse: the average lags behind.

The idea. Three sequences. z takes the steps, x is the running mean of all z and is what one evaluates, and
gradients are measured at y, between them, a share β of the way from z to x. At β = 0 this is Polyak's
averaging and at β = 1 primal averaging; at 0.9 the mean is as good at every step as a schedule made for that
step.

This folder. model.py: equations 3 to 5, with SGD and with AdamW (algorithm 1), kept in two tensors a weight
instead of three. experiment.py runs it once and compares it at three stopping times with cosine schedules
tuned for each.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import WITH_ADAMW, WITH_SGD, experiment
from .model import ScheduleFreeAdamW, ScheduleFreeSGD


@hookimpl
def implementation() -> type[ScheduleFreeSGD]:
    return ScheduleFreeAdamW
