"""Exercises: the stack of layers, teacher forcing, and beam search."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Seq2Seq, Stack


def of_stacks(draw: Draw) -> Iterator[Try]:
    yield Try("one layer", Stack(4, 2, 1), draw.below(4, 1, 3))
    yield Try("two layers", Stack(4, 3, 2), draw.below(4, 2, 3))
    last = [(draw(2, 2), draw(2, 2)) for _ in range(2)]
    yield Try("from initial states", Stack(3, 2, 2), draw.below(3, 2, 2), last)


def of_sentences(draw: Draw) -> Iterator[Try]:
    for reverse in (True, False):
        model = Seq2Seq(4, 5, hidden=2, layers=1, reverse=reverse)
        yield Try(f"reverse is {reverse}", model, draw.below(4, 2, 3), draw.below(5, 2, 4))


def of_beams(draw: Draw) -> Iterator[Try]:
    for beam in (1, 2, 3):
        yield Try(
            f"a beam of {beam}", Seq2Seq(4, 4, hidden=3, layers=1), draw.below(4, 3), beam=beam, limit=5
        )


EXERCISES = (
    Exercise(
        name="stack",
        of="model.Stack.forward",
        task="Embed the words, run the layers, and return the top states and each layer's last state.",
        hints=("Each layer returns its states and its last state. Pass the states to the next layer.",),
        tries=of_stacks,
    ),
    Exercise(
        name="teacher forcing",
        of="model.Seq2Seq.forward",
        task="Compute the logits of each target word, given the previous words. The decoder's first input is "
        "END.",
        hints=(
            "Shift the target by one: put END first, and drop the last word.",
            "The decoder starts from the states that read(source) returns.",
        ),
        tries=of_sentences,
    ),
    Exercise(
        name="beam search",
        of="model.beam_search",
        task="Section 3.2: keep the most likely prefixes. A prefix with END is complete and leaves the beam.",
        hints=(
            "Scores are sums of log-probabilities. Flatten the (prefixes, words) matrix, and take topk.",
            "An index in the flat matrix is row · vocab + word. Reorder the states by the rows.",
            "Stop when the beam is empty, or when `beam` complete sentences score higher than every prefix.",
        ),
        tries=of_beams,
        gradients=False,
        half=False,
    ),
)
