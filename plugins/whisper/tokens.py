"""Token ids: words, the same number of words of a second language, special tokens, and timestamps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from readtrack.data import speech

from .model import Size

TRANSCRIBE, TRANSLATE = 0, 1  # tasks, in the order of their tokens


@dataclass(frozen=True)
class Tokens:
    """The vocabulary of a network for words that are padded to `frames` frames."""

    words: Sequence[str] = speech.WORDS
    frames: int = 40

    @property
    def end(self) -> int:
        return 2 * len(self.words)

    @property
    def start(self) -> int:
        return self.end + 1

    @property
    def no_times(self) -> int:
        return self.end + 4

    @property
    def times(self) -> int:
        """The token of time 0; the others follow, one per encoder position."""
        return self.end + 5

    @property
    def size(self) -> Size:
        vocab = self.times + self.frames // 2 + 1
        return Size(2, 48, 4, mels=40, frames=self.frames, tokens=6, vocab=vocab)

    def prompt(self, task: int = TRANSCRIBE, *, timed: bool = False) -> tuple[int, ...]:
        whole = self.start, self.start + 1 + task, self.no_times
        return whole[:2] if timed else whole

    def texts(
        self,
        labels: Int[Tensor, " n"],
        translate: Bool[Tensor, " n"],
        times: Int[Tensor, "n 2"],
        timed: Bool[Tensor, " n"],
    ) -> Int[Tensor, "n 6"]:
        """Token sequences: start, task, then "no times", word, end, end; or start time, word, end time, end.

        A "translation" is the second language's word for the next label.
        """
        count = len(self.words)
        word = torch.where(translate, count + (labels + 1) % count, labels)
        task = self.start + 1 + translate.long()
        begins, ends = (self.times + times).unbind(1)
        end = torch.full_like(word, self.end)
        first, last = torch.where(timed, begins, self.no_times), torch.where(timed, ends, self.end)
        return torch.stack((torch.full_like(word, self.start), task, first, word, last, end), 1)

    def read(self, tokens: Sequence[int]) -> str:
        """The words of the tokens. Words of the second language are in parentheses."""
        count = len(self.words)
        return " ".join(
            self.words[token]
            if token < count
            else f"({self.words[(token - 1) % count]})"
            if token < 2 * count
            else "?"
            for token in tokens
        )
