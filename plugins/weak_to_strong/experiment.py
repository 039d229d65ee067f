"""Trains students of weak teachers, and measures how much of the performance gap they recover."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.plugin import (
    Arm,
    Run,
    Sweep,
    Table,
    Trial,
    hookimpl,
)

from .claims import (
    ALL_PIXELS,
    BEATS_ITS_TEACHER,
    BOOTSTRAPPING,
    KNEW_BEFORE,
    NEIGHBOURS,
    NO_PRETRAINING,
    NOBODY_BETWEEN,
    SECOND_ROUND,
    TEACHERS_ANSWERS,
    TRUSTS_ITSELF,
)
from .classroom import Parts, Probes, View, accuracy, classroom, features, halves, learn, pretrain
from .model import (
    EvenOdd,
    Loss,
    Losses,
    confidence_loss,
    gap_of_images,
    gap_recovered,
    harden,
    mixed_cross_entropy,
)


@dataclass(frozen=True, slots=True)
class Taught:
    """Test accuracy after each epoch, labels of the transfer set as distributions, and test predictions."""

    curve: list[float]
    labels: Float[Tensor, "teachers transfer 2"]
    answers: Int[Tensor, "teachers test"]


@dataclass(frozen=True, slots=True)
class School:
    """The data that all students share.

    few      selects the pixels that each teacher sees
    steps    number of steps in which the features are pre-trained
    teacher  the trained weak teachers
    """

    known: Parts
    few: View
    steps: int
    teacher: Taught


Labels = Float[Tensor, "teachers labelled 2"]


@dataclass(frozen=True, slots=True)
class Student:
    """A student's features and its labels (both stages), and the peak weight of its own predictions."""

    view: Callable[[Trial], View]
    labels: Callable[[Trial], Labels]
    peak: float = 0.0
    loss: Loss = confidence_loss


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A student without training, which averages the teacher's labels of the `count` nearest images."""

    count: int = 20


@hookimpl
def experiment(run: Run) -> None:
    run.phase("train")
    table = run.compare(
        BEATS_ITS_TEACHER,
        TRUSTS_ITSELF,
        KNEW_BEFORE,
        BOOTSTRAPPING,
        arms={
            "teacher's kind": Arm(Student(teachers_pixels, teachers_labels)),
            "weak labels": Arm(Student(strong, teachers_labels)),
            "teacher's, hardened": Arm(Student(strong, teachers_labels, 0.5, teachers_answers)),
            "confidence loss": Arm(Student(strong, teachers_labels, 0.5)),
            "untrained features": Arm(Student(untrained, teachers_labels)),
            "relabelled": Arm(Student(strong, handed_on_by_strong)),
            "bootstrapped": Arm(Student(strong, handed_on_by_middle)),
        },
        attempt=learn_from,
        read=judged,
        yardsticks={"truth": Arm(Student(strong, truth))},
        derive=gaps,
        breaks={
            NO_PRETRAINING.name: lambda school: replace(school, steps=0),
            ALL_PIXELS.name: {"weak labels": Arm(Student(all_pixels, teachers_labels))},
            NEIGHBOURS.name: {"weak labels": Arm(Neighbours())},
            TEACHERS_ANSWERS.name: {
                "confidence loss": Arm(Student(strong, teachers_labels, 0.5, teachers_answers))
            },
            SECOND_ROUND.name: {"confidence loss": Arm(Student(strong, handed_on_by_strong))},
            NOBODY_BETWEEN.name: {"bootstrapped": Arm(Student(strong, handed_on_by_strong))},
        },
        world=opened(run),
        unequal=UNEQUAL,
    )
    report(run, table)


# Differences between the arms, in the check's wording, and the arm that they favour.
FEATURES = "their stages' loop lengths, their stages' step counts, their stages' updates"
UNEQUAL = {
    "teacher's kind": f"{FEATURES}: it has no features, which is the tested difference",
    "untrained features": f"{FEATURES}: its features are not trained, which is the tested difference",
}


def opened(run: Run) -> School:
    """Split the digits, and train the teachers on their own part, for as many steps as a student takes."""
    count = run.pick(smoke=3, quick=20, full=100)
    like = torch.empty(0, device=run.device, dtype=run.dtype)
    known, few = classroom(run.data("classroom", "world"), like, count)
    some = run.rows(len(known["test"][0]), "judge").to(run.device)
    known["test"] = known["test"][0][some], known["test"][1][some]
    odd = halves(known["teachers"][1], count)
    steps = run.pick(smoke=20, quick=600, full=600)
    teacher = teach(run, known, "teacher", few, odd, on="teachers", longer=4, rate=0.1)
    return School(known, few, steps, teacher)


def teach(
    at: Run | Trial,
    known: Parts,
    arm: str,
    view: View,
    target: Labels,
    *,
    on: str = "transfer",
    longer: int = 1,
    rate: float = 0.03,
    peak: float = 0.0,
    loss: Loss = confidence_loss,
) -> Taught:
    """Train probes of `view` on the part `on`, for `longer` times the epochs of a student."""
    run = at.run if isinstance(at, Trial) else at
    x, x_test, odd = view(known[on][0]), view(known["test"][0]), known["test"][1] % 2
    probes, curve = Probes(len(target), x.shape[-1]).to(x), []
    epochs = longer * run.pick(smoke=3, quick=30, full=100)
    walk = learn(
        probes,
        x,
        target.to(x),
        at.generator("batches"),
        epochs=epochs,
        rate=rate,
        peak=peak,
        loss=loss,
        counted=at.steps(epochs, arm),
        descend=partial(at.descend, metric=""),
    )
    for epoch in walk:
        if (epoch + 1) % longer == 0:
            curve.append(accuracy(probes, x_test, odd))
            run.metric("accuracy", curve[-1], step=(epoch + 1) // longer, arm=arm)
    with torch.no_grad():
        answers = probes(x_test).argmax(-1)
        curve = curve or [accuracy(probes, x_test, odd)]
        return Taught(curve, probes(view(known["transfer"][0])).softmax(-1), answers)


# Inputs of a student


def teachers_pixels(at: Trial) -> View:
    return at.world.few


def all_pixels(at: Trial) -> View:
    return lambda images: images


def strong(at: Trial) -> View:
    return pretrained(at, "strong", 64, at.world.steps)


def middle(at: Trial) -> View:
    return pretrained(at, "middle", 16, at.world.steps)


def untrained(at: Trial) -> View:
    return pretrained(at, "untrained", 64, 0)


def pretrained(at: Trial, name: str, width: int, steps: int) -> View:
    """Features of size `width`, trained for `steps` steps to classify the ten digits."""
    known, generator = at.world.known, at.generator("features")
    body = features(width, generator).to(known["test"][0])
    counted = at.steps(steps, f"{at.part(name)} features")
    pretrain(body, known["pre-training"], counted, generator, partial(at.descend, metric=""))
    return body


# Labels of a student


def truth(at: Trial) -> Labels:
    return halves(at.world.known["transfer"][1], len(at.world.teacher.labels))


def teachers_labels(at: Trial) -> Labels:
    return at.world.teacher.labels


def handed_on_by_middle(at: Trial) -> Labels:
    return hand_on(at, "middle, hands on", middle)


def handed_on_by_strong(at: Trial) -> Labels:
    return hand_on(at, "strong, hands on", strong)


def hand_on(at: Trial, name: str, view: Callable[[Trial], View]) -> Labels:
    """The labels of a student that was trained on the teacher's labels."""
    return teach(at, at.world.known, at.part(name), at.stage(view), at.world.teacher.labels).labels


def teachers_answers(logits: EvenOdd, weak: EvenOdd, alpha: float) -> Losses:
    """The confidence loss with the teacher's hardened labels instead of the student's, for a break."""
    return mixed_cross_entropy(logits, weak, harden(weak[..., 1] - weak[..., 0], 0.5), alpha)


# The comparison


def learn_from(at: Trial, student: Student | Neighbours, _: None) -> tuple[float, Taught]:
    """Train one student. There is no setting to choose, because all students share one learning rate."""
    if isinstance(student, Neighbours):
        return math.nan, vote(at.world, student.count)
    labels, view = at.stage(student.labels), at.stage(student.view)
    taught = teach(at, at.world.known, at.name, view, labels, peak=student.peak, loss=student.loss)
    return math.nan, taught


def vote(school: School, count: int) -> Taught:
    """Average the teacher's labels of the `count` transfer images whose pixels are nearest."""
    transfer, (images, digits) = school.known["transfer"][0], school.known["test"]

    def average(x: Float[Tensor, "images 64"]) -> Labels:
        near = torch.cdist(x, transfer).topk(count, largest=False).indices
        return school.teacher.labels[:, near].mean(2)

    answers = average(images).argmax(-1)
    return Taught([(answers == digits % 2).double().mean().item()], average(transfer), answers)


def judged(at: Trial, found: Sweep[Taught]) -> dict[str, Tensor | float]:
    agreement = (found.chosen.answers == at.world.teacher.answers).float().mean().item()
    at.metric("agreement with the teacher", agreement)
    return {"accuracy": right(at.world, found.chosen), "agreement with the teacher": agreement}


def right(school: School, taught: Taught) -> Float[Tensor, " test"]:
    """The fraction of probes that classify each test image correctly."""
    return (taught.answers == school.known["test"][1] % 2).double().mean(0)


def gaps(table: Table) -> dict[str, dict[str, Tensor]]:
    low, rows = right(table.world, table.world.teacher), table.rows
    return {
        row: {"gap recovered": gap_of_images(low, found["accuracy"], rows["truth"]["accuracy"])}
        for row, found in rows.items()
    }


def report(run: Run, table: Table) -> None:
    """Report the gap that each student recovers, and its agreement with the teacher."""
    run.phase("evaluate")
    if not table.sweeps:
        return
    weak, ceiling = table.world.teacher.curve[-1], table["truth", "accuracy"]
    for curve in ("accuracy", "gap recovered"):
        run.axes(curve, x="epoch")
    rows: list[list[object]] = [["teacher", round(weak, 3), 0.0, 1.0]]
    for arm, sweep in table.sweeps.items():
        for epoch, value in enumerate(sweep.chosen.curve):
            run.metric("gap recovered", gap_recovered(weak, value, ceiling), step=epoch + 1, arm=arm)
        recovered, agreement = table[arm, "gap recovered"], table[arm, "agreement with the teacher"]
        run.metric("gap recovered at the end", recovered, arm=arm)
        rows.append([arm, round(sweep.chosen.curve[-1], 3), round(recovered, 3), round(agreement, 3)])
    caption = "Accuracy of the teacher and the students, and the share of the gap that each student recovers."
    columns = ["arm", "accuracy", "gap recovered", "agreement with the teacher"]
    run.table("students", columns, rows, caption=caption)
    run.headline("gap recovered")
