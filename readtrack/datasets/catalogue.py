"""The known data sets and weights with their download locations: `catalogue.yaml`, next to this file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

Kind = Literal["images", "text", "speech", "weights"]
Format = Literal[
    "idx",
    "cifar",
    "text",
    "enwik8",
    "wikitext",
    "speech commands",
    "lj speech",
    "pictures",
    "sounds",
    "safetensors",
]

# Available in `readtrack.data.sources` without a file in the home.
SHIPPED: dict[str, Kind] = {"digits": "images", "prose": "text", "code": "text"}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a data set.

    size     bytes
    sha256   SHA-256 of the file as served
    content  SHA-256 of a .gz file's content, or ""; a recompressed copy has another `sha256`
    urls     download locations, tried in order
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    content: str = ""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The description of a data set, or of weights.

    names     names of its labels
    split     the part used for judging
    revision  revision of the weights
    """

    name: str
    title: str
    kind: Kind
    format: Format
    licence: str
    homepage: str
    files: tuple[DataFile, ...]
    split: str = ""
    revision: str = ""
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files)


@cache
def catalogue() -> dict[str, DataSet]:
    """The data sets by name, in the order of the file."""
    import yaml

    described = yaml.safe_load((Path(__file__).parent / "catalogue.yaml").read_text(encoding="utf-8"))
    return {name: _data_set(name, about) for name, about in described.items()}


def _data_set(name: str, about: dict[str, object]) -> DataSet:
    files = cast("list[dict[str, object]]", about["files"])
    rest = {key: value for key, value in about.items() if key not in ("files", "names")}
    return DataSet(
        name=name,
        files=tuple(_file(file) for file in files),
        names=tuple(cast("list[str]", about.get("names", []))),
        **cast("dict[str, str]", rest),  # type: ignore[arg-type]
    )


def _file(about: dict[str, object]) -> DataFile:
    name = str(about["name"])
    return DataFile(
        name=name,
        size=int(str(about["size"])),
        sha256=str(about["sha256"]),
        urls=tuple(folder + name for folder in cast("list[str]", about["urls"])),
        content=str(about.get("content", "")),
    )
