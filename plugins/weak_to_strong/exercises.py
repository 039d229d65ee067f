"""Exercises: the performance gap recovered, hard predictions, and the confidence loss."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_accuracies(draw: Draw) -> Iterator[Try]:
    yield Try("in between", 0.6, 0.7, 0.8)
    yield Try("beyond the ceiling", 0.5, 0.95, 0.9)
    yield Try("worse than the teacher", 0.6, 0.55, 0.8)


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("half of 4", draw(4), 0.5)
    yield Try("a quarter of 8", draw(2, 8), 0.25)
    yield Try("all", draw(3), 1.0)
    yield Try("none", draw(3), 0.0)


def of_classes(draw: Draw) -> Iterator[Try]:
    yield Try("2 classes", draw(2, 2), draw(2, 2).softmax(-1), draw.below(2, 2), 0.5)
    yield Try("3 classes, alpha 0.2", draw(3, 3), draw(3, 3).softmax(-1), draw.below(3, 3), 0.2)


def of_logits(draw: Draw) -> Iterator[Try]:
    yield Try("half of class 1", draw(4, 2), draw(4, 2).softmax(-1), 0.5)
    yield Try("a quarter of class 1", draw(4, 2), draw(4, 2).softmax(-1), 0.3, share=0.25)


EXERCISES = (
    Exercise(
        name="gap recovered",
        of="model.gap_recovered",
        task="Compute section 3's measure from three accuracies.",
        hints=("Divide the student's gain over its teacher by the largest possible gain.",),
        tries=of_accuracies,
    ),
    Exercise(
        name="hard predictions",
        of="model.harden",
        task="Predict class 1 for a given share of each batch: the examples with the largest scores.",
        hints=(
            "Sort the scores. The threshold is the largest score among the examples predicted as class 0.",
            "With a share of 1 every score is above the threshold, so it must be -inf.",
        ),
        tries=of_scores,
    ),
    Exercise(
        name="mixed cross-entropy",
        of="model.mixed_cross_entropy",
        task="Compute the cross-entropies with soft and with hard labels, and mix them with weight alpha.",
        hints=(
            "Compute both from one log-softmax: a weighted sum, and a gather.",
            "The weights are 1 - alpha (soft labels) and alpha (hard labels). Labels get no gradient.",
        ),
        tries=of_classes,
    ),
    Exercise(
        name="confidence loss",
        of="model.confidence_loss",
        task="Section 4.3: mix the student's own hard predictions into the teacher's labels.",
        hints=(
            "The score is the logit of class 1 minus the logit of class 0, without gradient.",
            "Harden the score, then mix it with the labels.",
        ),
        tries=of_logits,
    ),
)
