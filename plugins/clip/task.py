"""Generates scenes of one digit with varied captions: some leave out a detail, some add other words.

Dimensions: count (scenes), tokens (of the longest caption, with its end token), vocab.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from readtrack.data import scenes
from readtrack.plugin import Run

CLASSES, SIDE, TOKENS = 7, 16, 10
BRIGHTNESS = 0.3  # approximate mean of all pixels
DIGITS = (
    ("zero", "naught"),
    ("one", "single"),
    ("two", "couple"),
    ("three", "trio"),
    ("four", "quartet"),
    ("five", "quintet"),
    ("six", "sextet"),
)
COLOURS = (
    ("red", "crimson"),
    ("green", "lime"),
    ("blue", "navy"),
    ("yellow", "golden"),
    ("white", "pale"),
    ("pink", "rosy"),
)
PLACES = (("temple", "building"), ("flower", "garden"))
FORMS = (
    "a {colour} {digit}",
    "{digit} in {colour}",
    "a photo of the {colour} number {digit}",
    "the {digit} on the {place}",
    "something {colour} at the {place}",
    "{colour} {digit} before a {place}",
    "my {filler} {colour} {digit}",
    "{filler} and {filler} {digit} by the {place}",
)
FILLERS = (
    *("nice", "old", "small", "funny", "bright", "lovely", "odd", "new"),
    *("plain", "great", "clear", "dark", "tiny", "fresh", "happy"),
)
PROMPTS = FORMS[:3]  # the forms with a colour, a digit and no details

_SPOKEN = [word for names in (*DIGITS, *COLOURS, *PLACES) for word in names]
_OTHERS = sorted({w for form in FORMS for w in form.split() if not w.startswith("{")})
WORDS = ("", *_SPOKEN, *FILLERS, *_OTHERS)  # id 0 is padding
END = len(WORDS)
VOCAB = END + 1


class Captioned(NamedTuple):
    x: Float[Tensor, "count 3 16 16"]
    digit: Int64[Tensor, " count"]
    colour: Int64[Tensor, " count"]
    ids: Int64[Tensor, "count 10"]

    @property
    def pair(self) -> Int64[Tensor, " count"]:
        """Index of the scene's pair among 42: colour · 7 + digit."""
        return self.colour * CLASSES + self.digit

    def take(self, rows: Tensor) -> "Captioned":
        return Captioned(*(field[rows] for field in self))


def captioned(run: Run, part: scenes.Part, count: int) -> Captioned:
    """Scenes of the shared level `photo` at half its size, with the digits 0 to 6, each with one caption."""
    drawn = scenes.draw(
        count, run.data_seed(part), part, "photo", size=SIDE, digit=(7.0, 11.0), classes=CLASSES
    )
    digit, colour = drawn.labels[:, 0], drawn.colours[:, 0]
    generator = run.data(f"captions of {part}", part)
    rows = zip(digit.tolist(), colour.tolist(), drawn.background.tolist(), strict=True)
    ids = encode([caption(*row, generator) for row in rows])
    x = (drawn.images - BRIGHTNESS).to(run.device, run.dtype)
    return Captioned(x, *(field.to(run.device) for field in (digit, colour, ids)))


def caption(digit: int, colour: int, place: int, generator: torch.Generator) -> str:
    """A random form, with a random name for each digit, colour and place, and random fillers."""

    def pick(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    text = pick(FORMS)
    for hole, options in (("digit", DIGITS[digit]), ("colour", COLOURS[colour]), ("place", PLACES[place])):
        text = text.replace(f"{{{hole}}}", pick(options))
    while "{filler}" in text:
        text = text.replace("{filler}", pick(FILLERS), 1)
    return text


def words(text: str) -> list[str]:
    """A text's words in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def encode(texts: Sequence[str]) -> Int64[Tensor, "count 10"]:
    """Each text's word ids, an end token, and padding. Unknown words are skipped, and long texts are cut."""
    ids = torch.zeros(len(texts), TOKENS, dtype=torch.int64)
    for row, text in enumerate(texts):
        known = [WORDS.index(word) for word in words(text) if word in WORDS[1:]][: TOKENS - 1]
        ids[row, : len(known) + 1] = torch.tensor([*known, END])
    return ids


def bags(ids: Int64[Tensor, "count tokens"]) -> Float[Tensor, "count vocab"]:
    """Counts of each word in a text, without padding and the end token."""
    counts = torch.zeros(len(ids), VOCAB, device=ids.device).scatter_add_(
        1, ids, torch.ones(ids.shape, device=ids.device)
    )
    counts[:, [0, END]] = 0
    return counts


def prompts() -> list[list[str]]:
    """The prompts of each of the 42 pairs, in three forms, with the first name of each colour and digit."""
    return [
        [form.format(colour=colour[0], digit=digit[0]) for form in PROMPTS]
        for colour in COLOURS
        for digit in DIGITS
    ]
