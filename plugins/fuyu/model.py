"""Implements Persimmon's decoder with image patches among the tokens.

Dimensions: batch, channels, height, width (pixels), rows, columns (of patches), tokens, model, vocab.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..persimmon import Persimmon
from ..vit import patches

Images = Float[Tensor, "batch channels height width"]


class Fuyu(Persimmon):
    """A decoder without an image encoder. One matrix projects each patch to the size of an embedding. The
    defaults are those of the released model.

    patch     side of a patch in pixels
    newline   id of the token that ends each row of patches; None for no newlines
    settings  passed to `Persimmon`
    """

    def __init__(
        self,
        vocab: int = 262_144,
        *,
        patch: int = 30,
        channels: int = 3,
        newline: int | None = 71_019,
        model: int = 4096,
        std: float = 0.02,
        **settings: object,
    ) -> None:
        super().__init__(vocab, model=model, std=std, **settings)
        self.patch, self.newline = patch, newline
        self.look = nn.Linear(channels * patch**2, model)
        if not self.look.weight.is_meta:
            nn.init.normal_(self.look.weight, std=std)
            nn.init.zeros_(self.look.bias)

    def image_tokens(self, images: Images) -> Float[Tensor, "batch tokens model"]:
        """Embedded patches row by row, with a newline after each row. Images must consist of whole
        patches."""
        seen = self.look(patches(images, self.patch))
        if self.newline is not None:
            newline = self.embed(torch.tensor([self.newline], device=images.device))
            seen = torch.cat((seen, newline.expand(*seen.shape[:2], 1, -1)), 2)
        return seen.flatten(1, 2)

    def forward(
        self, ids: Int[Tensor, "batch text"], images: Images | Sequence[Float[Tensor, "_ _ _"]] = ()
    ) -> Float[Tensor, "batch text vocab"]:
        """Logits of the next token after each of `ids`, which follow the image.

        images  one image per text: a batch if all have the same size, else a sequence; empty for texts alone.
                Shorter sequences are padded at the end, and no token attends to later padding
        """
        x, starts = self.sequences(self.embed(ids), images)
        for block in self.blocks:
            x = block(x)
        places = starts[:, None] + torch.arange(ids.shape[1], device=ids.device)
        said = x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))
        return self.readout(self.norm(said))

    def sequences(
        self, text: Float[Tensor, "batch text model"], images: Images | Sequence[Float[Tensor, "_ _ _"]]
    ) -> tuple[Float[Tensor, "batch tokens model"], Int[Tensor, " batch"]]:
        """Images followed by texts, and the positions at which the texts start."""
        if isinstance(images, Tensor) or not images:
            seen = self.image_tokens(images) if isinstance(images, Tensor) else text[:, :0]
            return torch.cat((seen, text), 1), torch.full((len(text),), seen.shape[1], device=text.device)
        each = [self.image_tokens(image[None])[0] for image in images]
        joined = [torch.cat(parts) for parts in zip(each, text, strict=True)]
        starts = torch.tensor([len(seen) for seen in each], device=text.device)
        return pad_sequence(joined, batch_first=True), starts

    def loss(
        self,
        ids: Int[Tensor, "batch text"],
        images: Images | Sequence[Float[Tensor, "_ _ _"]] = (),
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per text token after the first. Image tokens are not predicted."""
        return F.cross_entropy(self(ids[:, :-1], images).flatten(0, 1), ids[:, 1:].flatten())


def layout(height: int, width: int, *, patch: int = 30) -> tuple[int, int, int]:
    """Rows, columns and tokens (with newlines) of an image of this size, padded to whole patches."""
    rows, columns = -(-height // patch), -(-width // patch)
    return rows, columns, rows * (columns + 1)
