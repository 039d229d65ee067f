"""Prepares pictures, sounds, tables and texts of a run for the report.

Pictures and sounds are decoded and encoded again, so that a page never links to an untrusted file and no
metadata are passed on.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack import regular
from readtrack.report.privacy import Discretion
from readtrack.report.words import anchors, number, sentence
from readtrack.runs.events import Artifact
from readtrack.runs.record import Record
from readtrack.text import counted

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST = 16 << 20  # size limit of a file in bytes
_WIDEST = 4096  # maximum width and height of a picture in pixels
_LONGEST = 60.0  # maximum length of a sound in seconds
_ROWS = 60  # maximum number of rows in a table
_LETTERS = 4000  # maximum number of characters in a text
_SHOWN = 760  # maximum width in pixels of an enlarged picture; the factor is an integer
_LINE, _LETTER = 18, 7.5  # height of a row's name and width of a letter, in pixels
_NAMES = 64  # maximum number of names for rows or columns, and maximum number of letters in a name
# The same scale for every sound: a window of 256 samples, 75 dB from the lightest to the darkest grey.
_WINDOW, _HOP, _FLOOR, _RANGE, _GREYS = 256, 32, -50.0, 75.0, 16


@dataclass(frozen=True, slots=True)
class Picture:
    """alt: description of the picture from the plugin or the record; width, height: size on the page.

    across, down  names of columns and rows for which there is room next to the picture
    """

    name: str
    caption: str
    alt: str
    file: str
    width: int
    height: int
    across: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sound:
    """beside: name of the sound to compare it with, or "". spectrogram: "" if there is none. heard: (speaker,
    transcript, whether the transcript is wrong).
    """

    name: str
    caption: str
    beside: str
    file: str
    seconds: float
    rate: int
    spectrogram: str
    heard: tuple[tuple[str, str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactTable:
    name: str
    caption: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    left_out: int


@dataclass(frozen=True, slots=True)
class Text:
    name: str
    caption: str
    text: str


@dataclass(slots=True)
class Media:
    """A run's artifacts. problems: artifacts that could not be read."""

    pictures: list[Picture]
    sounds: list[Sound]
    tables: list[ArtifactTable]
    texts: list[Text]
    problems: list[str]
    files: dict[str, bytes]

    @property
    def longest(self) -> float:
        return max((sound.seconds for sound in self.sounds), default=0.0)

    @property
    def highest(self) -> float:
        """The highest frequency of all spectrograms in kHz; 0 if they differ."""
        rates = {sound.rate for sound in self.sounds}
        return rates.pop() / 2000 if len(rates) == 1 else 0.0

    @property
    def compared(self) -> list[tuple[Sound | None, list[Sound]]]:
        """Groups of sounds, each with the sound to compare them with. Sounds without one come first."""
        names = {sound.name: sound for sound in self.sounds}
        groups: dict[str, list[Sound]] = {}
        for sound in self.sounds:
            alone = sound.beside not in names or sound.beside == sound.name
            groups.setdefault("" if alone else sound.beside, []).append(sound)
        heads = groups.keys() - {""}
        loose = [sound for sound in groups.pop("", []) if sound.name not in heads]
        found = [(names[name], sounds) for name, sounds in groups.items()]
        return [*([(None, loose)] if loose else []), *found]


def media(record: Record, folder: Path, below: str, tell: Discretion) -> Media:
    """The artifacts of a run.

    below  the site's folder for the files
    """
    found = Media([], [], [], [], [], {})
    stems = anchors([tell.line(event.get("name", "")) for event in record.artifacts])
    for event, stem in zip(record.artifacts, stems, strict=True):
        name = sentence(tell.line(event.get("name", ""))) or "Untitled"
        caption = tell.line(event.get("caption", ""))
        if event.get("kind") == "audio":
            more = sentence(tell.line(event.get("beside") or ""))
        else:
            more = sentence(tell.line(event.get("alt") or "")) or _alternative(event, name, caption)
        reader = _READERS.get(str(event.get("kind")))
        if reader is None:
            continue
        try:
            reader(
                found,
                _data(folder, str(event.get("path", ""))),
                name,
                (caption, more),
                f"{below}/{stem}",
                tell,
            )
        except Exception as error:  # decoders raise arbitrary exceptions for damaged or hostile files
            found.problems.append(f"{name} could not be read ({type(error).__name__}).")
            continue
        if event.get("kind") == "image":
            found.pictures[-1] = _labelled(found.pictures[-1], event, tell)
    if found.sounds:
        found.sounds = _with_words(found.sounds, found.tables)
    return found


def _labelled(picture: Picture, event: Artifact, tell: Discretion) -> Picture:
    """The picture with names of rows and columns, next to it or, if there is no room, in the caption."""
    down, across = (_names(event.get(key), tell) for key in ("row_names", "column_names"))
    caption = [picture.caption]
    if down and picture.height < _LINE * len(down):
        caption.append(f"Rows, from the top: {', '.join(down)}.")
        down = ()
    if across and picture.width < _LETTER * len(across) * max(map(len, across)):
        caption.append(f"Columns, from the left: {', '.join(across)}.")
        across = ()
    return replace(picture, caption=" ".join(filter(None, caption)), across=across, down=down)


def _names(said: object, tell: Discretion) -> tuple[str, ...]:
    fit = isinstance(said, list) and len(said) <= _NAMES and all(isinstance(name, str) for name in said)
    return tuple(tell.line(name)[:_NAMES] for name in said) if fit and isinstance(said, list) else ()


def _alternative(event: Artifact, name: str, caption: str) -> str:
    """Alternative text for a picture without a description, such as `Maps, 4 rows of 6 pictures. Scenes.`"""
    rows, columns, head = event.get("rows"), event.get("columns"), name.rstrip(".")
    if (
        isinstance(rows, int)
        and isinstance(columns, int)
        and min(rows, columns) > 0
        and 1 < rows * columns < 10_000
    ):
        head += f", {counted(rows, 'row')} of {counted(columns, 'picture')}"
    return f"{head}. {caption}" if caption else head


def _data(folder: Path, path: str) -> bytes:
    """The file's bytes. Raises OSError for a file outside the run's folder, or one that is too large."""
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        raise OSError("not a file in the run's folder")
    return regular.read_bytes(file, _LARGEST)


def _picture(
    found: Media, data: bytes, name: str, said: tuple[str, str], stem: str, tell: Discretion
) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if max(image.size) > _WIDEST:
            raise ValueError("too large")
        pixels = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
    found.files[f"{stem}.png"] = _png(pixels)
    width, height = pixels.size
    factor = max(1, min(4, _SHOWN // width))
    found.pictures.append(Picture(name, *said, f"{stem}.png", width * factor, height * factor))


def _png(image: Image) -> bytes:
    body = io.BytesIO()
    image.save(body, "PNG")
    return body.getvalue()


def _sound(found: Media, data: bytes, name: str, said: tuple[str, str], stem: str, tell: Discretion) -> None:
    with wave.open(io.BytesIO(data)) as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        frames = min(file.getnframes(), int(_LONGEST * rate))
        samples = file.readframes(frames)
    if width != 2 or channels not in (1, 2) or not samples or not 1 <= rate <= 192_000:
        raise ValueError("not a 16-bit sound")
    body = io.BytesIO()
    with wave.open(body, "wb") as again:
        again.setnchannels(channels)
        again.setsampwidth(width)
        again.setframerate(rate)
        again.writeframes(samples)
    found.files[f"{stem}.wav"] = body.getvalue()
    picture = spectrogram(samples, channels)
    if picture is not None:
        found.files[f"{stem}-spectrogram.png"] = picture
    seconds = len(samples) / (width * channels * rate)
    shown = f"{stem}-spectrogram.png" if picture is not None else ""
    found.sounds.append(Sound(name, *said, f"{stem}.wav", seconds, rate, shown))


def spectrogram(samples: bytes, channels: int) -> bytes | None:
    """The spectrogram of 16-bit samples as a PNG, dark on light, with low frequencies at the bottom; None
    without numpy.
    """
    try:
        import numpy as np
    except ImportError:
        return None
    from PIL import Image as images

    wave_ = np.frombuffer(samples, "<i2").reshape(-1, channels).mean(1) / 32768
    wave_ = np.pad(wave_, (0, max(0, _WINDOW - len(wave_))))
    starts = np.arange(0, len(wave_) - _WINDOW + 1, _HOP * max(1, len(wave_) // 64_000))
    windows = wave_[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(windows)) + 1e-5)
    ink = np.clip((decibels - _FLOOR) / _RANGE, 0, 1).T[::-1]
    grey = np.round((1 - ink) * (_GREYS - 1)) * (255 // (_GREYS - 1))
    return _png(images.fromarray(grey.astype(np.uint8)).quantize(_GREYS))


def _table(found: Media, data: bytes, name: str, said: tuple[str, str], stem: str, tell: Discretion) -> None:
    body = json.loads(data)
    columns = [tell.line(column) for column in body["columns"]]
    rows = [list(row)[: len(columns)] for row in body["rows"]]
    shown = [[_cell(value, tell) for value in row] for row in rows[:_ROWS]]
    numeric = [all(_is_number(row[at]) for row in rows if at < len(row)) for at in range(len(columns))]
    found.tables.append(ArtifactTable(name, said[0], columns, shown, numeric, max(0, len(rows) - _ROWS)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, tell: Discretion) -> str:
    return number(float(value)) if _is_number(value) else tell.line("" if value is None else value)


def _text(found: Media, data: bytes, name: str, said: tuple[str, str], stem: str, tell: Discretion) -> None:
    words = tell.block(data.decode("utf-8", "replace"))
    more = len(words) - _LETTERS
    found.texts.append(
        Text(name, said[0], words[:_LETTERS] + (f" … ({more:,} more characters)" if more > 0 else ""))
    )


_READERS = {"image": _picture, "audio": _sound, "table": _table, "text": _text}


def _with_words(sounds: Sequence[Sound], tables: Sequence[ArtifactTable]) -> list[Sound]:
    """Add transcripts from tables whose first column names a sound and whose second is a word of its
    caption."""
    return [_heard(sound, tables) for sound in sounds]


def _heard(sound: Sound, tables: Sequence[ArtifactTable]) -> Sound:
    words = sound.caption.split(", ")
    for table in tables:
        for row in table.rows:
            if len(row) > 2 and row[0].casefold() == sound.name.casefold() and row[1] in words:
                others = zip(table.columns[2:], row[2:], strict=False)
                told = [
                    (table.columns[1], row[1], False),
                    *((who, what, what != row[1]) for who, what in others),
                ]
                return replace(sound, heard=tuple(told))
    return sound
