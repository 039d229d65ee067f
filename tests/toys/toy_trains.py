"""Trains with everything that has a state: momentum, dropout, batch norm, a schedule, early stopping, a
stage.
"""

import random
import time

import torch
import torch.nn.functional as F
from torch import nn

from readtrack.plugin import Arm, Break, Claim, Figure, at_least, hookimpl

BREAK = Break("blind", "Our arm sees what the control sees.")
CLAIM = Claim(
    name="sees more",
    sentence="Who sees more tells more.",
    paper=Figure("none"),
    rule=(at_least("accuracy", "all", 0.1, minus="half", toward=0.0),),
    control="the other",
    control_arm="half",
    breaks=(BREAK,),
)
INPUTS = 6


@hookimpl
def implementation():
    return nn.Linear


@hookimpl
def experiment(run):
    def pretrain(at):
        scale = torch.ones(INPUTS)
        for step in at.steps(20, "pretraining", (scale,)):
            pause()
            scale += 0.1 * torch.rand(INPUTS, generator=at.generator(f"noise {step}"))
        return scale

    def pause():
        time.sleep(run.option("pause", 0.0))

    def read(at, found):
        x, y = data(run, "judge")
        return {"accuracy": ((found.chosen(x).squeeze(1) > 0).float() == y).float().mean().item()}

    def attempt(at, inputs, rate):
        x, y = data(run, "train")
        model = nn.Sequential(
            nn.Linear(INPUTS, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=40)
        rows, jitter = at.generator("rows"), run.generator("jitter")
        losses: list[float] = []
        stopping = at.early_stopping(lambda: (-losses[-1], len(losses)))
        for step in at.steps(40, f"{at.name} {rate}", (model, optimizer, schedule, losses, stopping)):
            pause()
            some = torch.randint(len(x), (16,), generator=rows)
            seen = x[some] * at.before * (torch.arange(INPUTS) < inputs)
            seen = seen + 0.1 * torch.randn(seen.shape, generator=jitter) + 0.01 * random.random()
            loss = F.binary_cross_entropy_with_logits(model(seen).squeeze(1), y[some])
            losses.append(at.descend(loss, optimizer, step=step))
            schedule.step()
            stopping.check()
        at.metric("best step", stopping.best()[1])
        run.image(f"weights of {at.name}", model[0].weight.detach())
        return losses[-1], model.eval()

    run.phase("train")
    shares = {"all": Arm(INPUTS, before=pretrain), "half": Arm(INPUTS // 2, before=pretrain)}
    breaks = {BREAK.name: {"all": Arm(INPUTS // 2, before=pretrain)}}
    run.compare(CLAIM, arms=shares, attempt=attempt, read=read, grid=(0.1, 0.3), breaks=breaks, widen=False)
    outside(run, pause)


def outside(run, pause):
    """Trains without `run.compare`, as some papers do: a sweep, then a loop."""
    noise = run.generator("shared noise")

    def train(rate):
        weight = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=rate)
        for step in run.steps(20, f"swept {rate}"):
            pause()
            run.descend(
                (weight - torch.randn(1, generator=noise)).square().sum(),
                optimizer,
                step=step,
                metric=f"swept {rate}",
            )
        return weight.item(), weight.item()

    best = run.sweep("alone", (0.1, 0.2), train)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=best.value)
    for step in run.steps(40, "last", (weight, optimizer)):
        pause()
        loss = (weight - best.result - torch.randn(1, generator=noise)).square().sum()
        run.descend(loss, optimizer, step=step, metric="last loss")


def data(run, part):
    weights = torch.randn(INPUTS, generator=run.data("mixture", "world"))
    x = torch.randn(200, INPUTS, generator=run.data(f"inputs to {part}", part))
    return x, (x @ weights > 0).float()


@hookimpl
def benchmark(bench):
    return iter(())
