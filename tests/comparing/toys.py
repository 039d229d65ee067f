"""Comparisons of eleven kinds, as in the papers, on a problem with six numbers. Each can have a flaw.

The label of an input is the sign of a fixed mixture of its numbers. The arm "all" sees six of them, the arm
"half" three. `shape(run, flaw)` carries out the comparison. Flaws are "leak" (the choice or the training uses
test data), "starved" (the control trains for half of the steps) and "shared" (in a null run, arms share
something that should be separate).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Arm, Break, Claim, Figure, NoNull, Run, Sweep, Trial, at_least

STEPS, RATES = 8, (0.1, 0.3)
ARMS = {"all": Arm(6), "half": Arm(3)}
BREAK = Break("blind", "Our arm sees what the control sees.")
BLIND = {BREAK.name: {"all": Arm(3)}}


def claim(*rule, control="half", **more) -> Claim:
    return Claim(
        name="sees more",
        sentence="Who sees more tells more.",
        paper=Figure("none"),
        rule=rule,
        control="the other",
        control_arm=control,
        breaks=(BREAK,),
        **more,
    )


LEAD = claim(at_least("accuracy", "all", 0.1, minus="half", toward=0.0))


def draw(run: Run, part: str, count: int = 200) -> tuple[Tensor, Tensor]:
    weights = torch.randn(6, generator=run.data("mixture", "world"))
    x = torch.randn(count, 6, generator=run.data(f"inputs to {part}", part))
    return x, (x @ weights > 0).float()


def fit(
    at: Trial, model: nn.Linear, rate: float, flaw: str, steps: int = STEPS, momentum: float = 0.0
) -> list[float]:
    """Returns the loss of each step, before its update."""
    x, y = draw(at.run, "judge" if flaw == "leak in training" else "train")
    rows = (at.run if flaw == "shared" else at).generator("rows")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    if flaw == "starved" and model.in_features == 3:
        steps //= 2
    losses = []
    for step in at.steps(steps):
        some = torch.randint(len(x), (32,), generator=rows)
        loss = F.binary_cross_entropy_with_logits(seen(model, x[some]), y[some])
        losses.append(at.descend(loss, optimizer, step=step))
    return losses


def seen(model: nn.Linear, x: Tensor) -> Tensor:
    return model(x[:, : model.in_features])[:, 0]


@torch.no_grad()
def right(run: Run, model: nn.Linear, part: str) -> Tensor:
    """Whether each item of the part is classified correctly."""
    x, y = draw(run, part)
    return ((seen(model, x) > 0) == y.bool()).double()


@torch.no_grad()
def nats(run: Run, model: nn.Linear, part: str) -> float:
    x, y = draw(run, part)
    return F.binary_cross_entropy_with_logits(seen(model, x), y).item()


def attempt(flaw: str, stage: bool = False) -> Callable[[Trial, int, float], tuple[float, nn.Linear]]:
    def train(at: Trial, width: int, rate: float) -> tuple[float, nn.Linear]:
        if flaw == "shared":
            torch.manual_seed(at.run.seed)
        model = nn.Linear(width, 1)
        if stage:
            model.load_state_dict(
                {name: value[:, :width] if value.dim() > 1 else value for name, value in at.before.items()}
            )
        fit(at, model, rate or 0.1, flaw)
        return nats(at.run, model, "judge" if flaw == "leak" else "choose"), model

    return train


def accuracy(at: Trial, found: Sweep[nn.Linear]) -> dict[str, float]:
    return {"accuracy": right(at.run, found.chosen, "judge").mean().item()}


def simple(run: Run, flaw: str = ""):
    return run.compare(LEAD, arms=ARMS, attempt=attempt(flaw), read=accuracy, grid=RATES, breaks=BLIND)


def read_out(run: Run, flaw: str = ""):
    """Two ways to interpret one trained network, without a grid and without training."""
    network = nn.Linear(6, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for step in run.steps(STEPS):
        x, y = draw(run, "judge" if flaw == "leak" else "train")
        run.descend(F.binary_cross_entropy_with_logits(seen(network, x), y), optimizer, step=step)

    def mask(at: Trial, width: int, _: None) -> tuple[float, nn.Linear]:
        for _ in at.steps(1 if flaw == "starved" and width == 3 else 2):  # forward passes
            reader = nn.Linear(width, 1)
            reader.load_state_dict(
                {"weight": network.weight.detach()[:, :width], "bias": network.bias.detach()}
            )
        return math.nan, reader

    return run.compare(
        LEAD,
        arms=ARMS,
        attempt=mask,
        read=lambda at, found: {"accuracy": right(at.run, found.chosen, "judge")},
        breaks=BLIND,
        null="pipeline" if flaw == "shared" else "items",
    )


def series(run: Run, flaw: str = ""):
    """Both arms at two numbers of steps; the claim is about the larger."""

    def train(at: Trial, width: int, rate: float) -> tuple[float, nn.Linear]:
        model = nn.Linear(width, 1)
        if flaw == "shared":
            torch.manual_seed(0)
        fit(at, model, rate, flaw, steps=at.level)
        return nats(at.run, model, "judge" if flaw == "leak" else "choose"), model

    longer = claim(at_least("accuracy", "all@8", 0.1, minus="half@8"))
    levels = dict.fromkeys(ARMS, (4, 8))
    return run.compare(
        longer, arms=ARMS, attempt=train, read=accuracy, grid=RATES, levels=levels, breaks=BLIND
    )


def untrained(run: Run, flaw: str = ""):
    """Algorithms without training: the mean of all inputs of a class, or of three of their numbers."""

    def means(at: Trial, width: int, _: None) -> tuple[float, nn.Linear]:
        x, y = draw(at.run, "judge" if flaw == "leak" else "train")
        model = nn.Linear(width, 1)
        for _ in at.steps(1 if flaw == "starved" and width == 3 else 2):  # evaluations
            difference = x[y > 0].mean(0) - x[y == 0].mean(0)
        model.load_state_dict({"weight": difference[None, :width], "bias": torch.zeros(1)})
        return math.nan, model

    null = "pipeline" if flaw == "shared" else NoNull("nothing is trained")
    return run.compare(LEAD, arms=ARMS, attempt=means, read=accuracy, breaks=BLIND, null=null)


def relation(run: Run, flaw: str = ""):
    """The share of the gap between a small and a large arm that a third arm closes."""
    share = claim(at_least("share of the gap", "middle", 0.3), control="half")
    return run.compare(
        share,
        arms={**ARMS, "middle": Arm(5)},
        attempt=attempt(flaw),
        read=accuracy,
        grid=RATES,
        derive=lambda table: {"middle": {"share of the gap": share_of_gap(table.of("accuracy"))}},
        breaks={BREAK.name: {"middle": Arm(3)}},
    )


def share_of_gap(found) -> float:
    gap = found.get("all", 1.0) - found.get("half", 0.0)
    return (found["middle"] - found.get("half", 0.0)) / gap if gap else 0.0


def pretrain(at: Trial, flaw: str = "") -> dict[str, Tensor]:
    model = nn.Linear(6, 1)
    fit(at, model, 0.1, {"leak": "leak in training", "shared": "shared"}.get(flaw, ""))
    return model.state_dict()


def shared_stage(run: Run, flaw: str = ""):
    """Both arms continue from one pre-trained network. The flaw "shared" reuses it between the arms of a
    null run.
    """
    kept: list[dict[str, Tensor]] = []

    def before(at: Trial) -> dict[str, Tensor]:
        if not (kept and flaw == "shared"):
            kept.append(pretrain(at, "leak" if flaw == "leak" else ""))
        return kept[-1]

    own = attempt("starved" if flaw == "starved" else "", stage=True)
    arms = {name: Arm(arm.make, before=before) for name, arm in ARMS.items()}
    return run.compare(
        LEAD,
        arms=arms,
        attempt=own,
        read=accuracy,
        grid=RATES,
        breaks={BREAK.name: {"all": Arm(3, before=before)}},
    )


def own_stage(run: Run, flaw: str = ""):
    """Each arm has its own stage."""

    def long(at: Trial) -> dict[str, Tensor]:
        return pretrain(at, flaw)

    def short(at: Trial) -> dict[str, Tensor]:
        model = nn.Linear(6, 1)
        fit(at, model, 0.1, "", steps=STEPS // 2 if flaw == "starved" else STEPS)
        return model.state_dict()

    arms = {"all": Arm(6, before=long), "half": Arm(3, before=short if flaw == "starved" else long)}
    own = attempt("shared" if flaw == "shared" else "", stage=True)
    return run.compare(
        LEAD,
        arms=arms,
        attempt=own,
        read=accuracy,
        grid=RATES,
        breaks={BREAK.name: {"all": Arm(3, before=long)}},
    )


def twice(run: Run, flaw: str = ""):
    """The choice uses short training runs, and the chosen point is trained for longer."""

    def train(at: Trial, width: int, rate: float) -> tuple[float, nn.Linear]:
        if flaw == "shared":
            torch.manual_seed(0)
        model = nn.Linear(width, 1)
        fit(at, model, rate, flaw, steps=STEPS if at.again else STEPS // 2)
        return nats(at.run, model, "judge" if flaw == "leak" else "choose"), model

    return run.compare(LEAD, arms=ARMS, attempt=train, read=accuracy, grid=RATES, again=True, breaks=BLIND)


def curve(run: Run, flaw: str = ""):
    """The worst accuracy over the grid."""

    def worst(at: Trial, found: Sweep[nn.Linear]) -> dict[str, float]:
        return {"accuracy": min(right(at.run, one, "judge").mean().item() for one in found.points.values())}

    return run.compare(LEAD, arms=ARMS, attempt=attempt(flaw), read=worst, grid=RATES, breaks=BLIND)


def chain(run: Run, flaw: str = ""):
    """A student that starts from another student's result, which starts from scratch."""

    def first(at: Trial) -> dict[str, Tensor]:
        return pretrain(at, flaw)

    def second(at: Trial) -> dict[str, Tensor]:
        model = nn.Linear(6, 1)
        model.load_state_dict(at.stage(first))
        fit(at, model, 0.1, "")
        return model.state_dict()

    arms = {"all": Arm(6, before=second), "half": Arm(3, before=first)}
    own = attempt("starved" if flaw == "starved" else "", stage=True)
    return run.compare(
        LEAD,
        arms=arms,
        attempt=own,
        read=accuracy,
        grid=RATES,
        breaks={BREAK.name: {"all": Arm(3, before=second)}},
    )


def points(run: Run, flaw: str = ""):
    """The points of the grid are pairs."""

    def train(at: Trial, width: int, point: tuple[float, int]) -> tuple[float, nn.Linear]:
        if flaw == "shared":
            torch.manual_seed(0)
        model = nn.Linear(width, 1)
        fit(at, model, point[0], flaw, steps=point[1])
        return nats(at.run, model, "judge" if flaw == "leak" else "choose"), model

    grid = [(0.1, 4), (0.1, 8), (0.3, 8)]
    return run.compare(LEAD, arms=ARMS, attempt=train, read=accuracy, grid=grid, breaks=BLIND, what="point")


SHAPES = {
    "simple": simple,
    "read-out": read_out,
    "series": series,
    "no training": untrained,
    "relation": relation,
    "shared stage": shared_stage,
    "own stage": own_stage,
    "twice": twice,
    "curve": curve,
    "chain": chain,
    "points": points,
}


def plugin(compare: Callable[..., object], flaw: str = "", **more: object) -> ModuleType:
    """A plugin whose experiment is one comparison."""
    module = ModuleType("toy")
    module.experiment = lambda run: compare(run, flaw, **more)
    return module
