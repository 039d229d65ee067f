"""Implements GPT-2 with a gist token, attention masks, and a KV cache that keeps only a prompt's gist.

Dimensions: batch, tokens, prompt, gists (number of gist tokens after the prompt), heads, dim, room (free
entries of a cache), vocab (including the gist token, which is the last).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..attention import scaled_dot_product_attention
from ..gpt2 import GPT2
from ..gpt2.model import Cache


def sides(
    ids: Int[Tensor, "batch tokens"], gist: int
) -> tuple[Bool[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """Masks of the tokens before the first gist token and after the last. Without one, both are False."""
    marks = ids == gist
    some = marks.any(1, keepdim=True)
    before = some & (marks.cumsum(1) == 0)
    behind = some & (marks.flip(1).cumsum(1).flip(1) == 0)
    return before, behind


def causal_mask(ids: Int[Tensor, "batch tokens"], gist: int) -> Bool[Tensor, "batch 1 tokens tokens"]:
    """A causal mask: the whole prompt is visible."""
    length = ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    return earlier.expand(len(ids), 1, -1, -1)


def gist_mask(ids: Int[Tensor, "batch tokens"], gist: int) -> Bool[Tensor, "batch 1 tokens tokens"]:
    """Figure 2: tokens after the gist tokens attend to the gist tokens, but not to tokens before them."""
    before, behind = sides(ids, gist)
    return causal_mask(ids, gist) & ~(behind[:, None, :, None] & before[:, None, None, :])


def promptless_mask(ids: Int[Tensor, "batch tokens"], gist: int) -> Bool[Tensor, "batch 1 tokens tokens"]:
    """The negative control: tokens after the gist attend neither to the gist tokens nor to the prompt."""
    _, behind = sides(ids, gist)
    return causal_mask(ids, gist) & ~(behind[:, None, :, None] & ~behind[:, None, None, :])


Visible = Callable[[Tensor, int], Tensor]


@dataclass
class GistCache(Cache):
    """Keys and values of gist tokens and of all tokens after them.

    before  length of the dropped prompt: positions continue as if the prompt were still there
    """

    before: int = 0


class GistGPT2(GPT2):
    """GPT-2 with an additional gist token.

    visible  returns an attention mask, given the ids and the gist token's id
    """

    mask: Bool[Tensor, "batch 1 tokens tokens"] | None = None  # for the current text

    def __init__(
        self,
        vocab: int,
        *,
        context: int = 1024,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        visible: Visible = gist_mask,
    ) -> None:
        sizes = {"context": context, "model": model, "heads": heads, "layers": layers}
        super().__init__(vocab + 1, **sizes, std=std, attend=self.attend)
        self.gist = vocab
        self.visible = visible

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        masked = self.mask is not None
        return scaled_dot_product_attention(q, k, v, mask=self.mask, causal=causal and not masked)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], cache: Cache | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`, which are a prompt, its gist tokens, and the rest.

        cache  of the tokens before `ids`: a `Cache` with all of them, or a `GistCache` from `compress`
        """
        if not isinstance(cache, GistCache):
            self.mask = None if cache else self.visible(ids, self.gist)
            return super().forward(ids, cache)
        self.mask = None
        first, end = cache.length, cache.length + ids.shape[1]
        x = self.tokens(ids) + self.positions.weight[cache.before + first : cache.before + end]
        for block, kv in zip(self.blocks, cache.kv, strict=True):
            x = block(x, kv, first)
        cache.length = end
        return F.linear(self.norm(x), self.tokens.weight)

    @torch.no_grad()
    def compress(self, prompt: Int[Tensor, "batch prompt"], *, gists: int, room: int) -> GistCache:
        """The cache of a prompt's gist, with space for `room` more tokens and without the prompt's own
        entries."""
        count = prompt.shape[1]
        whole = self.empty_cache(len(prompt), count + gists)
        self(F.pad(prompt, (0, gists), value=self.gist), whole)
        kept = F.pad(whole.kv[..., count:, :], (0, 0, 0, room))
        return GistCache(kept, gists, count)
