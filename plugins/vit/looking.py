"""Shows a trained ViT's attention and position embeddings in pictures and a table."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Run

from .model import ViT, attention_distance, rollout


@torch.no_grad()
def show(run: Run, network: ViT, x: Float[Tensor, "n 3 h w"], mean: float) -> None:
    """Attention from the class token (figure 6), similarity of positions, and attention distance (figure 7).

    x  pictures minus `mean`; the first twenty are shown
    """
    x = x[:20]
    side = x.shape[-1]
    attentions = network.attentions(x)
    grid = side // network.patch
    maps = rollout(attentions).unflatten(1, (1, grid, grid))
    maps = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    maps = maps / maps.amax((2, 3), keepdim=True)
    seen = (x + mean).clamp(0, 1)
    rows = [part for ten in (0, 10) for part in (seen[ten : ten + 10], (seen * maps)[ten : ten + 10])]
    caption = "Pictures, and below each the same picture weighted by the class token's attention (rollout)."
    run.image("attention", enlarged(torch.cat(rows), 4), columns=min(10, len(x)), caption=caption)
    vectors = F.normalize(network.positions(grid, grid)[1:], dim=1)
    likeness = (vectors @ vectors.T).unflatten(1, (1, grid, grid))
    caption = (
        "Cosine similarity of position embeddings. The map in row i and column j compares the patch at this "
        "position with all patches. Black is -1, white is 1."
    )
    run.image("positions", enlarged((likeness + 1) / 2, 12), columns=grid, caption=caption)
    rows = [
        [block, head, round(distance, 3)]
        for block, weights in enumerate(attentions, 1)
        for head, distance in enumerate(attention_distance(weights, grid, grid).tolist(), 1)
    ]
    caption = "Mean attention distance of each head, in patches."
    run.table("how far a patch looks", ["block", "head", "patches"], rows, caption=caption)


def enlarged(images: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c H W"]:
    return images.cpu().float().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
