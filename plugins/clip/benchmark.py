"""Times the contrastive loss: pair by pair, from the whole matrix of logits, and in parts."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .loss import contrastive, two_cross_entropies


def image_by_image(seen: Tensor, said: Tensor, scale: Tensor) -> Tensor:
    """Computes the loss one pair at a time: its image against all texts, and its text against all images."""
    total = scale.new_zeros(())
    for index, (image, text) in enumerate(zip(seen, said, strict=True)):
        for logits in (scale * said @ image, scale * seen @ text):
            total = total - logits.log_softmax(0)[index]
    return total / (2 * len(seen))


def sums_of_the_whole(seen: Tensor, said: Tensor, scale: Tensor) -> Tensor:
    """Stores the matrix once, whereas two cross-entropies also store its softmaxes."""
    logits = scale * seen @ said.T
    sums = (logits.logsumexp(1).mean() + logits.logsumexp(0).mean()) / 2
    return sums - logits.diagonal().mean()


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    dim = bench.pick(smoke=8, quick=256, full=512)

    def inputs(generator: torch.Generator, pairs: int) -> tuple[Tensor, ...]:
        images, texts = (F.normalize(torch.randn(pairs, dim, generator=generator), dim=1) for _ in range(2))
        # The pairs are already similar, as they would be after some training.
        return images, F.normalize(images + 2 * texts, dim=1), torch.tensor(20.0)

    for pairs in bench.pick(smoke=(5,), quick=(256, 512), full=(4096, 16_384)):
        yield Case(
            name="loss of a batch",
            axes={"pairs": pairs},
            inputs=lambda generator, pairs=pairs: inputs(generator, pairs),
            variants=(
                Variant(name="image by image", role="naive", call=image_by_image),
                Variant(name="two cross-entropies", role="strong", call=two_cross_entropies),
                Variant(name="sums of the whole matrix", role="strong", call=sums_of_the_whole),
                Variant(name="in parts", role="paper", call=contrastive),
            ),
            # A fused kernel need not write the matrix to memory.
            cost=Cost.products(2 * pairs * pairs * dim, 2 * pairs * dim * bench.dtype.itemsize),
        )
