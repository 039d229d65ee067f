"""Splits integers with GPT-2's merges or with merges learned from a text, and builds a table of ids."""

import os
import re
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ..byte_bpe import ByteBPE, train
from ..byte_bpe.training import Pair

NOTHING = -1  # pads the rows of the table


def merges_of_numbers(text: str, count: int) -> list[Pair]:
    """Byte-pair merges learned from the numbers in a text. Every occurrence of a number counts."""
    return train("\n".join(re.findall("[0-9]+", text)), count)


def released_file(given: str) -> Path | None:
    """GPT-2's merges on this machine: the given file, or the one in the cache of `transformers`."""
    if given:
        return Path(given).expanduser()
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    for name in ("models--openai-community--gpt2", "models--gpt2"):
        for file in sorted(hub.glob(f"{name}/snapshots/*/merges.txt")):
            return file
    return None


def cut(bpe: ByteBPE, integer: int) -> tuple[str, ...]:
    """The tokens of an integer at the beginning of a text, as strings."""
    return tuple(bpe.tokens[i].decode() for i in bpe.encode(str(integer)))


class NumberTable:
    """A lookup table of the ids of all integers below `count`. `NOTHING` pads the rows."""

    def __init__(self, bpe: ByteBPE, count: int) -> None:
        rows = [bpe.encode(str(integer)) for integer in range(count)]
        longest = max(map(len, rows))
        self.ids: Int[Tensor, "count longest"] = torch.tensor(
            [[*row, *[NOTHING] * (longest - len(row))] for row in rows]
        )

    def encode(self, integers: Int[Tensor, " some"]) -> Int[Tensor, "some longest"]:
        return self.ids[integers]
