"""Implements GPT-2's order of bytes, their printable form, and the pattern that splits a text into words."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import groupby

# GPT-2 prints a byte as a character: the byte's own character if it is printable, or one from 256 upwards.
SEEN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTES = bytes([*SEEN, *(byte for byte in range(256) if byte not in SEEN)])  # by id
CHARACTERS = "".join(map(chr, SEEN)) + "".join(map(chr, range(256, 512 - len(SEEN))))
ID = {byte: i for i, byte in enumerate(BYTES)}
TO_CHARACTER = dict(zip(BYTES, CHARACTERS, strict=True))
TO_ID = {character: i for i, character in enumerate(CHARACTERS)}


def visible(token: bytes) -> str:
    """A token as in GPT-2's files, where a space is Ġ."""
    return "".join(TO_CHARACTER[byte] for byte in token)


def members(test: Callable[[str], bool], codes: range) -> str:
    """The characters that pass the test, as ranges of a character class."""
    places = enumerate(code for code in codes if test(chr(code)))
    runs = ([code for _, code in run] for _, run in groupby(places, lambda place: place[1] - place[0]))
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


@cache
def word_pattern() -> re.Pattern[str]:
    """GPT-2's pattern: letters, digits or other signs, each with an optional leading space, endings as in
    "it's", and spaces.

    `re` has no classes for letters and numbers, and counts U+001C to U+001F as spaces. It has a lookup table
    for characters of the first plane and tries ranges beyond it one by one, so words within that plane come
    first.
    """
    low, high = range(0x10000), range(0x10000, 0x40000)  # the planes beyond have neither letters nor numbers
    # Unicode's categories Nd, Nl and No: some Chinese characters are both numeric and letters. There are
    # 262,144 calls, so we use a lambda: tests check the argument types of functions, but not of lambdas.
    kinds = str.isalpha, lambda c: c.isnumeric() and not c.isalpha()
    letters, numbers = ([members(kind, codes) for codes in (low, high)] for kind in kinds)
    space = members(lambda c: c.isspace() and not "\x1c" <= c <= "\x1f", low)
    beyond = "\U00010000-\U0010ffff"
    quick = letters[0], numbers[0], f"^{letters[0]}{numbers[0]}{space}{beyond}"
    whole = "".join(letters), "".join(numbers), "".join(["^", *letters, *numbers, space])
    words = "|".join(
        ["'(?:s|t|re|ve|m|ll|d)", *(rf" ?[{kind}]++(?![{beyond}])" for kind in quick)]
        + [rf"(?! ?+[{space}]) ?[{kind}]+" for kind in whole]
    )
    return re.compile(rf"{words}|[{space}]+(?![^{space}])|[{space}]+")


def split(text: str) -> list[str]:
    """Splits a text into words. Joining the words gives the text again, and no token spans two words."""
    return word_pattern().findall(text)


def count_words(text: str) -> Counter[bytes]:
    """The words of a text as bytes, with their counts."""
    return Counter(word.encode("utf-8", "surrogatepass") for word in split(text))
