"""The network that maps text to mel spectrograms. Its parameters have torchaudio's names."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Text = Int[Tensor, "batch symbols"]
Lengths = Int[Tensor, " batch"]
Memory = Float[Tensor, "batch symbols memory"]
Weights = Float[Tensor, "batch symbols"]
Mel = Float[Tensor, "batch bands frames"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of section 2.2, with two additions.

    group     frames per decoder step (1 in the paper)
    location  whether attention sees its past weights
    """

    symbols: int = 148
    bands: int = 80
    encoder: int = 512
    convolutions: int = 3
    prenet: int = 256
    rnn: int = 1024
    attention: int = 128
    filters: int = 32
    taps: int = 31
    postnet: int = 512
    refinements: int = 5
    group: int = 1
    prenet_dropout: float = 0.5
    dropout: float = 0.5
    zoneout: float = 0.1
    location: bool = True


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of size five, then batch normalisation."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, 5, padding=2), nn.BatchNorm1d(outputs))


class LocationLayer(nn.Module):
    """Features of past attention: convolutions over the previous weights and the sum of all past weights."""

    def __init__(self, filters: int, taps: int, dim: int) -> None:
        super().__init__()
        self.location_conv = nn.Conv1d(2, filters, taps, padding=taps // 2, bias=False)
        self.location_dense = nn.Linear(filters, dim, bias=False)
        nn.init.xavier_uniform_(self.location_conv.weight)
        nn.init.xavier_uniform_(self.location_dense.weight, nn.init.calculate_gain("tanh"))

    def forward(self, past: Float[Tensor, "batch 2 symbols"]) -> Float[Tensor, "batch symbols dim"]:
        features: Tensor = self.location_dense(self.location_conv(past).mT)
        return features


class LocationSensitiveAttention(nn.Module):
    """Attention based on content and on features of past weights (Chorowski et al. 2015, equation 9).

    With `location=False` there are no such features, so attention depends on content alone.
    """

    def __init__(
        self, query: int, memory: int, dim: int, filters: int, taps: int, location: bool = True
    ) -> None:
        super().__init__()
        self.query_layer = nn.Linear(query, dim, bias=False)
        self.memory_layer = nn.Linear(memory, dim, bias=False)
        self.v = nn.Linear(dim, 1, bias=False)
        for layer in (self.query_layer, self.memory_layer):
            nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("tanh"))
        nn.init.xavier_uniform_(self.v.weight)
        self.location_layer = LocationLayer(filters, taps, dim) if location else None

    def forward(
        self,
        query: Float[Tensor, "batch query"],
        keys: Float[Tensor, "batch symbols dim"],
        past: Float[Tensor, "batch 2 symbols"],
        mask: Bool[Tensor, "batch symbols"],
    ) -> Weights:
        """The attention weights of the symbols.

        keys  the output of `memory_layer`, the same at every step
        past  the previous weights, and the sum of all weights so far
        mask  False for padding
        """
        # e = v · tanh(W s + V h + U f), with features f of past weights.
        hidden = self.query_layer(query).unsqueeze(1) + keys
        if self.location_layer is not None:
            hidden = hidden + self.location_layer(past)
        energies = self.v(hidden.tanh()).squeeze(-1)
        weights: Tensor = energies.masked_fill(~mask, -torch.inf).softmax(-1)
        return weights


class Encoder(nn.Module):
    """Convolutions, then a bidirectional LSTM."""

    def __init__(self, dim: int, convolutions: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([convolution(dim, dim) for _ in range(convolutions)])
        self.lstm = nn.LSTM(dim, dim // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Memory, lengths: Lengths, mask: Bool[Tensor, "batch symbols"]) -> Memory:
        inside = mask.unsqueeze(1).to(x.dtype)
        x = x.mT * inside
        for layer in self.convolutions:
            x = self.dropout(layer(x).relu()) * inside
        packed = nn.utils.rnn.pack_padded_sequence(
            x.mT, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=mask.shape[1]
        )
        return states


class Prenet(nn.Module):
    """A bottleneck with dropout that stays active at inference, so that the speech varies (section 2.2)."""

    def __init__(self, bands: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(bands, dim, bias=False), nn.Linear(dim, dim, bias=False)])
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*batch bands"]) -> Float[Tensor, "*batch dim"]:
        for layer in self.layers:
            x = F.dropout(layer(x).relu(), self.dropout, training=True)  # in evaluation, too: section 2.2
        return x


class State(NamedTuple):
    """Hidden state and cell of both LSTMs, the attention weights, their sum, and the context vector."""

    hidden: Tensor
    cell: Tensor
    upper_hidden: Tensor
    upper_cell: Tensor
    weights: Tensor
    total: Tensor
    context: Tensor


class Decoder(nn.Module):
    """A decoder step: pre-net, LSTM, attention, LSTM, then a group of frames and the stop logit."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bands, self.group, self.zoneout = sizes.bands, sizes.group, sizes.zoneout
        both = sizes.rnn + sizes.encoder
        self.prenet = Prenet(sizes.bands, sizes.prenet, sizes.prenet_dropout)
        self.attention_rnn = nn.LSTMCell(sizes.prenet + sizes.encoder, sizes.rnn)
        self.attention_layer = LocationSensitiveAttention(
            sizes.rnn, sizes.encoder, sizes.attention, sizes.filters, sizes.taps, sizes.location
        )
        self.decoder_rnn = nn.LSTMCell(both, sizes.rnn)
        self.linear_projection = nn.Linear(both, sizes.bands * sizes.group)
        self.gate_layer = nn.Linear(both, 1)

    def start(self, memory: Memory) -> State:
        zeros = memory.new_zeros(len(memory), self.attention_rnn.hidden_size)
        weights = memory.new_zeros(memory.shape[:2])
        return State(
            zeros, zeros, zeros, zeros, weights, weights, memory.new_zeros(len(memory), memory.shape[2])
        )

    def zone(self, new: Tensor, old: Tensor) -> Tensor:
        """Zoneout (Krueger et al. 2017): units keep their old value at random. Evaluation takes the mean."""
        if not self.zoneout:
            return new
        if self.training:
            return torch.where(torch.rand_like(new) < self.zoneout, old, new)
        return self.zoneout * old + (1 - self.zoneout) * new

    def step(
        self,
        frame: Float[Tensor, "batch prenet"],
        state: State,
        memory: Memory,
        keys: Float[Tensor, "batch symbols dim"],
        mask: Bool[Tensor, "batch symbols"],
    ) -> tuple[Float[Tensor, "batch values"], Float[Tensor, "batch 1"], State]:
        hidden, cell = self.attention_rnn(torch.cat((frame, state.context), 1), (state.hidden, state.cell))
        hidden, cell = self.zone(hidden, state.hidden), self.zone(cell, state.cell)
        weights = self.attention_layer(hidden, keys, torch.stack((state.weights, state.total), 1), mask)
        context = (weights.unsqueeze(1) @ memory).squeeze(1)
        upper, upper_cell = self.decoder_rnn(
            torch.cat((hidden, context), 1), (state.upper_hidden, state.upper_cell)
        )
        upper, upper_cell = self.zone(upper, state.upper_hidden), self.zone(upper_cell, state.upper_cell)
        found = torch.cat((upper, context), 1)
        after = State(hidden, cell, upper, upper_cell, weights, state.total + weights, context)
        return self.linear_projection(found), self.gate_layer(found), after


class Postnet(nn.Module):
    """Convolutions over earlier and later frames, whose output is added to the spectrogram."""

    def __init__(self, bands: int, dim: int, count: int, dropout: float) -> None:
        super().__init__()
        widths = [bands] + [dim] * (count - 1) + [bands]
        self.convolutions = nn.ModuleList([convolution(a, b) for a, b in itertools.pairwise(widths)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Mel) -> Mel:
        for index, layer in enumerate(self.convolutions):
            x = layer(x)
            x = self.dropout(x.tanh() if index < len(self.convolutions) - 1 else x)
        return x


class Spoken(NamedTuple):
    """Spectrograms before and after the post-net, stop logits, and the attention weights at each step."""

    mel: Mel
    refined: Mel
    stop: Float[Tensor, "batch steps"]
    weights: Float[Tensor, "batch steps symbols"]


class Tacotron2(nn.Module):
    """Text to spectrograms. `forward` gets the true previous frames (teacher forcing), `speak` its own."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.symbols, sizes.encoder)
        self.encoder = Encoder(sizes.encoder, sizes.convolutions, sizes.dropout)
        self.decoder = Decoder(sizes)
        self.postnet = Postnet(sizes.bands, sizes.postnet, sizes.refinements, sizes.dropout)

    def read(self, text: Text, symbols: Lengths) -> tuple[Memory, Bool[Tensor, "batch symbols"]]:
        mask = torch.arange(text.shape[1], device=text.device) < symbols.to(text.device).unsqueeze(1)
        return self.encoder(self.embedding(text), symbols, mask), mask

    def forward(self, text: Text, symbols: Lengths, mel: Mel) -> Spoken:
        """Raises ValueError if the number of frames is not a multiple of the group size."""
        group = self.decoder.group
        if mel.shape[-1] % group:
            raise ValueError(f"{mel.shape[-1]} frames are not a multiple of the group size, {group}")
        memory, mask = self.read(text, symbols)
        before = F.pad(mel[..., group - 1 :: group][..., :-1], (1, 0)).permute(2, 0, 1)
        return self.finish(self.steps(self.decoder.prenet(before), memory, mask))

    def steps(
        self, frames: Float[Tensor, "steps batch prenet"], memory: Memory, mask: Bool[Tensor, "batch symbols"]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        keys, state, found = self.decoder.attention_layer.memory_layer(memory), self.decoder.start(memory), []
        for frame in frames:
            values, stop, state = self.decoder.step(frame, state, memory, keys, mask)
            found.append((values, stop, state.weights))
        return found

    def finish(self, found: list[tuple[Tensor, Tensor, Tensor]]) -> Spoken:
        values, stops, weights = (torch.stack(part, 1) for part in zip(*found, strict=True))
        mel = values.unflatten(2, (self.decoder.group, self.decoder.bands)).flatten(1, 2).mT
        return Spoken(mel, mel + self.postnet(mel), stops.squeeze(2), weights)

    @torch.no_grad()
    def speak(self, text: Text, symbols: Lengths, most: int) -> tuple[Spoken, Lengths]:
        """Generate until every row's stop probability has exceeded 1/2, for at most `most` steps.

        The second result is each row's number of steps, including the step at which it stopped.
        """
        memory, mask = self.read(text, symbols)
        keys, state = self.decoder.attention_layer.memory_layer(memory), self.decoder.start(memory)
        lengths = torch.full((len(text),), most)
        last, found = memory.new_zeros(len(text), self.decoder.bands), []
        for step in range(most):
            values, stop, state = self.decoder.step(self.decoder.prenet(last), state, memory, keys, mask)
            found.append((values, stop, state.weights))
            last = values[:, -self.decoder.bands :]
            stopped = (stop.squeeze(1) > 0).cpu() & (lengths == most)
            lengths[stopped] = step + 1
            if (lengths < most).all():
                break
        return self.finish(found), lengths
