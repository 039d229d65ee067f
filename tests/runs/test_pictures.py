"""Tensors as PNG files."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from readtrack.runs.pictures import save_png


@pytest.mark.parametrize(
    ("shape", "columns", "size"),
    [
        ((4, 5), None, (5, 4)),
        ((1, 4, 5), None, (5, 4)),
        ((3, 1, 4, 5), None, (11, 9)),  # two by two, a pixel between, one place left empty
        ((3, 1, 4, 5), 3, (17, 4)),
        ((4, 3, 4, 5), 1, (5, 19)),
    ],
)
def test_a_batch_becomes_a_grid(
    shape: tuple[int, ...], columns: int | None, size: tuple[int, int], tmp_path: Path
) -> None:
    grid = save_png(tmp_path / "x.png", torch.zeros(shape), columns=columns)
    assert grid == {(5, 4): (1, 1), (11, 9): (2, 2), (17, 4): (1, 3), (5, 19): (4, 1)}[size]
    assert Image.open(tmp_path / "x.png").size == size


def test_values_are_clamped_and_what_is_no_number_is_black(tmp_path: Path) -> None:
    save_png(tmp_path / "x.png", torch.tensor([[-1.0, 0.5, 2.0, float("nan")]]))
    assert list(Image.open(tmp_path / "x.png").tobytes()) == [0, 128, 255, 0]


def test_an_image_has_one_or_three_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 2"):
        save_png(tmp_path / "x.png", torch.zeros(2, 4, 5))
