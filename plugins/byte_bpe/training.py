"""Learns merges with the paper's loop, and learns the same merges faster with an index and a heap.

A symbol is an id, and a merge is a pair of ids.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from .words import BYTES, ID, count_words

Pair = tuple[int, int]


def replace(word: Sequence[int], pair: Pair, new: int) -> list[int]:
    """`word` with `pair` replaced by `new`, from left to right."""
    (left, right), merged, i, last = pair, [], 0, len(word) - 1
    while i < last:
        found = word[i] == left and word[i + 1] == right
        merged.append(new if found else word[i])
        i += 2 if found else 1
    merged += word[i:]
    return merged


class Vocabulary:
    """The bytes of each id. Two merges with the same bytes share one token, as in the paper."""

    def __init__(self) -> None:
        self.tokens = [bytes([byte]) for byte in BYTES]
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def add(self, pair: Pair) -> int:
        token = self.tokens[pair[0]] + self.tokens[pair[1]]
        new = self.ids.setdefault(token, len(self.tokens))
        if new == len(self.tokens):
            self.tokens.append(token)
        return new


def train_slowly(text: str, merges: int) -> list[Pair]:
    """Algorithm 1: count all pairs, merge the most frequent pair, and repeat."""
    vocabulary, found = Vocabulary(), []
    words = [([ID[byte] for byte in word], times) for word, times in count_words(text).items()]
    for _ in range(merges):
        counts: Counter[Pair] = Counter()
        for word, times in words:
            for pair in pairwise(word):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        new = vocabulary.add(best)
        words = [(replace(word, best, new), times) for word, times in words]
        found.append(best)
    return found


class Pairs:
    """A text's words during merging: the count of each pair, and the words that contain it."""

    def __init__(self, text: str) -> None:
        words = count_words(text)
        self.words = [[ID[byte] for byte in word] for word in words]
        self.times = list(words.values())
        self.counts: dict[Pair, int] = defaultdict(int)
        self.where: dict[Pair, set[int]] = defaultdict(set)
        self.vocabulary = Vocabulary()
        for index, word in enumerate(self.words):
            for pair in pairwise(word):
                self.counts[pair] += self.times[index]
                self.where[pair].add(index)

    def merge(self, pair: Pair) -> set[Pair]:
        """Merge `pair` into one symbol, and return the pairs whose count may have risen."""
        new, risen = self.vocabulary.add(pair), set()
        for index in self.where.pop(pair):
            word, times = self.words[index], self.times[index]
            merged = self.words[index] = replace(word, pair, new)
            if len(merged) == len(word):
                continue  # the pair disappeared in an earlier merge
            for old in pairwise(word):
                self.counts[old] -= times
            for now in pairwise(merged):
                self.counts[now] += times
                if new in now:
                    self.where[now].add(index)
                    risen.add(now)
        return risen


def train(text: str, merges: int) -> list[Pair]:
    """Returns the same merges as `train_slowly`: the most frequent pair and, in a tie, the smallest ids.

    Returns fewer than `merges` if no word has two symbols left. A merge visits only the words that contain
    its pair. Counts in the heap may be out of date, but are never too small. A pair is pushed again when its
    count rises, and when it is popped with an outdated count.
    """
    pairs, found = Pairs(text), []
    heap = [(-count, pair) for pair, count in pairs.counts.items()]
    heapify(heap)
    while heap and len(found) < merges:
        count, pair = heappop(heap)
        now = pairs.counts[pair]
        if now == -count:
            found.append(pair)
            for risen in pairs.merge(pair):
                heappush(heap, (-pairs.counts[risen], risen))
        elif now:
            heappush(heap, (-now, pair))
    return found
