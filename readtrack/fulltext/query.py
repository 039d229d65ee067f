"""The search language: words, "phrases", fields such as state:read, and, or, not, parentheses.

Every text can be parsed, because a search runs while it is typed: incomplete parts are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from readtrack.text import folded

FIELDS = ("state", "tag", "year", "section", "can", "claim", "author", "has")
_TOKEN = re.compile(r'-?(?:\w+:)?"[^"]*"?|[()]|[^\s()"]+')


@dataclass(frozen=True, slots=True)
class Word:
    """A word, which matches at the beginning of words, or a phrase, which matches exactly.

    A phrase with an unclosed quote counts as a word.
    """

    text: str
    phrase: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Node, ...]


Node: TypeAlias = Word | Field | Not | And | Or


def parse(text: str) -> Node:
    """Parse `attention (year:2017..2020 or tag:gpu) not state:read`; an empty text is And(())."""
    tokens = _TOKEN.findall(text)
    node, rest = _either(tokens)
    while rest:  # an unmatched closing parenthesis
        more, rest = _either(rest[1:])
        node = And((node, more))
    return node


def _either(tokens: list[str]) -> tuple[Node, list[str]]:
    parts = []
    while True:
        part, tokens = _all(tokens)
        parts.append(part)
        if not tokens or tokens[0] == ")":
            break
        tokens = tokens[1:]  # the "or"
    some = [part for part in parts if part != And(())]
    return (some[0] if len(some) == 1 else Or(tuple(some)) if some else And(())), tokens


def _all(tokens: list[str]) -> tuple[Node, list[str]]:
    parts: list[Node] = []
    while tokens and tokens[0] != ")" and tokens[0].casefold() not in ("or", "|"):
        part, tokens = _one(tokens)
        if part is not None:
            parts.append(part)
    return (parts[0] if len(parts) == 1 else And(tuple(parts))), tokens


def _one(tokens: list[str]) -> tuple[Node | None, list[str]]:
    token, rest = tokens[0], tokens[1:]
    if token.casefold() in ("and", "&"):
        return None, rest
    if token.casefold() == "not" or token == "-":
        if not rest or rest[0] == ")":
            return None, rest
        part, rest = _one(rest)
        return (Not(part) if part is not None else None), rest
    if token == "(":
        node, rest = _either(rest)
        return (None if node == And(()) else node), rest[1:]
    if token.startswith("-") and len(token) > 1:
        leaf = _leaf(token[1:])
        return (Not(leaf) if leaf is not None else None), rest
    return _leaf(token), rest


def _leaf(token: str) -> Node | None:
    if token.casefold() == "runnable":
        return Field("can", "run")
    name, colon, value = token.partition(":")
    if colon and name.casefold() in FIELDS:
        value = folded(value.strip('"')).strip()
        return Field(name.casefold(), value) if value else None
    words = folded(token.strip('"')).strip()
    if not any(c.isalnum() for c in words):
        return None
    return Word(words, phrase=len(token) > 1 and token[0] == token[-1] == '"')


def words(node: Node) -> Iterator[Word]:
    """The wanted words in order, without those negated by "not"."""
    if isinstance(node, Word):
        yield node
    elif isinstance(node, And | Or):
        for part in node.parts:
            yield from words(part)


def fields(node: Node) -> Iterator[Field]:
    """All fields, including negated ones."""
    if isinstance(node, Field):
        yield node
    elif isinstance(node, Not):
        yield from fields(node.part)
    elif isinstance(node, And | Or):
        for part in node.parts:
            yield from fields(part)


def unknown_field(text: str) -> str:
    """The first unknown field in `text` ("foo" of `foo:bar`), or "".

    A link and `arxiv:2101.00001` are words.
    """
    for token in _TOKEN.findall(text):
        name, colon, value = token.lstrip("-").partition(":")
        is_word = value.startswith("//") or name.casefold() in ("arxiv", "doi", *FIELDS)
        if colon and value and re.fullmatch(r"[A-Za-z_]+", name) and not is_word:
            return str(name)
    return ""


def years(value: str) -> tuple[int, int] | None:
    """Parse `2017`, `2017..2020`, `..2015`, `2020..`, or the beginning of a year: `201` is 2010 to 2019."""
    low, dots, high = value.partition("..")
    if not re.fullmatch(r"\d{0,4}", low, re.ASCII) or not re.fullmatch(r"\d{0,4}", high, re.ASCII):
        return None
    if not dots:
        return (int(low.ljust(4, "0")), int(low.ljust(4, "9"))) if low else None
    return int(low.ljust(4, "0") or 0) if low else 0, int(high.ljust(4, "9")) if high else 9999
