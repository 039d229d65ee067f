"""Implements the text tower, the Vision Transformer's image tower, and CLIP with both.

Dimensions: batch, tokens, width (of a tower), dim (of the shared space), images, texts.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..layernorm import LayerNorm
from .loss import contrastive

Hidden = Float[Tensor, "batch tokens width"]
Embeddings = Float[Tensor, "batch dim"]
Images = Float[Tensor, "batch 3 height across"]

VOCAB = 49_408  # tokens of the released vocabulary; the last is the end token
LARGEST_SCALE = 100.0  # section 2.5


class QuickGELU(nn.Module):
    """x σ(1.702 x), which the released models use as GELU."""

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A pre-norm Transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(2))
        self.attention = MultiHeadAttention(width, heads, bias=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Hidden, *, causal: bool = False) -> Hidden:
        x = x + self.attention(self.norms[0](x), causal=causal)
        return x + self.feed_forward(self.norms[1](x))


class TextTower(nn.Module):
    """Section 2.4: a causal Transformer. The end token's hidden state, projected, represents the text.

    The end token has the highest id. Because of the causal mask, it does not attend to the padding after it.
    The defaults are those of ViT-B/32.

    context  longest text, in tokens
    dim      size of the shared space
    """

    def __init__(
        self,
        vocab: int = VOCAB,
        *,
        context: int = 77,
        width: int = 512,
        heads: int = 8,
        layers: int = 12,
        dim: int = 512,
    ) -> None:
        super().__init__()
        self.tokens = embedding(vocab, width, 0.02)
        self.positions = embedding(context, width, 0.01)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = LayerNorm(width)
        self.projection = nn.Linear(width, dim, bias=False)
        init_blocks(self.blocks)
        init_normal(self.projection.weight, width**-0.5)

    def hidden(self, ids: Int[Tensor, "batch tokens"], *, last: int | None = None) -> Hidden:
        """A normalised vector for each token. Image generators use these as text features.

        last  number of blocks to apply (default: all; -1 leaves out the last block, as some generators do)

        Raises ValueError for more tokens than the tower has positions.
        """
        tokens, room = ids.shape[1], self.positions.num_embeddings
        if tokens > room:
            raise ValueError(f"the text has {tokens} tokens, but the tower has {room} positions")
        x = self.tokens(ids) + self.positions.weight[:tokens]
        for block in self.blocks[:last]:
            x = block(x, causal=True)
        return self.norm(x)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Embeddings:
        ends = ids.argmax(1)
        return self.projection(self.hidden(ids)[torch.arange(len(ids), device=ids.device), ends])


class VisionTower(nn.Module):
    """A Vision Transformer with an additional normalisation before its blocks (section 2.4).

    The defaults are those of ViT-B/32.

    size  side of the square images, a multiple of `patch` (else ValueError)
    """

    def __init__(
        self,
        *,
        size: int = 224,
        patch: int = 32,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        dim: int = 512,
    ) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"an image of {size} pixels cannot be cut into patches of {patch}")
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.summary = nn.Parameter(torch.empty(width))
        self.positions = embedding((size // patch) ** 2 + 1, width, width**-0.5)
        self.norm_first = LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = LayerNorm(width)
        self.projection = nn.Linear(width, dim, bias=False)
        init_blocks(self.blocks)
        for weight in (self.summary, self.projection.weight):
            init_normal(weight, width**-0.5)

    def forward(self, images: Images) -> Embeddings:
        patches = self.patches(images).flatten(2).mT
        x = torch.cat((self.summary.expand(len(images), 1, -1), patches), 1) + self.positions.weight
        x = self.norm_first(x)
        for block in self.blocks:
            x = block(x)
        return self.projection(self.norm(x[:, 0]))


class CLIP(nn.Module):
    """Figure 3: an image tower and a text tower with outputs in a shared space, and a temperature.

    The logarithm of the inverse temperature, which scales the cosines, is learned. It starts at log(1 /
    0.07), and the scale never exceeds 100.
    """

    def __init__(self, vision: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.vision, self.text = vision, text
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scale(self) -> Float[Tensor, ""]:
        """The scale, clamped. Above the limit the gradient still flows, so the scale can fall again."""
        scale = self.log_scale.exp()
        return scale - (scale - LARGEST_SCALE).clamp(min=0).detach()

    def embed(
        self, images: Images, ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Embeddings, Float[Tensor, "texts dim"]]:
        """Embeddings of images and of texts, normalised to length 1."""
        return F.normalize(self.vision(images), dim=1), F.normalize(self.text(ids), dim=1)

    def forward(self, images: Images, ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "batch texts"]:
        """Logits of all pairs of an image and a text."""
        seen, said = self.embed(images, ids)
        return self.scale() * seen @ said.T

    def loss(self, images: Images, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Contrastive loss of images and their texts, in the same order."""
        return contrastive(*self.embed(images, ids), self.scale())


@torch.no_grad()
def classifier(text: nn.Module, prompts: Iterable[Int[Tensor, "_ tokens"]]) -> Float[Tensor, "classes dim"]:
    """Section 3.1.4: the mean of a class's normalised prompt vectors, normalised again.

    prompts  token ids of the prompts of each class
    """
    means = [F.normalize(text(ids), dim=1).mean(0) for ids in prompts]
    return F.normalize(torch.stack(means), dim=1)


def embedding(count: int, width: int, std: float) -> nn.Embedding:
    table = nn.Embedding.from_pretrained(torch.empty(count, width), freeze=False)
    init_normal(table.weight, std)
    return table


def init_normal(weight: Tensor, std: float) -> None:
    if (
        not weight.is_meta
    ):  # the meta device has nothing to fill, and importing its fill function takes a second
        nn.init.normal_(weight, std=std)


def init_blocks(blocks: nn.ModuleList) -> None:
    """Initialise both towers as the released code initialises the text tower. Layers that write to the
    residual stream are scaled down by the root of their number. Biases start at 0."""
    written = (2 * len(blocks)) ** -0.5
    for block in blocks:
        attention, (first, _, second) = block.attention, block.feed_forward
        width = first.in_features
        for layer in (attention.query, attention.key, attention.value):
            init_normal(layer.weight, width**-0.5)
        init_normal(first.weight, (2 * width) ** -0.5)
        for layer in (attention.output, second):
            init_normal(layer.weight, width**-0.5 * written)
        for layer in (attention.query, attention.key, attention.value, attention.output, first, second):
            layer.bias.detach().zero_()
