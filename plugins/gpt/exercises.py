"""Exercises: write the block, the input format, and the fine-tuning loss."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GPT, Block, Classifier


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("3 tokens", Block(2, 1, dropout=0.0), draw(1, 3, 2))
    yield Try("causal", Block(4, 2, dropout=0.0), draw(2, 3, 4), causal=True)
    mask = draw.mask(2, 3, 3)
    mask[..., 0] = True
    yield Try("a mask", Block(4, 2, dropout=0.0), draw(2, 3, 4), mask=mask)


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one text", draw.below(5, 1, 3), 7, 8)
    yield Try("two texts", draw.below(5, 2, 4), 7, 8)


def of_losses(draw: Draw) -> Iterator[Try]:
    for auxiliary in (0.5, 0.0):
        gpt = GPT(6, context=4, model=2, heads=1, layers=1, dropout=0.0)
        yield Try(
            f"an auxiliary weight of {auxiliary}",
            Classifier(gpt, 3),
            draw.below(6, 2, 4),
            draw.below(3, 2),
            auxiliary=auxiliary,
        )


EXERCISES = (
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Write section 4.1's post-norm block: attention, residual sum and layer normalisation, then the "
        "same with the feed-forward layer.",
        hints=("Normalise after the residual sum, and apply dropout to each sub-layer's output.",),
        tries=of_blocks,
    ),
    Exercise(
        name="frame",
        of="model.framed",
        task="Section 3.3: put the start token before each text of a batch, and the extract token after it.",
        hints=("Add a column on either side: torch.cat along dimension 1.",),
        tries=of_texts,
    ),
    Exercise(
        name="fine-tuning loss",
        of="model.Classifier.loss",
        task="Compute equation 5: the task's cross-entropy plus `auxiliary` times the input's "
        "language-modelling loss.",
        hints=(
            (
                "The last token's hidden state predicts the label. All others predict the next token, with "
                "the embedding as output matrix."
            ),
            "Position i predicts token i + 1, so compare hidden[:, :-1] with ids[:, 1:].",
        ),
        tries=of_losses,
    ),
)
