"""Wraps the `tokenizers` package, written in Rust, to train and encode as this plugin does."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from .training import Pair
from .words import CHARACTERS, visible


def rust_tokenizer(tokens: Sequence[bytes], merges: Iterable[Pair]) -> Any:
    """A tokeniser with these tokens, by id, and these merges of ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [visible(token) for token in tokens]
    pairs = [(names[left], names[right]) for left, right in merges]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def train_in_rust(text: str, merges: int) -> list[Pair]:
    """Returns the same merges as `train`, with the same byte ids and the same tie-breaking."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=list(CHARACTERS), show_progress=False, min_frequency=0
    )
    tokenizer.train_from_iterator([text], trainer)
    ids = tokenizer.get_vocab()
    return [(ids[left], ids[right]) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
