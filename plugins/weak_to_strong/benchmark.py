"""Times the loss on its own, and training students to a target accuracy."""

from collections.abc import Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .classroom import Probes, accuracy, classroom, features, halves, learn, pretrain
from .model import Loss, confidence_loss, harden, mixed_cross_entropy


def as_it_is_written(logits: Tensor, weak: Tensor, hard: Tensor, alpha: float) -> Tensor:
    """A weighted sum of two cross-entropies between distributions, with gradients from autograd."""
    log_f = logits.softmax(-1).log()
    own = (F.one_hot(hard, logits.shape[-1]) * log_f).sum(-1)
    return -(1 - alpha) * (weak * log_f).sum(-1) - alpha * own


def torchs(logits: Tensor, weak: Tensor, hard: Tensor, alpha: float) -> Tensor:
    """A single cross-entropy with a mixture as its target, as in the authors' repository."""
    target = weak * (1 - alpha)
    target.scatter_add_(-1, hard[..., None], target.new_full((*hard.shape, 1), alpha))
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(0, -2), reduction="none").view_as(hard)


def torchs_confidence(logits: Tensor, weak: Tensor, alpha: float) -> Tensor:
    score = logits.detach()
    return torchs(logits, weak, harden(score[..., 1] - score[..., 0], 0.5), alpha)


def loss_inputs(generator: torch.Generator, batch: int, classes: int) -> tuple[Tensor, ...]:
    """Inputs of the loss. Labels are multiples of 1/256, so they sum to 1 in any precision."""
    drawn = torch.randint(classes, (batch, 256), generator=generator)
    weak = torch.zeros(batch, classes).scatter_add_(-1, drawn, torch.full(drawn.shape, 1 / 256))
    return torch.randn(batch, classes, generator=generator), weak, drawn[:, 0].clone()


def cost(batch: int, classes: int, itemsize: int) -> dict[str, Cost]:
    """Seven operations per logit in the forward pass, four in the backward pass. Each tensor moves once."""
    logits = batch * classes
    moved = (2 * logits + batch) * itemsize + 8 * batch
    return {
        "forward": Cost(flops=7 * logits, bytes=moved),
        "forward+backward": Cost(flops=11 * logits, bytes=moved + (logits + batch) * itemsize),
    }


@cache
def lesson(steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The experiment's data: features and weak labels of the transfer set, test features and parities.

    Weak labels are integers (thousandths), so they do not depend on the precision.
    """
    generator = torch.Generator().manual_seed(0)
    known, few = classroom(generator, torch.empty(0), 20)
    body, teachers, (images, digits) = features(64, generator), Probes(20, 20), known["teachers"]
    pretrain(body, known["pre-training"], range(steps), generator)
    for _ in learn(teachers, few(images), halves(digits, 20), generator, epochs=steps // 5, rate=0.1):
        pass
    images, (tests, labels) = known["transfer"][0], known["test"]
    weak = teachers(few(images)).detach().softmax(-1)[..., 1]
    return body(images), (weak * 1000).round().long(), body(tests), labels % 2


def until(target: float, loss: Loss, peak: float, *inputs: Tensor) -> dict[str, int | bool]:
    """Train until the students' mean test accuracy reaches `target`, for at most 40 epochs."""
    x, weak, x_test, odd, start = inputs
    probes, order = Probes(len(start), x.shape[-1]).to(x), torch.Generator().manual_seed(0)
    probes.weight.data.copy_(start)
    odds = (weak / 1000).to(x)
    labels = torch.stack((1 - odds, odds), -1)
    limit = 40
    walk = learn(probes, x, labels, order, epochs=limit, rate=0.01, peak=peak, loss=loss)
    epochs = next((epoch + 1 for epoch in walk if accuracy(probes, x_test, odd) >= target), None)
    return {"reached": epochs is not None, "epochs": epochs or limit}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((5, 3),),
        quick=((4096, 2), (1024, 1000)),
        full=((4096, 2), (65_536, 2), (1024, 1000), (1024, 32_000)),
    )
    for batch, classes in sizes:
        yield Case(
            name="confidence loss",
            axes={"classes": classes, "batch": batch},
            inputs=partial(loss_inputs, batch=batch, classes=classes),
            variants=(
                Variant(name="as it is written", role="naive", call=partial(as_it_is_written, alpha=0.5)),
                Variant(name="torch cross_entropy", role="strong", call=partial(torchs, alpha=0.5)),
                Variant(name="by classes", role="paper", call=partial(mixed_cross_entropy, alpha=0.5)),
            ),
            cost=cost(batch, classes, bench.dtype.itemsize),
            gradients=(0,),
        )
    steps, target = bench.pick(smoke=(100, 0.8), quick=(600, 0.845), full=(600, 0.845))
    yield Case(
        name="students until",
        axes={"accuracy": target},
        inputs=lambda g: (*map(torch.clone, lesson(steps)), torch.randn(20, 64, 2, generator=g) / 10),
        variants=(
            Variant(name="weak labels", role="naive", call=partial(until, target, torchs_confidence, 0.0)),
            Variant(name="torch's loss", role="strong", call=partial(until, target, torchs_confidence, 0.5)),
            Variant(name="confidence loss", role="paper", call=partial(until, target, confidence_loss, 0.5)),
        ),
        cost={"until": None},
    )
