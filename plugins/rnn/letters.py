"""Texts of Elman's three words, a network that predicts the next letter, and a lookup table as its rival."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .model import RNN

ALPHABET, WORDS = "bdgaiu", ("ba", "dii", "guuu")  # consonants first


def elmans_letters(
    count: int, length: int, generator: torch.Generator, *, random: bool = False
) -> Int[Tensor, "count length"]:
    """Texts of the words in random order, as indices into ALPHABET.

    random  each word has one to three copies of its vowel
    """
    rows = []
    shape = count, length // 2 + 1
    for order in torch.randint(len(WORDS), shape, generator=generator).tolist():
        words = [WORDS[word] for word in order]
        if random:
            vowels = torch.randint(1, 4, (len(words),), generator=generator).tolist()
            words = [word[0] + word[1] * times for word, times in zip(words, vowels, strict=True)]
        rows.append([ALPHABET.index(letter) for letter in "".join(words)[:length]])
    return torch.tensor(rows)


class NextLetter(nn.Module):
    """Logits of the next letter. Without `memory` the network sees only the current letter."""

    def __init__(self, letters: int, hidden: int, *, memory: bool) -> None:
        super().__init__()
        self.letters, self.memory = letters, memory
        self.rnn = RNN(letters, hidden)
        self.readout = nn.Linear(hidden, letters)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time letters"]:
        x = F.one_hot(ids, self.letters).to(self.readout.weight.dtype)
        if self.memory:
            states, _ = self.rnn(x)
        else:
            states = self.rnn(x.flatten(0, 1)[:, None])[0].view(*ids.shape, -1)
        return self.readout(states)


def surprises(network: NextLetter, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch later"]:
    """Loss in nats of each letter from the sixth on, because the first word is unpredictable."""
    logits = network(ids[:, :-1]).flatten(0, 1)
    return F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)[:, 4:]


class ThreeLetters(nn.Module):
    """Logits of the next letter from a table with a row for each sequence of three letters."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters, self.table = letters, nn.Embedding(letters**3, letters)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time letters"]:
        before = F.pad(ids, (2, 0))
        return self.table((before[:, :-2] * self.letters + before[:, 1:-1]) * self.letters + before[:, 2:])
