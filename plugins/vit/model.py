"""Implements patches, positions, the encoder's blocks, the classifier, and attention maps.

Dimensions: batch, channels, height, width (pixels), rows, columns (of patches), patches (rows · columns),
tokens (the class token and the patches), model (D), hidden (MLP size).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attention import MultiHeadAttention, split_heads
from ..attention.model import attention_weights
from ..layernorm import LayerNorm

Images = Float[Tensor, "batch channels height width"]
Tokens = Float[Tensor, "batch tokens model"]


def patches(images: Images, size: int) -> Float[Tensor, "batch rows columns pixels"]:
    """Patches of size × size pixels, flattened in the order channel, row, column.

    Raises ValueError if the image's height or width is not a multiple of `size`.
    """
    height, width = images.shape[2:]
    if height % size or width % size:
        raise ValueError(f"{height} × {width} pixels cannot be divided into patches of {size} × {size}")
    cut = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)


class Positions(nn.Module):
    """Section 3.1: a learned embedding for each position in the sequence. The class token comes first."""

    def __init__(self, rows: int, columns: int, model: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.weight = nn.Parameter(torch.empty(1 + rows * columns, model))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, rows: int, columns: int) -> Float[Tensor, "tokens model"]:
        """Section 3.2: for another grid, interpolate the patches' position embeddings in two dimensions."""
        if (rows, columns) == (self.rows, self.columns):
            return self.weight
        grid = self.weight[1:].T.unflatten(1, (self.rows, self.columns))[None]
        resized = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat((self.weight[:1], resized[0].flatten(1).T))


class Positions2D(nn.Module):
    """Appendix D.4: half of the embedding encodes the patch's row, and the other half the column."""

    def __init__(self, rows: int, columns: int, model: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(1, model))
        self.down = nn.Parameter(torch.empty(rows, model - model // 2))
        self.across = nn.Parameter(torch.empty(columns, model // 2))
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def forward(self, rows: int, columns: int) -> Float[Tensor, "tokens model"]:
        """The embeddings of a grid that fits into the upper left corner of the original grid."""
        down = self.down[:rows, None].expand(-1, columns, -1)
        across = self.across[None, :columns].expand(rows, -1, -1)
        return torch.cat((self.first, torch.cat((down, across), 2).flatten(0, 1)))


class Block(nn.Module):
    """Equations 2 and 3: pre-norm residual attention and MLP.

    activation  activation function of the MLP
    dropout     rate on both residual branches and on the MLP's hidden units (appendix B.1)
    """

    def __init__(
        self,
        model: int,
        heads: int,
        hidden: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        dropout: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(model, heads, bias=True)
        self.norms = nn.ModuleList(LayerNorm(model, eps=eps) for _ in range(2))
        self.up = nn.Linear(model, hidden)
        self.down = nn.Linear(hidden, model)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        for layer in self.modules():
            if isinstance(layer, nn.Linear) and not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tokens,
        *,
        mask: Bool[Tensor, "#batch #tokens tokens"] | None = None,
        causal: bool = False,
    ) -> Tokens:
        """`mask` is False for tokens that get no attention. `mask` and `causal` are for texts."""
        x = x + self.dropout(self.attention(self.norms[0](x), mask=mask, causal=causal))
        hidden = self.dropout(self.activation(self.up(self.norms[1](x))))
        return x + self.dropout(self.down(hidden))

    def attention_weights(self, x: Tokens) -> Float[Tensor, "batch heads tokens tokens"]:
        """The attention weights of each head."""
        normed = self.norms[0](x)
        q, k = self.attention.query(normed), self.attention.key(normed)
        return attention_weights(*(split_heads(vectors, self.attention.heads) for vectors in (q, k)))


class ViT(nn.Module):
    """Equations 1 to 4 with a linear head (as in fine-tuning). The defaults are those of ViT-B/16.

    side       image side in pixels, which determines the grid of positions
    patch      patch side in pixels
    positions  makes the position embedding from rows, columns and model; None for no position embedding
    dropout    also applied to the sum of patch and position embeddings
    """

    def __init__(
        self,
        *,
        side: int = 224,
        patch: int = 16,
        channels: int = 3,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        hidden: int = 3072,
        classes: int = 1000,
        positions: Callable[[int, int, int], nn.Module] | None = Positions,
        dropout: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(channels * patch**2, model)
        self.token = nn.Parameter(torch.zeros(model))
        self.positions = positions and positions(side // patch, side // patch, model)
        self.blocks = nn.ModuleList(
            Block(model, heads, hidden, dropout=dropout, eps=eps) for _ in range(layers)
        )
        self.norm = LayerNorm(model, eps=eps)
        self.head = nn.Linear(model, classes)
        self.dropout = nn.Dropout(dropout)
        if not self.head.weight.is_meta:
            nn.init.xavier_uniform_(self.embed.weight)
            for weight in (self.embed.bias, self.head.weight, self.head.bias):
                nn.init.zeros_(weight)  # the head: section 3.2

    def tokens(self, images: Images) -> Tokens:
        """Equation 1: the class token and then the patches, row by row, with position embeddings."""
        cut = patches(images, self.patch)
        rows, columns = cut.shape[1:3]
        first = self.token.expand(len(images), 1, -1)
        x = torch.cat((first, self.embed(cut).flatten(1, 2)), 1)
        if self.positions is not None:
            x = x + self.positions(rows, columns)
        return self.dropout(x)

    def encode(self, images: Images) -> Tokens:
        """Normalised hidden states of the last block."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits from the class token (equation 4)."""
        return self.head(self.encode(images)[:, 0])

    def attentions(self, images: Images) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """The attention weights of each block."""
        x, found = self.tokens(images), []
        for block in self.blocks:
            found.append(block.attention_weights(x))
            x = block(x)
        return found


LARGE = {"model": 1024, "heads": 16, "layers": 24, "hidden": 4096}
HUGE = {"model": 1280, "heads": 16, "layers": 32, "hidden": 5120, "patch": 14}


def rollout(attentions: list[Float[Tensor, "batch heads tokens tokens"]]) -> Float[Tensor, "batch patches"]:
    """Appendix D.8: attention rollout from the class token to the patches. The shares sum to 1."""
    # Average a block's heads, average the result with the identity for the residual connection, and multiply
    # over all blocks.
    flow = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype, device=attentions[0].device)
    for weights in attentions:
        flow = (weights.mean(1) @ flow + flow) / 2
    shares = flow[:, 0, 1:]
    return shares / shares.sum(1, keepdim=True)


def attention_distance(
    weights: Float[Tensor, "batch heads tokens tokens"], rows: int, columns: int
) -> Float[Tensor, " heads"]:
    """Appendix D.7: mean attention distance of each head, in patches."""
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(weights)
    between = weights[:, :, 1:, 1:]
    distances = (between * torch.cdist(places, places)).sum(-1) / between.sum(-1)
    return distances.mean((0, 2))
