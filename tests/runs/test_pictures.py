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
        ((3, 1, 4, 5), None, (11, 9)),  # two by two, one pixel apart, with one empty cell
        ((3, 1, 4, 5), 3, (17, 4)),
        ((4, 3, 4, 5), 1, (5, 19)),
    ],
)
def test_a_batch_becomes_a_grid(
    shape: tuple[int, ...], columns: int | None, size: tuple[int, int], tmp_path: Path
) -> None:
    grid = save_png(tmp_path / "x.png", torch.zeros(shape), columns=columns)
    said = (grid.get("rows", 1), grid.get("columns", 1))
    assert said == {(5, 4): (1, 1), (11, 9): (2, 2), (17, 4): (1, 3), (5, 19): (4, 1)}[size]
    assert Image.open(tmp_path / "x.png").size == size


def test_values_are_clamped_and_nan_is_black(tmp_path: Path) -> None:
    save_png(tmp_path / "x.png", torch.tensor([[-1.0, 0.5, 2.0, float("nan")]]))
    assert list(Image.open(tmp_path / "x.png").tobytes()) == [0, 128, 255, 0]


def test_an_image_has_one_or_three_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 2"):
        save_png(tmp_path / "x.png", torch.zeros(2, 4, 5))


def test_rows_and_columns_have_names(tmp_path: Path) -> None:
    file, tiles = tmp_path / "x.png", torch.zeros(4, 1, 4, 5)
    named = {"row_names": ["above", "below"], "column_names": ["a", "b"]}
    assert save_png(file, tiles, columns="ab", rows=["above", "below"]) == {"rows": 2, "columns": 2, **named}
    assert save_png(file, tiles[0], columns="ab", rows=["above", "below"]) == named  # composed by the plugin
    with pytest.raises(ValueError, match="has 2 rows, but 1 names for them"):
        save_png(file, tiles, columns=2, rows=["above"])
