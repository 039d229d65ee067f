"""Images, texts and speech by name, in three parts, for `Run.source`.

Shipped data are here; other names are data sets of the home (`readtrack data`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from readtrack.data import shipped
from readtrack.data.splits import Parts, characters, parts, stretches
from readtrack.datasets.catalogue import Kind
from readtrack.datasets.store import DataSets
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["train", "choose", "judge"]
Needs = Literal["", "classes", "ten classes", "masks"]
_BLOCK = 500  # size of blocks in characters, for selecting rows of a text

# The first of each kind is the default. No speech is shipped: `readtrack.data.speech` synthesises it.
IMAGES: Mapping[str, Callable[[], tuple[Tensor, Tensor]]] = {"digits": shipped.digits}
TEXTS: Mapping[str, Callable[[], str]] = {"prose": shipped.text, "code": shipped.code}
WITH_LABELS: Mapping[Kind, str] = {"images": "fashion-mnist", "speech": "speech-commands"}  # to fetch
DEFAULTS: Mapping[Kind, str] = {"images": next(iter(IMAGES)), "text": next(iter(TEXTS)), "speech": ""}


class DataSource(NamedTuple):
    """Data of one kind.

    name   for example "digits"
    parts  training, validation and test data. Images: (images (n, height, width) or (n, 3, height, width),
           labels (n,) or masks (n, height, width)). Text: pieces of ids (length,), several in `train`.
           Speech: (sounds (n, samples), labels (n,))
    names  names of the labels or ids: the alphabet of a text
    rate   sampling rate of speech
    """

    name: str
    parts: Parts
    names: Sequence[str]
    rate: int = 0

    def of_rows(self, kind: Kind, rows: Callable[[int, Part], Tensor]) -> DataSource:
        """The same data with only the rows, or blocks of a text, that `rows` selects from each part."""

        def taken(part: Part) -> tuple[Tensor, ...]:
            tensors: tuple[Tensor, ...] = getattr(self.parts, part)
            if kind == "text":
                return tuple(_blocks(piece, rows, part) for piece in tensors)
            some = rows(len(tensors[0]), part)
            return tuple(tensor[some] for tensor in tensors)

        parts = Parts(train=taken("train"), choose=taken("choose"), judge=taken("judge"))
        return self._replace(parts=parts)

    def sizes(self, kind: Kind) -> str:
        """The number of rows or characters in each part, as text."""
        train, choose, judge = (sum(map(len, part[: None if kind == "text" else 1])) for part in self.parts)
        items = "characters" if kind == "text" else kind
        return f"{self.name}: {train:,} {items} (training), {choose:,} (validation), {judge:,} (test)"

    def grey(self, side: int) -> DataSource:
        """The same data as grey images (n, 1, height, width), downsampled to at most `side` × `side`."""
        parts = Parts(*((x if x.dim() == 3 else x.mean(1), labels) for x, labels in self.parts))
        return self._replace(parts=parts).small(side)

    def small(self, side: int) -> DataSource:
        """The same data with images (n, channels, height, width), downsampled to at most `side` × `side`."""
        parts = Parts(*((_small(images, side), labels) for images, labels in self.parts))
        return self._replace(parts=parts)


def _small(images: Tensor, side: int) -> Tensor:
    import torch.nn.functional as F

    images = images[:, None] if images.dim() == 3 else images
    height, width = (min(length, side) for length in images.shape[2:])
    return images if images.shape[2:] == (height, width) else F.adaptive_avg_pool2d(images, (height, width))


def _blocks(piece: Tensor, rows: Callable[[int, Part], Tensor], part: Part) -> Tensor:
    """Selected blocks of a text, concatenated in order."""
    import torch

    starts = range(0, len(piece), _BLOCK)
    return torch.cat([piece[starts[i] :][:_BLOCK] for i in rows(len(starts), part).tolist()])


def load(
    kind: Kind, name: str, seed: int, *, at_most: int | None = None, needs: Needs = "", **split: float
) -> DataSource:
    """The data called `name`, split by `seed` unless their authors have split them.

    at_most  number of rows or characters
    needs    "classes": labels that all parts share; "ten classes": at most ten of them;
             "masks": a mask for each image
    split    shares of shipped data, as arguments of `parts` and `stretches`

    Raises ReadtrackError if the data are of another kind or lack what is needed, NotAvailableError if they
    are not on this machine.
    """
    if kind == "images" and name in IMAGES:
        images, labels = (tensor[:at_most] for tensor in IMAGES[name]())
        classes = "".join(str(label) for label in sorted(set(labels.tolist())))
        found = DataSource(name, parts(images, labels, seed=seed, **split), classes)
    elif kind == "text" and name in TEXTS:
        ids, alphabet = characters(TEXTS[name]()[:at_most])
        found = DataSource(name, stretches(ids, seed, **split), alphabet)
    else:
        found = _of_home(kind, name, seed, at_most)
    if needs == "masks" and found.parts.train[1].dim() < 3:
        raise ReadtrackError(
            f"The paper's networks predict masks, but {name} has none. Add a folder with subfolders images "
            "and masks. The pixels to find in images/1.png are white in masks/1.png."
        )
    if needs in ("classes", "ten classes"):
        _check_classes(kind, found, most=10 if needs == "ten classes" else None)
    return found


def _check_classes(kind: Kind, found: DataSource, most: int | None) -> None:
    """Raises ReadtrackError unless there are several labels, at most `most`, each with several rows."""
    known, judged = set(found.parts.train[1].flatten().tolist()), found.parts.judge[1].flatten().tolist()
    if found.parts.train[1].dim() > 1:
        problem = f"its {kind} have masks but no labels"
    elif len(known) < 2:
        problem = f"all of its {kind} have the same label"
    elif sum(label in known for label in judged) < len(judged) / 2:
        problem = f"the labels of most test {kind} do not occur in training"
    elif most and len(found.names) > most:
        problem = f"it has {len(found.names)} labels, but the paper's networks distinguish only {most}"
    else:
        return
    raise ReadtrackError(
        f"The paper's networks predict labels, but {found.name} is not suitable: {problem}. Fetch "
        f"labelled {kind} with `readtrack data get {WITH_LABELS[kind]}`, or add a folder with a subfolder "
        "for each label."
    )


def _of_home(kind: Kind, name: str, seed: int, at_most: int | None) -> DataSource:
    from readtrack.data import stored

    shipping = {"images": IMAGES, "text": TEXTS}.get(kind, {})
    store = DataSets(Home())
    try:
        found = store.find(name)
    except NotAvailableError as error:
        raise NotAvailableError(f"{error} Shipped with readtrack: {', '.join(shipping) or 'none'}.") from None
    if found.kind != kind:
        raise ReadtrackError(
            f"{name} is {found.kind}, but the paper takes {kind}. `readtrack data list` shows all data sets."
        )
    if kind == "text":
        return DataSource(name, *stored.read_text(store, name, seed, at_most))
    return DataSource(name, *stored.read_rows(store, name, seed, at_most))
