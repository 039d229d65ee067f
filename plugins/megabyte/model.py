"""Implements section 2: the patch embedder, the global model and the local model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..gpt2.model import Block

BYTES = 256


class Megabyte(nn.Module):
    """Section 2: the patch embedder, the global model and the local model.

    patch          P, the number of bytes per patch
    patches        K, the largest number of patches of a text
    D_G, D_L       hidden sizes; D_G, the size of P byte embeddings, must be a multiple of P (else ValueError)
    layers, heads  number of layers and of heads, for the global and for the local model
    std            standard deviation of the initial embeddings, position embeddings and start vectors
    """

    def __init__(
        self,
        *,
        patch: int = 8,
        patches: int = 1024,
        D_G: int = 1024,
        D_L: int = 512,
        layers: tuple[int, int] = (12, 6),
        heads: tuple[int, int] = (16, 8),
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if D_G % patch:
            raise ValueError(f"a global width of {D_G} cannot be split over {patch} bytes")
        self.patch = patch
        self.bytes = nn.Embedding(BYTES, D_G // patch)
        self.positions = nn.Parameter(torch.randn(patches * patch, D_G // patch) * std)
        self.first_patch = nn.Parameter(torch.randn(D_G) * std)  # replaces the patch before the first one
        self.global_blocks = nn.ModuleList(Block(D_G, heads[0]) for _ in range(layers[0]))
        self.to_local = nn.Linear(D_G // patch, D_L, bias=False)
        self.local_bytes = nn.Embedding(BYTES, D_L)
        self.local_positions = nn.Parameter(torch.randn(patch, D_L) * std)
        self.first_byte = nn.Parameter(torch.randn(D_L) * std)
        self.local_blocks = nn.ModuleList(Block(D_L, heads[1]) for _ in range(layers[1]))
        self.norms = nn.ModuleList((nn.LayerNorm(D_G), nn.LayerNorm(D_L)))
        self.readout = nn.Linear(D_L, BYTES, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Embedding) and not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=std)

    def forward(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, "batch bytes 256"]:
        """Logits of each byte, given the bytes before it. `ids` must consist of whole patches."""
        patched = ids.unflatten(1, (-1, self.patch))
        said = self.across_patches(self.embed_patches(patched, 0))
        local = self.local_bytes(patched[:, :, :-1])
        start = self.first_byte.expand(*patched.shape[:2], 1, -1)
        x = said + torch.cat((start, local), 2) + self.local_positions
        return self.within_patches(x.flatten(0, 1)).unflatten(0, (len(ids), -1)).flatten(1, 2)

    def embed_patches(
        self, patched: Int[Tensor, "batch patches patch"], first: int
    ) -> Float[Tensor, "batch patches D_G"]:
        """Inputs of the global model: for each patch, the concatenated byte embeddings of the previous patch.

        The input of patch k contains no bytes of patch k. If `first` is 0, the first patch gets a learned
        vector. Otherwise `patched` contains the predecessors of the patches from number `first` on.
        """
        size, count = self.patch, patched.shape[1]
        before = patched if first else patched[:, :-1]
        start = (first - 1 if first else 0) * size
        places = self.positions[start : start + before.shape[1] * size].view(
            -1, size, self.bytes.embedding_dim
        )
        whole = (self.bytes(before) + places).flatten(2)
        if first:
            return whole
        return torch.cat((self.first_patch.expand(len(patched), 1, -1), whole), 1)[:, :count]

    def across_patches(
        self,
        x: Float[Tensor, "batch patches D_G"],
        cache: Float[Tensor, "layers 2 batch heads room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch patches patch D_L"]:
        """Outputs of the global model for each byte of each patch."""
        for layer, block in enumerate(self.global_blocks):
            x = block(x, None if cache is None else cache[layer], first)
        return self.to_local(self.norms[0](x).unflatten(-1, (self.patch, -1)))

    def within_patches(
        self,
        x: Float[Tensor, "texts some D_L"],
        cache: Float[Tensor, "layers 2 texts heads room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "texts some 256"]:
        for layer, block in enumerate(self.local_blocks):
            x = block(x, None if cache is None else cache[layer], first)
        return self.readout(self.norms[1](x))

    def loss(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, ""]:
        """Mean loss in nats per byte."""
        return F.cross_entropy(self(ids).flatten(0, 1), ids.flatten())

    @torch.no_grad()
    def generate(
        self, ids: Int[Tensor, "batch bytes"], patches: int, choose: Callable[[Tensor], Tensor]
    ) -> Int[Tensor, "batch longer"]:
        """Extend `ids`, which consists of whole patches, by `patches` patches. `choose` maps logits to bytes.

        The global model runs once per patch and the local model once per byte, each with a KV cache.
        """
        size, known = self.patch, ids.shape[1] // self.patch
        attention = self.global_blocks[0].attention, self.local_blocks[0].attention
        heads = [each.heads for each in attention]
        dims = [each.output.in_features // each.heads for each in attention]
        batch, new = len(ids), self.first_byte.new_empty
        whole = new(len(self.global_blocks), 2, batch, heads[0], known + patches, dims[0])
        near = new(len(self.local_blocks), 2, batch, heads[1], size, dims[1])
        patched = F.pad(ids, (0, size)).unflatten(1, (-1, size))  # the last patch is the one to generate
        said = self.across_patches(self.embed_patches(patched, 0), whole)[:, -1]
        written = [ids]
        for number in range(known, known + patches):
            if number > known:
                last = torch.cat(written[-size:], 1)[:, None]
                said = self.across_patches(self.embed_patches(last, number), whole, number)[:, 0]
            x = self.first_byte.expand(batch, -1)
            for place in range(size):
                token = (x + said[:, place] + self.local_positions[place])[:, None]
                logits = self.within_patches(token, near, place)[:, 0]
                written.append(choose(logits)[:, None])
                x = self.local_bytes(written[-1][:, 0])
        return torch.cat(written, 1)
