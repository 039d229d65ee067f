"""Generates three tasks in an artificial language. The first token of each text names the task.

All three tasks use the same texts, so only the prefix distinguishes them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from readtrack.data.senses import Senses

WORDS, TOPICS, OWNED = 24, 6, 8
ASKED = 4  # words in each text
FIRST_WORD, FIRST_TOPIC = 1, 1 + WORDS  # 0 is padding
FIRST_NUMBER = FIRST_TOPIC + TOPICS  # answers that are numbers of words, from 0
FIRST_PREFIX = FIRST_NUMBER + ASKED + 1
MASK = FIRST_PREFIX + 3
SENTINEL = MASK + 7  # the first span's sentinel; sentinels count down
VOCAB = SENTINEL + 1

Pairs = tuple[Int[Tensor, "_ _"], Int[Tensor, "_ _"]]  # sources and targets
Answer = Callable[[Int[Tensor, "count asked"], Int[Tensor, " count"]], Int[Tensor, "count 1"]]


def its_topic(ids: Int[Tensor, "count asked"], topic: Int[Tensor, " count"]) -> Int[Tensor, "count 1"]:
    """A class label, as in most GLUE tasks."""
    return topic[:, None] + FIRST_TOPIC


def last_word(ids: Int[Tensor, "count asked"], topic: Int[Tensor, " count"]) -> Int[Tensor, "count 1"]:
    """A span of the text, as in SQuAD."""
    return ids[:, -1:] + FIRST_WORD


def below_half(ids: Int[Tensor, "count asked"], topic: Int[Tensor, " count"]) -> Int[Tensor, "count 1"]:
    """A number, as in STS-B."""
    return (ids < WORDS // 2).sum(1, keepdim=True) + FIRST_NUMBER


TASKS: dict[str, Answer] = {
    "topic": its_topic,
    "last word": last_word,
    f"how many below {WORDS // 2}": below_half,
}


def task(language: Senses, name: str, count: int, generator: torch.Generator) -> Pairs:
    """Returns sources (the task's prefix and a text) and answers."""
    ids, topic = language.draw(count, ASKED, generator)
    prefix = ids.new_full((count, 1), FIRST_PREFIX + list(TASKS).index(name))
    return torch.cat((prefix, ids + FIRST_WORD), 1), TASKS[name](ids, topic)


def mixture(language: Senses, count: int, generator: torch.Generator) -> Pairs:
    """`count` examples of each task, one task after another."""
    sources, targets = zip(*(task(language, name, count, generator) for name in TASKS), strict=True)
    return torch.cat(sources), torch.cat(targets)


def spelled(tokens: list[int]) -> str:
    """Show words as numbers, sentinels as letters, topics and prefixes by name, and numbers in brackets."""
    return " ".join(_name(token) for token in tokens)


def _name(token: int) -> str:
    if token > MASK:
        return f"<{chr(65 + SENTINEL - token)}>"
    if token == MASK:
        return "<mask>"
    if token < FIRST_WORD:
        return "<pad>"
    if token >= FIRST_PREFIX:
        return f"{list(TASKS)[token - FIRST_PREFIX]}:"
    if token >= FIRST_NUMBER:
        return f"({token - FIRST_NUMBER})"
    return f"topic {token - FIRST_TOPIC}" if token >= FIRST_TOPIC else str(token - FIRST_WORD)
