"""Read the data sets in the home (`readtrack data`) as tensors, with the authors' own split if there is one.

The files are untrusted: sizes declared in a header are checked before memory is allocated.
"""

from __future__ import annotations

import csv
import gzip
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from readtrack.data.splits import Parts, characters, parts, stretches
from readtrack.datasets.catalogue import Format, catalogue
from readtrack.datasets.store import DataSets, Stored
from readtrack.errors import ReadtrackError
from readtrack.text import one_line

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")

_MOST = 8 * 1024**3  # size limit of one array in bytes
_CHOOSE = 0.1  # share of the training rows for validation, if the authors define none
_CIFAR_ROW = 1 + 3 * 32 * 32
_WORD = 16_000  # number of samples per word in Speech Commands


class Rows(NamedTuple):
    """Pictures or sounds with their labels, (n, ...) and (n,); `names`: names of the labels.

    test, choose  the authors' own parts, or None
    rate          sampling rate of sounds
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None
    choose: tuple[Tensor, Tensor] | None
    names: tuple[str, ...]
    rate: int = 0


def read_rows(
    store: DataSets, name: str, seed: int, at_most: int | None
) -> tuple[Parts, tuple[str, ...], int]:
    """Pictures or sounds of a data set, with label names and sampling rate.

    Pictures are (n, height, width) or (n, 3, height, width) in [0, 1], sounds (n, samples) in [-1, 1], each
    with labels (n,). The authors' test rows are used only for judging. at_most: total number of rows. Raises
    ReadtrackError if a file is invalid, NotAvailableError if it is not on this machine.
    """
    import torch

    stored = store.find(name)
    found = _guarded(stored, lambda: _READ_ROWS[stored.format](store.path(name), stored, at_most))
    if found.test is None:
        if len(found.train[1]) < 3:
            raise ReadtrackError(
                f"{name} has {len(found.train[1])} {stored.kind}. At least three are needed, one each for "
                "training, validation and test."
            )
        cut = tuple(tensor[:at_most] for tensor in found.train)
        return parts(*cut, seed=seed), found.names, found.rate
    order = torch.randperm(len(found.train[1]), generator=torch.Generator().manual_seed(seed))
    test, rest = found.test, order
    if at_most is not None:
        rest, test = order[: round(0.8 * at_most)], tuple(tensor[: round(0.2 * at_most)] for tensor in test)  # type: ignore[assignment]
    if found.choose is not None:
        share = len(found.choose[1]) if at_most is None else round(_CHOOSE * at_most)
        choose, train = tuple(tensor[:share] for tensor in found.choose), rest
    else:
        held = round(_CHOOSE * len(rest))
        choose, train = tuple(tensor[rest[:held]] for tensor in found.train), rest[held:]
    return Parts(tuple(tensor[train] for tensor in found.train), choose, test), found.names, found.rate


def read_text(store: DataSets, name: str, seed: int, at_most: int | None) -> tuple[Parts, str]:
    """A text's ids in three parts, and its alphabet. enwik8 is read as bytes, others as characters.

    Raises ReadtrackError if a file is invalid, NotAvailableError if it is not on this machine.
    """
    import torch

    stored = store.find(name)
    pieces = _guarded(stored, lambda: _READ_TEXT[stored.format](store.path(name)))
    if at_most is not None:
        shares = (
            (at_most,) if len(pieces) == 1 else tuple(int(share * at_most) for share in (0.9, 0.05, 0.05))
        )
        pieces = tuple(piece[:share] for piece, share in zip(pieces, shares, strict=True))
    ids, alphabet = characters("".join(pieces))
    if len(pieces) == 1:
        if name not in catalogue():
            return _guarded(stored, lambda: stretches(ids, seed)), alphabet
        held = len(ids) // 20
        sizes = [len(ids) - 2 * held, held, held]
    else:
        sizes = [len(piece) for piece in pieces]
    train, choose, judge = torch.split(ids, sizes)
    return Parts((train,), (choose,), (judge,)), alphabet


def _guarded(stored: Stored, read: Callable[[], T]) -> T:
    """The result of `read`; errors caused by damaged files become ReadtrackErrors."""
    try:
        return read()
    except (OSError, ValueError, LookupError, EOFError) as error:
        problem = one_line(str(error)) or type(error).__name__
    except (csv.Error, struct.error, tarfile.TarError, wave.Error, zipfile.BadZipFile, zlib.error) as error:
        problem = one_line(str(error))
    raise ReadtrackError(
        f"The data set {stored.name} cannot be read: {problem}. "
        f"`readtrack data verify {stored.name}` checks it."
    )


def _idx(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    def rows(part: str) -> tuple[Tensor, Tensor]:
        pixels = _idx_array(folder / f"{part}-images-idx3-ubyte.gz", 3)
        labels = _idx_array(folder / f"{part}-labels-idx1-ubyte.gz", 1)
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} pictures and {len(labels)} labels")
        return _pixels(pixels), _labels(labels)

    return Rows(rows("train"), rows("t10k"), None, catalogue()[stored.name].names)


def _idx_array(path: Path, dims: int) -> np.ndarray:
    """An array of bytes in LeCun's IDX format: magic number, sizes, values."""
    import numpy as np

    with gzip.open(path, "rb") as file:
        magic, *shape = struct.unpack(f">{1 + dims}I", file.read(4 * (1 + dims)))
        if magic != 0x800 + dims:
            raise ValueError(f"{path.name} is not an array of bytes with {dims} dimensions")
        count = _product(shape)
        values = file.read(count + 1)
    if len(values) != count:
        raise ValueError(f"{path.name} does not contain the {count:,} values that its header declares")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _cifar(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    import numpy as np

    batches: dict[str, np.ndarray] = {}
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "r|gz") as tar:
        for member in tar:
            if member.isreg() and member.name.endswith(".bin") and member.size == 10_000 * _CIFAR_ROW:
                file = tar.extractfile(member)
                assert file
                table = np.frombuffer(file.read(), dtype=np.uint8).reshape(-1, _CIFAR_ROW)
                batches[Path(member.name).stem] = table
    train = np.concatenate([batches[f"data_batch_{i}"] for i in range(1, 6)])

    def rows(table: np.ndarray) -> tuple[Tensor, Tensor]:
        return _pixels(table[:, 1:].reshape(-1, 3, 32, 32)), _labels(table[:, 0])

    return Rows(rows(train), rows(batches["test_batch"]), None, catalogue()[stored.name].names)


def _pictures(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    """The reader's own pictures, resized to the size of the first one.

    With the folders images/ and masks/ the labels are masks (n, height, width), 1 where a mask is bright.
    """

    paths, names = _spread(stored, None)
    if names == ("images", "masks"):
        masks = {Path(path).stem: path for path in paths if _label(path) == "masks"}
        paths = _evenly([path for path in paths if _label(path) == "images"], at_most)
        lacking = [path for path in paths if Path(path).stem not in masks]
        if lacking:
            raise ValueError(f"{lacking[0]} has no mask with the same name")
        pixels = _opened(folder, paths, "RGB")
        bright = _opened(folder, [masks[Path(path).stem] for path in paths], "L", pixels.shape[2:0:-1])
        return Rows((_pixels(pixels.transpose(0, 3, 1, 2)), _labels(bright > 127)), None, None, names)
    paths = _evenly(paths, at_most)
    labels = [names.index(_label(path)) for path in paths]
    pixels = _opened(folder, paths, "RGB")
    return Rows((_pixels(pixels.transpose(0, 3, 1, 2)), _labels(labels)), None, None, names)


def _opened(folder: Path, paths: list[str], mode: str, size: tuple[int, ...] | None = None) -> np.ndarray:
    """Pictures (n, height, width, 3), or (n, height, width) for mode "L".

    size  (width, height) to resize them to, by default the size of the first picture
    """
    import numpy as np
    from PIL import Image

    pixels = []
    for path in paths:
        try:
            with Image.open(folder / path) as picture:
                size = size or picture.size
                if _product((*size, 3, len(paths))) > _MOST:
                    raise ValueError(f"{len(paths):,} pictures of {size[0]} x {size[1]} are too many")
                pixels.append(np.array(picture.convert(mode).resize((size[0], size[1]))))
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path}: {error}") from error
    return np.stack(pixels)


def _sounds(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    paths, names = _spread(stored, at_most)
    sounds = [_wave(folder / path) for path in paths]
    rates = sorted({rate for _, rate in sounds})
    if len(rates) > 1:
        raise ValueError(f"sounds of {rates} Hz cannot be mixed")
    labels = [names.index(_label(path)) for path in paths]
    return Rows((_padded([sound for sound, _ in sounds]), _labels(labels)), None, None, names, rates[0])


def _speech_commands(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    import torch

    held = {
        name: set((folder / f"{name}_list.txt").read_text().split()) for name in ("testing", "validation")
    }
    chosen, names = _spread(stored, None)
    groups: dict[str, list[str]] = {"testing": [], "validation": [], "train": []}
    for path in chosen:
        if not path.startswith("_"):  # noise
            groups[next((name for name, paths in held.items() if path in paths), "train")].append(path)
    words = tuple(name for name in names if not name.startswith("_"))

    def rows(group: str, share: float) -> tuple[Tensor, Tensor]:
        paths = _evenly(groups[group], None if at_most is None else round(share * at_most))
        table = torch.zeros(len(paths), _WORD)
        for row, path in zip(table, paths, strict=True):
            sound, _ = _wave(folder / path)
            row[: len(sound)] = sound[:_WORD]
        return table, _labels([words.index(_label(path)) for path in paths])

    return Rows(rows("train", 0.8), rows("testing", 0.2), rows("validation", _CHOOSE), words, 16_000)


def _lj_speech(folder: Path, stored: Stored, at_most: int | None) -> Rows:
    """Recorded sentences. The label of a recording is the index of its transcript among the names."""
    root = folder / "LJSpeech-1.1"
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        said = {row[0]: row[-1] for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)}
    names = tuple(said.values())
    groups: dict[str, list[str]] = {"test": [], "choose": [], "train": []}
    for name in said:
        chapter = name.partition("-")[0]
        groups[
            "test" if chapter in ("LJ001", "LJ002") else "choose" if chapter == "LJ003" else "train"
        ].append(name)
    place = {name: i for i, name in enumerate(said)}

    def rows(group: str, share: float) -> tuple[Tensor, Tensor]:
        chosen = _evenly(groups[group], None if at_most is None else round(share * at_most))
        sounds = [_wave(root / "wavs" / f"{name}.wav")[0] for name in chosen]
        return _padded(sounds), _labels([place[name] for name in chosen])

    return Rows(rows("train", 0.8), rows("test", 0.2), rows("choose", _CHOOSE), names, 22_050)


def _spread(stored: Stored, at_most: int | None) -> tuple[list[str], tuple[str, ...]]:
    """At most `at_most` files, evenly spaced in sorted order, and the sorted labels of all files."""
    paths = sorted(
        path for path in stored.files if not path.endswith((".txt", ".md", ".json")) and "/" in path
    )
    if not paths:
        paths = sorted(path for path in stored.files if not path.endswith((".txt", ".md", ".json")))
    names = tuple(sorted({_label(path) for path in paths}))
    return _evenly(paths, at_most), names


def _evenly(paths: list[str], at_most: int | None) -> list[str]:
    """At most `at_most` of the sorted paths, evenly spaced so that every class is represented."""
    if at_most is None or at_most >= len(paths):
        return paths
    return [paths[i * len(paths) // at_most] for i in range(at_most)]


def _label(path: str) -> str:
    """The name of a file's folder, or ""."""
    return path.rpartition("/")[0].rpartition("/")[2]


def _wave(path: Path) -> tuple[Tensor, int]:
    """A 16-bit .wav file's first channel (samples,) in [-1, 1], and its sampling rate."""
    import numpy as np
    import torch

    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path.name} has {8 * file.getsampwidth()} bits per sample instead of 16")
        values = np.frombuffer(file.readframes(min(file.getnframes(), _MOST // 4)), dtype="<i2")
        samples = values[:: file.getnchannels()].astype(np.float32) / 32768
        return torch.from_numpy(samples), file.getframerate()


def _padded(sounds: list[Tensor]) -> Tensor:
    import torch

    longest = max(map(len, sounds))
    if 4 * longest * len(sounds) > _MOST:
        raise ValueError(
            f"{len(sounds):,} sounds of up to {longest:,} samples do not fit into memory. Use fewer sounds"
        )
    return torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)


def _pixels(values: np.ndarray) -> Tensor:
    import torch

    if 4 * values.size > _MOST:
        raise ValueError("the pictures do not fit into memory")
    return torch.from_numpy(values.copy()).float().div_(255)


def _labels(values: np.ndarray | list[int]) -> Tensor:
    import torch

    return torch.as_tensor(values.copy()).long()


def _product(sizes: tuple[int, ...] | list[int]) -> int:
    """The product of the sizes. Raises ValueError if an array of these sizes is too large."""
    found = 1
    for size in sizes:
        found *= size
    if not 0 < found <= _MOST:
        raise ValueError(f"an array of sizes {list(sizes)} is empty or too large")
    return found


def _plain(folder: Path) -> tuple[str, ...]:
    path = folder / "text.txt"
    own = path if path.exists() else folder / "input.txt"
    return (own.read_text(encoding="utf-8", errors="replace"),)


def _enwik8(folder: Path) -> tuple[str, ...]:
    text = _of_zip(folder / "enwik8.zip", "enwik8", 100_000_000).decode("latin-1")
    held = len(text) // 20
    return text[: -2 * held], text[-2 * held : -held], text[-held:]


def _wikitext(folder: Path) -> tuple[str, ...]:
    archive = folder / "wikitext-2-raw-v1.zip"
    members = (f"wikitext-2-raw/wiki.{part}.raw" for part in ("train", "valid", "test"))
    return tuple(_of_zip(archive, member, 100_000_000).decode() for member in members)


def _of_zip(archive: Path, member: str, limit: int) -> bytes:
    with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise ValueError(f"{member} is larger than {limit:,} bytes")
    return found


_READ_ROWS: Mapping[Format, Callable[[Path, Stored, int | None], Rows]] = {
    "idx": _idx,
    "cifar": _cifar,
    "pictures": _pictures,
    "sounds": _sounds,
    "speech commands": _speech_commands,
    "lj speech": _lj_speech,
}
_READ_TEXT: Mapping[Format, Callable[[Path], tuple[str, ...]]] = {
    "text": _plain,
    "enwik8": _enwik8,
    "wikitext": _wikitext,
}
