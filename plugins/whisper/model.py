"""The encoder-decoder, with the parameter names of the released weights (without transformers' `model.`)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Hidden = Float[Tensor, "batch positions width"]
Sound = Float[Tensor, "batch sounds width"]
Keys = Float[Tensor, "batch heads _ head"]


@dataclass(frozen=True)
class Size:
    """The sizes of the network (table 1), the input and the text. `frames` is the padded length (30 s)."""

    layers: int
    width: int
    heads: int
    mels: int = 80
    frames: int = 3000
    tokens: int = 448
    vocab: int = 51_865


SIZES = {
    "tiny": Size(4, 384, 6),
    "base": Size(6, 512, 8),
    "small": Size(12, 768, 12),
    "medium": Size(24, 1024, 16),
    "large": Size(32, 1280, 20),
}


class Seen(NamedTuple):
    """A decoder layer's KV cache: keys and values of the text so far, and of the audio."""

    keys: Keys
    values: Keys
    sound_keys: Keys
    sound_values: Keys


class Attention(nn.Module):
    """Multi-head attention. Keys have no bias, because the softmax does not depend on it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def split(self, x: Float[Tensor, "batch _ width"]) -> Keys:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def project(self, x: Float[Tensor, "batch _ width"]) -> tuple[Keys, Keys]:
        return self.split(self.k_proj(x)), self.split(self.v_proj(x))

    def forward(self, x: Hidden, keys: Keys, values: Keys, causal: bool = False) -> Hidden:
        """With `causal`, the last query sees all keys, and each earlier query one key fewer."""
        q = self.split(self.q_proj(x))
        if causal and q.shape[2] > 1:
            hidden = torch.ones(q.shape[2], keys.shape[2], dtype=torch.bool, device=x.device)
            hidden = hidden.tril(keys.shape[2] - q.shape[2])
            mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=hidden)
        else:
            mixed = F.scaled_dot_product_attention(q, keys, values)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Hidden) -> Hidden:
        hidden = self.self_attn_layer_norm(x)
        x = x + self.self_attn(hidden, *self.self_attn.project(hidden))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class DecoderLayer(EncoderLayer):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.encoder_attn = Attention(width, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Hidden, sound: Sound | None, seen: Seen | None = None) -> tuple[Hidden, Seen]:
        """Process the tokens after the cached tokens, and extend the cache. Without a cache, pass `sound`."""
        hidden = self.self_attn_layer_norm(x)
        keys, values = self.self_attn.project(hidden)
        if seen is None:
            assert sound is not None, "the first tokens need the sound"
            seen = Seen(keys, values, *self.encoder_attn.project(sound))
        else:
            seen = seen._replace(
                keys=torch.cat((seen.keys, keys), 2), values=torch.cat((seen.values, values), 2)
            )
        x = x + self.self_attn(hidden, seen.keys, seen.values, causal=True)
        hidden = self.encoder_attn_layer_norm(x)
        x = x + self.encoder_attn(hidden, seen.sound_keys, seen.sound_values)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x)))), seen


def sinusoids(positions: int, width: int) -> Float[Tensor, "positions width"]:
    """Sines, then cosines, of the positions at frequencies from 1 to 1 / 10000, including both."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), 1)


class Encoder(nn.Module):
    """Section 2.2: two convolutions (the second with stride 2), fixed sinusoidal positions, and layers."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(size.mels, size.width, 3, padding=1)
        self.conv2 = nn.Conv1d(size.width, size.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(size.frames // 2, size.width)
        self.embed_positions.weight.data = sinusoids(size.frames // 2, size.width)
        self.embed_positions.requires_grad_(False)
        self.layers = nn.ModuleList([EncoderLayer(size.width, size.heads) for _ in range(size.layers)])
        self.layer_norm = nn.LayerNorm(size.width)

    def forward(self, mel: Float[Tensor, "batch frames mels"]) -> Hidden:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel.mT)))).mT
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Decoder(nn.Module):
    """A decoder with learned positions, whose output layer is tied to the token embeddings."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocab, size.width)
        self.embed_positions = nn.Embedding(size.tokens, size.width)
        self.layers = nn.ModuleList([DecoderLayer(size.width, size.heads) for _ in range(size.layers)])
        self.layer_norm = nn.LayerNorm(size.width)
        for embedding in (self.embed_tokens, self.embed_positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(
        self, tokens: Int[Tensor, "batch tokens"], sound: Sound | None, seen: list[Seen] | None = None
    ) -> tuple[Float[Tensor, "batch tokens vocab"], list[Seen]]:
        start = seen[0].keys.shape[2] if seen else 0
        places = self.embed_positions.weight[start : start + tokens.shape[1]]
        x, kept = self.embed_tokens(tokens) + places, []
        for index, layer in enumerate(self.layers):
            x, state = layer(x, sound, seen[index] if seen else None)
            kept.append(state)
        return F.linear(self.layer_norm(x), self.embed_tokens.weight), kept


class Whisper(nn.Module):
    """Logits of the next token at each position, from a log-mel spectrogram and the text so far."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(size)
        self.decoder = Decoder(size)

    def forward(
        self, mel: Float[Tensor, "batch frames mels"], tokens: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens vocab"]:
        logits, _ = self.decoder(tokens, self.encoder(mel))
        return logits
