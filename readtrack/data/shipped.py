"""Data shipped with Python and scikit-learn: handwritten digits, two photographs, prose, source code."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import NotAvailableError

if TYPE_CHECKING:
    from torch import Tensor

_PIXEL_LEVELS = 16  # a pixel is the number of ink pixels in a 4 x 4 block of a 32 x 32 bitmap


def digits() -> tuple[Tensor, Tensor]:
    """Handwritten digits: images (1797, 8, 8) float32 in [0, 1], ink is 1; labels (1797,) int64 in 0..9.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI,
    doi 10.24432/C50P49, CC BY 4.0), as scikit-learn ships it.
    """
    import numpy as np
    import torch

    # Read the file directly, because importing sklearn.datasets takes two seconds.
    table = np.loadtxt(_from_sklearn("data/digits.csv.gz"), delimiter=",", dtype=np.float32)
    pixels = torch.from_numpy(table[:, :-1].reshape(-1, 8, 8) / _PIXEL_LEVELS)
    return pixels, torch.from_numpy(table[:, -1]).long()


def photographs(height: int | None = None) -> Tensor:
    """Two photographs, (2, 3, height, width) float32 in [0, 1]: `china` (a temple), then `flower` (a dahlia).

    427 x 640 pixels, or `height` rows with the same aspect ratio (antialiased). From scikit-learn, CC BY 2.0:
    flickr.com/photos/danielbuechele/6061409035 and flickr.com/photos/vultilion/6056698931. Raises ValueError
    if `height` would enlarge them.
    """
    import numpy as np
    import torch
    from PIL import Image

    pictures = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(_from_sklearn(f"images/{name}")) as file:
            picture = file.convert("RGB")
        if height is not None:
            if not 0 < height <= picture.height:
                raise ValueError(f"height={height}: the photographs have {picture.height} rows")
            width = round(picture.width * height / picture.height)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        pictures.append(torch.from_numpy(np.array(picture)))
    return torch.stack(pictures).permute(0, 3, 1, 2).float().div(255).contiguous()


def text() -> str:
    """English prose, some 450,000 ASCII characters: Python's own language reference.

    The help topics in every CPython (`pydoc_data.topics`, PSF licence), sorted by name; other characters
    (curly quotes) are left out. The text changes with Python's version.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise NotAvailableError(
            "This Python was installed without pydoc_data, whose texts the experiment reads. "
            "Use a Python with its full standard library."
        ) from error
    prose = "\n".join(topics[name] for name in sorted(topics))
    return prose.encode("ascii", "ignore").decode("ascii")


def code() -> str:
    """Source code, some four million characters: the public top-level modules of Python's standard library.

    Sorted by name, PSF licence. It changes with Python's version.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    sources = [path.read_text(encoding="utf-8") for n in names if (path := folder / f"{n}.py").is_file()]
    if not sources:
        raise NotAvailableError(
            f"No Python sources in {folder}, which the experiment reads. "
            "Use a Python with its full standard library."
        )
    return "\n".join(sources)


def _from_sklearn(name: str) -> Path:
    """A file of scikit-learn's `datasets` folder, found without importing scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        path = Path(folder) / "datasets" / name
        if path.is_file():
            return path
    raise NotAvailableError(
        f"scikit-learn's {name}, which the experiment reads, is missing. Reinstall scikit-learn."
    )
