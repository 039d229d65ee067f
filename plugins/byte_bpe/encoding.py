"""Encodes text as ids, and decodes ids."""

from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

from .training import Pair, Vocabulary, replace
from .words import ID, split

GPT2_TOKENS = 256 + 50_000 + 1  # bytes, merges, and the end of a document


class ByteBPE:
    """Encodes text as ids and decodes ids, with merges from `train`.

    merges  pairs of ids, in the order in which they were found. Each pair makes a new id, unless a token with
            the same bytes exists
    """

    def __init__(self, merges: Sequence[Pair]) -> None:
        vocabulary = Vocabulary()
        self.merged = [vocabulary.add(pair) for pair in merges]
        self.ranks: dict[Pair, int] = {}
        for rank, pair in enumerate(merges):
            self.ranks.setdefault(pair, rank)
        self.tokens = vocabulary.tokens
        self._known = lru_cache(1 << 16)(self.merge)

    def forget(self) -> None:
        """Empty the cache of words."""
        self._known.cache_clear()

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str | bytes) -> list[int]:
        """Ids of any text, including unpaired surrogates, or of any bytes, UTF-8 or not."""
        errors = "surrogatepass"
        if isinstance(text, bytes):
            errors = "surrogateescape"
            text = text.decode("utf-8", errors)
        ids: list[int] = []
        known = self._known
        for word in split(text):
            ids += known(word.encode("utf-8", errors))
        return ids

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join([self.tokens[i] for i in ids])

    def decode(self, ids: Sequence[int]) -> str:
        """The text. Invalid UTF-8 (a sampled token may end inside a character) becomes U+FFFD."""
        text = self.decode_bytes(ids)
        try:
            return text.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return text.decode("utf-8", "replace")

    def merge(self, word: bytes) -> tuple[int, ...]:
        """`merge_slowly` in O(n log n), with a heap of possible merges and the symbols as a linked list."""
        ids, end, ranks = [ID[byte] for byte in word], len(word), self.ranks
        before, after = list(range(-1, end - 1)), list(range(1, end + 1))
        heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
        heapify(heap)
        while heap:
            rank, i = heappop(heap)
            j = after[i]
            if j == end or ranks.get((ids[i], ids[j])) != rank:
                continue  # one of the two symbols has been merged since
            ids[i], ids[j] = self.merged[rank], -1
            after[i] = after[j]
            if after[i] < end:
                before[after[i]] = i
            for left, right in ((before[i], i), (i, after[i])):
                if left >= 0 and right < end and (ids[left], ids[right]) in ranks:
                    heappush(heap, (ranks[ids[left], ids[right]], left))
        return tuple(i for i in ids if i >= 0)

    def merge_slowly(self, word: bytes) -> tuple[int, ...]:
        """GPT-2's loop: apply the earliest possible merge in the word until no merge is possible."""
        ids = [ID[byte] for byte in word]
        while possible := self.ranks.keys() & set(pairwise(ids)):
            best = min(possible, key=self.ranks.__getitem__)
            ids = replace(ids, best, self.merged[self.ranks[best]])
        return tuple(ids)
