"""The data sets: shapes, ranges, determinism, and messages for missing sources."""

import sys

import pytest
import torch
from torch.testing import assert_close

from readtrack import data
from readtrack.errors import NotAvailableError


def test_digits_match_scikit_learns() -> None:
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


def test_parts_hold_every_row_once_and_keep_rows_together() -> None:
    x = torch.arange(100)
    found = data.parts(x, 2 * x, seed=0, choose=0.15, judge=0.25)
    assert [len(part[0]) for part in found] == [60, 15, 25]
    assert torch.equal(torch.cat([part[0] for part in found]).sort().values, x)
    for rows, doubled in (found.train, found.choose, found.judge):
        assert torch.equal(doubled, 2 * rows)


def test_a_seed_redraws_all_three_parts() -> None:
    x = torch.arange(100)
    first, again, other = (data.parts(x, seed=seed) for seed in (3, 3, 4))
    for part, same, redrawn in zip(first, again, other, strict=True):
        assert torch.equal(part[0], same[0])
        assert not torch.equal(part[0], redrawn[0])


@pytest.mark.parametrize(("choose", "judge"), [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (0.7, 0.6)])
def test_no_part_is_empty(choose: float, judge: float) -> None:
    with pytest.raises(ValueError, match="empty"):
        data.parts(torch.arange(100), seed=0, choose=choose, judge=judge)
    with pytest.raises(ValueError, match="empty"):
        data.stretches(torch.arange(100), 0, choose, judge)


def test_parts_refuse_different_lengths() -> None:
    with pytest.raises(ValueError, match=r"different length: \[3, 4\]"):
        data.parts(torch.arange(3), torch.arange(4), seed=0)


def test_stretches_are_contiguous_and_disjoint() -> None:
    ids = torch.arange(200)
    for seed in range(100):
        found = data.stretches(ids, seed)
        assert [len(part) for part in found[1:]] == [1, 1]
        assert 1 <= len(found.train) <= 3
        assert [len(piece) for part in found[1:] for piece in part] == [20, 20]
        pieces = [piece for part in found for piece in part]
        assert all(torch.equal(piece.diff(), torch.ones(len(piece) - 1).long()) for piece in pieces)
        assert torch.equal(torch.cat(pieces).sort().values, ids)
        assert all(a[-1] < b[0] for a, b in zip(found.train, found.train[1:], strict=False))


def test_stretches_are_drawn_by_the_seed_from_the_whole_text() -> None:
    ids = torch.arange(200)
    starts = torch.tensor([[part[0][0] for part in data.stretches(ids, seed)[1:]] for seed in range(300)])
    assert (starts.min(0).values <= 10).all()
    assert (starts.max(0).values >= 170).all()
    assert 100 < (starts[:, 0] < starts[:, 1]).sum() < 200
    assert torch.equal(data.stretches(ids, 7).judge[0], data.stretches(ids, 7).judge[0])


def test_photographs_match_scikit_learns() -> None:
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


def test_windows_cross_no_seam_and_every_place_is_as_likely() -> None:
    pieces = (torch.arange(4), torch.arange(10, 16), torch.arange(20, 22))
    found = data.windows(pieces, 3, 6000, torch.Generator().manual_seed(0))
    assert torch.equal(found - found[:, :1], torch.arange(3).expand(6000, 3))
    starts, counts = found[:, 0].unique(return_counts=True)
    assert starts.tolist() == [0, 1, 10, 11, 12, 13]
    assert counts.min() > 900
    one = data.windows(torch.arange(50), 3, 40, torch.Generator().manual_seed(0))
    assert torch.equal(one, data.windows((torch.arange(50),), 3, 40, torch.Generator().manual_seed(0)))


def test_a_window_longer_than_every_piece_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no window of length 5 fits in pieces of lengths \[4, 3\]"):
        data.windows((torch.arange(4), torch.arange(3)), 5, 1, torch.Generator())


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
