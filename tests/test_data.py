"""The data sets: shapes, ranges, determinism, and what is said when a source is missing."""

import sys

import pytest
import torch
from torch.testing import assert_close

from readtrack import data
from readtrack.errors import NotAvailableError


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images, labels = data.digits()
    theirs = load_digits()
    assert images.shape == (1797, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.min(), images.max()) == (0, 1)
    assert labels.unique().tolist() == list(range(10))
    assert_close(images, torch.from_numpy(theirs.images / 16).float(), rtol=0, atol=0)
    assert torch.equal(labels, torch.from_numpy(theirs.target))


def test_each_call_returns_fresh_tensors() -> None:
    first, _ = data.digits()
    first.zero_()
    assert data.digits()[0].max() == 1


def test_split_parts_every_row_once_and_keeps_rows_together() -> None:
    x = torch.arange(100)
    (train, train_twice), (test, test_twice) = data.split(x, 2 * x, test=0.25)
    assert (len(train), len(test)) == (75, 25)
    assert torch.equal(torch.cat((train, test)).sort().values, x)
    assert torch.equal(train_twice, 2 * train)
    assert torch.equal(test_twice, 2 * test)


def test_split_is_the_same_each_time_and_another_with_another_seed() -> None:
    x = torch.arange(100)
    torch.manual_seed(1)
    (_,), (first,) = data.split(x)
    torch.manual_seed(2)
    (_,), (again,) = data.split(x)
    (_,), (other,) = data.split(x, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_keeps_every_class_on_both_sides_of_the_digits() -> None:
    (_, train), (_, test) = data.split(*data.digits())
    assert test.bincount().min() >= 20
    assert train.bincount().min() >= 120


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_split_refuses_an_empty_side(share: float) -> None:
    with pytest.raises(ValueError, match="empty"):
        data.split(torch.arange(100), test=share)


def test_split_refuses_different_lengths() -> None:
    with pytest.raises(ValueError, match=r"different length: \[3, 4\]"):
        data.split(torch.arange(3), torch.arange(4))


def test_photographs_are_scikit_learns() -> None:
    from sklearn.datasets import load_sample_images

    pictures = data.photographs()
    theirs = torch.stack([torch.from_numpy(picture.copy()) for picture in load_sample_images().images])
    assert pictures.shape == (2, 3, 427, 640)
    assert pictures.dtype == torch.float32
    assert_close(pictures * 255, theirs.permute(0, 3, 1, 2).float())


def test_smaller_photographs_keep_shape_and_brightness() -> None:
    full, small = data.photographs(), data.photographs(height=64)
    assert small.shape == (2, 3, 64, 96)
    assert small.is_contiguous()
    assert (small.min() >= 0) & (small.max() <= 1)
    assert_close(small.mean(dim=(2, 3)), full.mean(dim=(2, 3)), rtol=0, atol=0.01)
    with pytest.raises(ValueError, match="427 rows"):
        data.photographs(height=428)


def test_text_is_ascii_english_and_long() -> None:
    prose = data.text()
    assert len(prose) > 300_000
    assert prose.isascii()
    assert prose.lower().count(" the ") > 3_000
    assert prose == data.text()


def test_code_is_python_and_long() -> None:
    source = data.code()
    assert len(source) > 1_000_000
    assert source.count("\n    def ") > 3_000
    assert source == data.code()


def test_characters_can_be_read_back() -> None:
    ids, alphabet = data.characters("to be or not")
    assert ids.dtype == torch.int64
    assert alphabet == " benort"
    assert "".join(alphabet[i] for i in ids) == "to be or not"


def test_windows_are_runs_of_the_text_and_reach_both_ends() -> None:
    ids = torch.arange(20)
    found = data.windows(ids, 5, 500, torch.Generator().manual_seed(0))
    assert found.shape == (500, 5)
    assert torch.equal(found - found[:, :1], torch.arange(5).expand(500, 5))
    assert (found.min(), found.max()) == (0, 19)
    again = data.windows(ids, 5, 500, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def test_a_python_without_its_documentation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(NotAvailableError, match="pydoc_data"):
        data.text()


def test_a_python_without_its_sources_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(NotAvailableError, match="No Python sources"):
        data.code()


@pytest.mark.parametrize("load", [data.digits, data.photographs])
def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch, load: object) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotAvailableError, match="scikit-learn"):
        load()
