"""Real formats as tensors: small generated files, damaged files, and Debian's Fashion-MNIST if installed."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from readtrack.data import sources
from readtrack.datasets.catalogue import catalogue
from readtrack.datasets.store import DataSets, write_about
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    return Home()


def store(home, name, files):
    """Put files into the home as if `name` had been fetched."""
    known, datasets = catalogue()[name], DataSets(home)
    with datasets.publishing(name) as part:
        for path, content in files.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_bytes(content)
        write_about(part, name, known.kind, known.format, "fetched", dict.fromkeys(files, (1, "")))


def idx(array):
    return gzip.compress(
        struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
    )


def mnist(count=20, tests=5):
    """Images whose pixels are all i, with label i modulo 10."""
    files = {}
    for part, rows, first in (("train", count, 0), ("t10k", tests, 100)):
        values = np.arange(first, first + rows, dtype=np.uint8)
        files[f"{part}-images-idx3-ubyte.gz"] = idx(np.tile(values[:, None, None], (1, 28, 28)))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(values % 10)
    return files


def sound(samples, rate=16_000, channels=1):
    packed = io.BytesIO()
    with wave.open(packed, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())
    return packed.getvalue()


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_mnist_keeps_its_test_pictures_to_judge_by(home):
    store(home, "mnist", mnist())
    found = sources.load("images", "mnist", 0)
    assert found.names == tuple("0123456789")
    x, y = found.parts.judge
    assert torch.equal(x[:, 0, 0] * 255, torch.arange(100.0, 105.0))
    assert torch.equal(y, torch.arange(5))
    sizes = [len(part[0]) for part in found.parts]
    assert sizes == [18, 2, 5]
    seen = torch.cat([found.parts.train[0], found.parts.choose[0]])[:, 0, 0] * 255
    assert torch.equal(seen.sort().values, torch.arange(20.0))
    other = sources.load("images", "mnist", 1)
    assert torch.equal(other.parts.judge[0], x)
    assert not torch.equal(other.parts.train[0], found.parts.train[0])
    assert [len(part[0]) for part in sources.load("images", "mnist", 0, at_most=10).parts] == [7, 1, 2]


def test_cifar_is_read_without_unpacking(home):
    rows = np.zeros((10_000, 3073), dtype=np.uint8)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            rows[:, 0], rows[:, 1:1025], rows[:, 1025:] = i, 255, 0
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = rows.size
            tar.addfile(info, io.BytesIO(rows.tobytes()))
    store(home, "cifar-10", {"cifar-10-binary.tar.gz": packed.getvalue()})
    found = sources.load("images", "cifar-10", 0, at_most=100)
    assert [tuple(part[0].shape) for part in found.parts] == [
        (72, 3, 32, 32),
        (8, 3, 32, 32),
        (20, 3, 32, 32),
    ]
    assert found.parts.judge[1].unique().tolist() == [5]
    assert found.parts.judge[0][0].mean((1, 2)).tolist() == [1, 0, 0]


def test_texts_have_their_usual_parts(home):
    text = "".join(chr(97 + i % 26) for i in range(2000))
    store(home, "tiny-shakespeare", {"input.txt": text.encode()})
    parts, names = sources.load("text", "tiny-shakespeare", 0)[1:3]
    assert [sum(map(len, part)) for part in parts] == [1800, 100, 100]
    assert "".join(names[i] for i in parts.judge[0]) == text[-100:]
    raw = {f"wikitext-2-raw/wiki.{part}.raw": f"{part} é" for part in ("train", "valid", "test")}
    store(home, "wikitext-2", {"wikitext-2-raw-v1.zip": zipped(**raw)})
    parts, names = sources.load("text", "wikitext-2", 0)[1:3]
    assert ["".join(names[i] for i in part[0]) for part in parts] == ["train é", "valid é", "test é"]
    store(home, "enwik8", {"enwik8.zip": zipped(enwik8="é".encode() * 1000)})
    found = sources.load("text", "enwik8", 0, at_most=400)
    assert ([len(part[0]) for part in found.parts], len(found.names)) == ([360, 20, 20], 2)


def test_the_readers_text_is_split_by_the_seed(home, tmp_path):
    (tmp_path / "book.txt").write_text("it was a dark and stormy night " * 40)
    DataSets(home).add_own("book", tmp_path / "book.txt", None)
    assert sources.load("text", "book", 0).names == "".join(sorted(set("it was a dark and stormy night ")))


def test_the_readers_pictures_have_their_folders_as_labels(home, tmp_path):
    from PIL import Image

    for place, (name, colour) in enumerate([("red", (255, 0, 0)), ("blue", (0, 0, 255))] * 10):
        (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6 + place, 4), colour).save(tmp_path / "own" / name / f"{place}.png")
    DataSets(home).add_own("own", tmp_path / "own", None)
    found = sources.load("images", "own", 0)
    assert found.names == ("blue", "red")
    x, y = found.parts.train
    assert x.shape[1:] == (3, 4, 7)  # the size of the first file in order, blue/1.png
    assert torch.equal(x[:, 0, 0, 0], y.float())


def test_pictures_with_masks_of_the_same_names(home, tmp_path):
    from PIL import Image

    for i in range(10):
        for folder, ending, mode in (("images", "jpg", "RGB"), ("masks", "png", "L")):
            (tmp_path / "cells" / folder).mkdir(parents=True, exist_ok=True)
            picture = Image.new(mode, (6, 4) if folder == "images" else (12, 8), 0)
            picture.paste((10 * i, 0, 0) if folder == "images" else 255, (0, 0, 6, 8))
            picture.save(tmp_path / f"cells/{folder}/{i}.{ending}", quality=100)
    DataSets(home).add_own("cells", tmp_path / "cells", None)
    x, masks = sources.load("images", "cells", 0, needs="masks").parts.train
    assert (x.shape[1:], masks.shape) == ((3, 4, 6), (len(x), 4, 6))
    assert masks.dtype == torch.int64
    assert (masks.unique().tolist(), masks[0, 0].tolist()) == ([0, 1], [1, 1, 1, 0, 0, 0])
    with pytest.raises(ReadtrackError, match="masks but no labels"):
        sources.load("images", "cells", 0, needs="classes")
    with pytest.raises(ReadtrackError, match="networks predict masks, but digits has none"):
        sources.load("images", "digits", 0, needs="masks")
    store = DataSets(home)
    store.remove("cells")
    (tmp_path / "cells/masks/3.png").unlink()
    store.add_own("cells", tmp_path / "cells", None)
    with pytest.raises(ReadtrackError, match=r"images/3\.jpg has no mask with the same name"):
        sources.load("images", "cells", 0, needs="masks")


def test_speech_commands_keep_their_lists(home):
    files = {
        f"{word}/{speaker}_nohash_0.wav": sound([place * 1000 + int(speaker)] * 100)
        for place, word in enumerate(("no", "yes"))
        for speaker in "1234"
    }
    files |= {
        "testing_list.txt": b"no/1_nohash_0.wav\nyes/1_nohash_0.wav\n",
        "validation_list.txt": b"no/2_nohash_0.wav\n",
        "_background_noise_/hum.wav": sound([0] * 10),
    }
    store(home, "speech-commands", files)
    found = sources.load("speech", "speech-commands", 0)
    assert (found.names, found.rate) == (("no", "yes"), 16_000)
    assert [tuple(part[0].shape) for part in found.parts] == [(5, 16_000), (1, 16_000), (2, 16_000)]
    x, y = found.parts.judge
    assert (x[:, 0] * 32768).tolist() == [1, 1001]
    assert y.tolist() == [0, 1]


def test_lj_speech_is_parted_by_chapters(home):
    names = [f"LJ00{chapter}-000{i}" for chapter in (1, 3, 4) for i in (1, 2)]
    files = {f"LJSpeech-1.1/wavs/{name}.wav": sound([7] * (i + 1), 22_050) for i, name in enumerate(names)}
    files["LJSpeech-1.1/metadata.csv"] = "\n".join(f'{name}|Dr "A|said {name}' for name in names).encode()
    store(home, "lj-speech", files)
    found = sources.load("speech", "lj-speech", 0)
    assert [[found.names[i] for i in part[1]] for part in (found.parts.judge, found.parts.choose)] == [
        ["said LJ001-0001", "said LJ001-0002"],
        ["said LJ003-0001", "said LJ003-0002"],
    ]
    assert (found.parts.train[0] > 0).sum(1).sort().values.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"short")),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((20, 28, 28), np.uint8))[:-30]),
        ("train-images-idx3-ubyte.gz", gzip.compress(struct.pack(">4I", 0x803, 2**31, 2**31, 2**31))),
        ("train-labels-idx1-ubyte.gz", idx(np.zeros(19, np.uint8))),
        ("train-labels-idx1-ubyte.gz", gzip.compress(struct.pack(">2I", 0x803, 20) + bytes(20))),
    ],
    ids=["no gzip", "no header", "cut", "too large", "one label less", "pictures for labels"],
)
def test_damaged_files_are_one_clear_error(home, name, content):
    store(home, "mnist", mnist() | {name: content})
    with pytest.raises(ReadtrackError, match="data verify mnist"):
        sources.load("images", "mnist", 0)


def tarred(mode="w:gz", **members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def png(width, height):
    """The header of a PNG, without pixels."""
    size = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def spoilt(packed):
    """The data with changed bytes in the middle, as from a bad disk."""
    middle = len(packed) // 2
    return packed[:middle] + bytes(200) + packed[middle + 200 :]


NOISE = np.random.default_rng(0).bytes(5000)
WIKI = {f"wikitext-2-raw/wiki.{part}.raw": "a" for part in ("train", "valid", "test")}
FIRST, _, LAST = WIKI
COMMANDS = {"testing_list.txt": b"no/1.wav", "validation_list.txt": b"no/2.wav"} | {
    f"no/{i}.wav": sound([1] * 9) for i in (1, 2, 3)
}
LJ = {
    "LJSpeech-1.1/metadata.csv": b"LJ001-0001|a|a",
    "LJSpeech-1.1/wavs/LJ001-0001.wav": sound([1] * 9, 22_050),
}


@pytest.mark.parametrize(
    ("kind", "name", "files"),
    [
        ("images", "mnist", mnist() | {"train-images-idx3-ubyte.gz": spoilt(gzip.compress(NOISE))}),
        ("images", "cifar-10", {"cifar-10-binary.tar.gz": b"no archive"}),
        ("images", "cifar-10", {"cifar-10-binary.tar.gz": tarred(data_batch_1=NOISE)[:-400]}),
        ("images", "cifar-10", {"cifar-10-binary.tar.gz": spoilt(tarred(data_batch_1=NOISE))}),
        ("images", "cifar-10", {"cifar-10-binary.tar.gz": tarred(data_batch_1=bytes(99))}),
        ("text", "enwik8", {"enwik8.zip": b"no archive"}),
        ("text", "enwik8", {"enwik8.zip": zipped(enwik8=NOISE)[:-400]}),
        ("text", "enwik8", {"enwik8.zip": spoilt(zipped(enwik8=NOISE))}),
        ("text", "enwik8", {"enwik8.zip": zipped(other="x")}),
        ("text", "wikitext-2", {"wikitext-2-raw-v1.zip": zipped(**WIKI)[:-400]}),
        ("text", "wikitext-2", {"wikitext-2-raw-v1.zip": spoilt(zipped(**WIKI | {FIRST: NOISE}))}),
        ("text", "wikitext-2", {"wikitext-2-raw-v1.zip": zipped(**WIKI | {LAST: b"\xff\xfe"})}),
        (
            "text",
            "wikitext-2",
            {"wikitext-2-raw-v1.zip": zipped(**WIKI | {LAST: bytes(100_000_001)})},
        ),
        ("text", "tiny-shakespeare", {}),
        ("speech", "speech-commands", COMMANDS | {"no/3.wav": COMMANDS["no/3.wav"][:20]}),
        ("speech", "speech-commands", COMMANDS | {"no/3.wav": b"no sound"}),
        ("speech", "speech-commands", {"no/3.wav": COMMANDS["no/3.wav"]}),
        ("speech", "lj-speech", LJ | {"LJSpeech-1.1/metadata.csv": b"LJ001-0001|a|a\n\n"}),
        ("speech", "lj-speech", LJ | {"LJSpeech-1.1/metadata.csv": b"LJ001-0001|a|" + b"a" * 200_000}),
        ("speech", "lj-speech", LJ | {"LJSpeech-1.1/metadata.csv": b"LJ009-0009|a|a"}),
        ("speech", "lj-speech", LJ | {"LJSpeech-1.1/metadata.csv": b"../../../etc/passwd|a|a"}),
    ],
)
def test_damaged_data_of_every_format_are_one_clear_error(home, kind, name, files):
    store(home, name, files)
    with pytest.raises(ReadtrackError, match=f"The data set {name} cannot be read.*data verify {name}"):
        sources.load(kind, name, 0)


@pytest.mark.parametrize(
    ("kind", "file", "content"),
    [
        ("images", "1.png", b"no picture"),
        ("images", "1.png", png(5, 5)),
        ("images", "1.png", png(100_000, 100_000)),
        ("speech", "1.wav", b"no sound"),
        ("speech", "1.wav", sound([1] * 9)[:20]),
        ("speech", "1.wav", sound([])[:-4] + struct.pack("<I", 2**31 - 1)),
    ],
)
def test_damaged_files_of_the_reader_are_one_clear_error(home, tmp_path, kind, file, content):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / file).write_bytes(content)
    DataSets(home).add_own("mine", tmp_path / "own", kind)
    with pytest.raises(ReadtrackError, match=r"The data set mine cannot be read|mine has 1 speech"):
        sources.load(kind, "mine", 0)


def test_a_text_of_a_few_letters_is_too_short(home, tmp_path):
    (tmp_path / "note.txt").write_text("ab")
    DataSets(home).add_own("note", tmp_path / "note.txt", None)
    with pytest.raises(ReadtrackError, match="The data set note cannot be read"):
        sources.load("text", "note", 0)


def test_a_zip_that_unpacks_to_more_than_it_should_is_refused(home):
    store(home, "enwik8", {"enwik8.zip": zipped(enwik8=bytes(100_000_001))})
    with pytest.raises(ReadtrackError, match="larger than"):
        sources.load("text", "enwik8", 0)


def test_a_part_of_speech_commands_has_words_of_all_classes(home):
    files = {f"{word}/{i}_nohash_0.wav": sound([1]) for word in ("no", "yes") for i in range(20)}
    held = [path for path in files if path.split("/")[1][0] == "1"]
    files |= {
        "testing_list.txt": "\n".join(held[::2]).encode(),
        "validation_list.txt": "\n".join(held[1::2]).encode(),
    }
    store(home, "speech-commands", files)
    parts = sources.load("speech", "speech-commands", 0, at_most=20).parts
    assert [len(part[0]) for part in parts] == [16, 2, 4]
    assert all(part[1].unique().tolist() == [0, 1] for part in parts)


def test_labels_are_requested_where_a_paper_learns_them(home, tmp_path):
    names = [f"LJ{chapter:03}-0001" for chapter in range(1, 9)]
    files = {f"LJSpeech-1.1/wavs/{name}.wav": sound([1], 22_050) for name in names}
    files["LJSpeech-1.1/metadata.csv"] = "\n".join(f"{name}|said|said {name}" for name in names).encode()
    store(home, "lj-speech", files)
    with pytest.raises(ReadtrackError, match=r"labels of most test speech do not occur.*speech-commands"):
        sources.load("speech", "lj-speech", 0, needs="classes")
    for i in range(9):
        (tmp_path / "hum").mkdir(exist_ok=True)
        (tmp_path / f"hum/{i}.wav").write_bytes(sound([i]))
    DataSets(home).add_own("hum", tmp_path / "hum", None)
    assert len(sources.load("speech", "hum", 0).parts.train[0]) > 4
    with pytest.raises(ReadtrackError, match="all of its speech have the same label"):
        sources.load("speech", "hum", 0, needs="classes")
    for i in range(44):
        (tmp_path / f"many/{i % 11}").mkdir(exist_ok=True, parents=True)
        (tmp_path / f"many/{i % 11}/{i}.wav").write_bytes(sound([i]))
    DataSets(home).add_own("many", tmp_path / "many", None)
    assert len(sources.load("speech", "many", 0, needs="classes").names) == 11
    with pytest.raises(
        ReadtrackError, match="it has 11 labels, but the paper's networks distinguish only 10"
    ):
        sources.load("speech", "many", 0, needs="ten classes")


def test_missing_data_or_a_wrong_kind_are_reported(home, tmp_path):
    with pytest.raises(NotAvailableError, match="readtrack data get mnist"):
        sources.load("images", "mnist", 0)
    with pytest.raises(NotAvailableError, match="Shipped with readtrack: prose, code"):
        sources.load("text", "mine", 0)
    (tmp_path / "book.txt").write_text("x")
    DataSets(home).add_own("book", tmp_path / "book.txt", None)
    with pytest.raises(ReadtrackError, match="book is text, but the paper takes images"):
        sources.load("images", "book", 0)


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_itself(home):
    DataSets(home).add_known(catalogue()["fashion-mnist"], FASHION)
    found = sources.load("images", "fashion-mnist", 0)
    assert [tuple(part[0].shape) for part in found.parts] == [
        (54_000, 28, 28),
        (6_000, 28, 28),
        (10_000, 28, 28),
    ]
    assert found.parts.judge[1].bincount().tolist() == [1000] * 10
    assert (found.parts.judge[0][0] > 0).any()
    assert found.names[found.parts.judge[1][0]] == "ankle boot"
