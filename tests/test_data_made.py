"""Synthetic strokes and balls: they are determined by seeds, and obey their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.testing import assert_close

MODULES = [f"readtrack.data.{name}" for name in ("balls", "strokes")]
with install_import_hook(MODULES, "beartype.beartype"):
    from readtrack.data import balls, strokes


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def written(count: int, seed: int, **options: float) -> strokes.Strokes:
    generator = seeded(seed)
    return strokes.write(torch.randint(6, (count, 4), generator=generator), generator, **options)


# Strokes.


def test_a_seed_writes_the_same_strokes() -> None:
    first, again, other = written(20, 1), written(20, 1), written(20, 2)
    assert torch.equal(first.points, again.points)
    assert torch.equal(first.letter, again.letter)
    assert first.points.shape != other.points.shape or not torch.equal(first.points, other.points)


def test_words_are_padded_and_every_letter_is_written_in_order() -> None:
    found = written(50, 0)
    inside = torch.arange(found.points.shape[1]) < found.lengths[:, None]
    assert found.points.shape[1] == found.lengths.max()
    assert (found.points[~inside] == 0).all()
    assert torch.equal(found.letter >= 0, inside)
    for places, length in zip(found.letter, found.lengths, strict=True):
        mine = places[:length]
        assert mine.unique().tolist() == [0, 1, 2, 3]
        assert (mine.diff() >= 0).all()


def test_a_dot_or_bar_is_a_separate_stroke_and_the_last_stroke_ends() -> None:
    word = torch.tensor([["eilnot".index(c) for c in "lite"], ["eilnot".index(c) for c in "tool"]])
    found = strokes.write(word, seeded(0))
    assert set(found.points[..., 2].unique().tolist()) == {0, 1}
    # "l" and "i", dot, "t", bar, "e"; then "t", bar, "ool".
    assert found.points[..., 2].sum(1).tolist() == [5, 3]
    assert found.points[torch.arange(2), found.lengths - 1, 2].tolist() == [1, 1]


def test_points_lie_a_spacing_apart_and_tremor_has_its_size() -> None:
    calm, shaky = written(80, 3, tremor=0.0), written(80, 3, tremor=0.05)
    inside = calm.letter >= 0
    noise = (shaky.points - calm.points)[inside][:, :2]
    assert noise.std().item() == pytest.approx(0.05, rel=0.03)
    assert_close(shaky.points[..., 2], calm.points[..., 2])
    drawn = inside.clone()  # points with the pen down: all except the first of a stroke
    drawn[:, 1:] &= calm.points[:, :-1, 2] == 0
    drawn[:, 0] = False
    apart = calm.points[..., :2].norm(dim=2)[drawn]
    # Every stroke is cut into an integer number of steps, a dot or a bar into one or two.
    assert apart.quantile(0.97) < 0.25 * 7 / 6 + 0.03
    assert apart.max() < 0.25 * 7 / 6 * 1.5
    assert apart.median().item() == pytest.approx(0.25, abs=0.02)
    coarse = written(80, 3, spacing=0.4)
    assert 1.4 < calm.lengths.float().mean() / coarse.lengths.float().mean() < 1.7


def shapes(found: strokes.Strokes) -> tuple[Tensor, Tensor]:
    """Each letter as 12 points of its path, and the letters."""
    courses, labels = [], []
    for points, places, word in zip(found.points, found.letter, found.words, strict=True):
        path = points[:, :2].cumsum(0)
        for place, letter in enumerate(word.tolist()):
            mine = path[places == place].numpy()
            at = np.linspace(0, len(mine) - 1, 12)
            course = np.stack([np.interp(at, np.arange(len(mine)), line) for line in mine.T], 1)
            courses.append(torch.from_numpy(course - course[0]).flatten())
            labels.append(letter)
    return torch.stack(courses), torch.tensor(labels)


def test_letters_are_distinguishable_and_hands_differ() -> None:
    x, y = shapes(written(200, 0))
    unseen, labels = shapes(written(100, 1))
    nearest = y[torch.cdist(unseen, x).argmin(1)]
    assert (nearest == labels).float().mean() > 0.98
    assert all(x[y == letter].std(0).mean() > 0.05 for letter in range(6))


# Balls.


def test_films_match_their_positions() -> None:
    found = balls.bounce(4, 7, seeded(0), balls=2, size=12, radius=2.0)
    assert found.frames.shape == (4, 7, 12, 12)
    assert found.positions.shape == found.velocities.shape == (4, 7, 2, 2)
    grid = np.arange(12) + 0.5
    for frame, middles in zip(found.frames.flatten(0, 1), found.positions.flatten(0, 1), strict=True):
        for y, x in ((0, 0), (3, 8), (6, 6), (11, 2)):
            away = min(math.dist((grid[x], grid[y]), middle) for middle in middles.tolist())
            assert frame[y, x].item() == pytest.approx(min(max(2.5 - away, 0), 1), abs=1e-5)
    assert torch.equal(found.frames, balls.bounce(4, 7, seeded(0), balls=2, size=12, radius=2.0).frames)


def test_balls_stay_inside_and_keep_their_energy() -> None:
    found = balls.bounce(100, 200, seeded(1), balls=3, size=12, speed=1.5)
    assert found.positions.min() >= 1.2 - 1e-4
    assert found.positions.max() <= 12 - 1.2 + 1e-4
    energy = found.velocities.square().sum((2, 3))
    assert_close(energy, torch.full_like(energy, 3 * 1.5**2), rtol=1e-4, atol=1e-4)
    speeds = found.velocities.norm(dim=3)
    assert speeds[:, 0].std() < 1e-5
    assert speeds[:, -1].std() > 0.3  # they collided


def test_a_ball_alone_flies_straight_and_walls_mirror_it() -> None:
    found = balls.bounce(200, 100, seeded(2), size=11, radius=1.0, speed=0.7)
    width = 9.0
    here, velocity = found.positions[:, 0], found.velocities[:, 0]
    for t in (1, 10, 99):
        # In the unfolded box the path is a straight line, which is folded back at multiples of the width.
        straight = (here + velocity * t - 1) % (2 * width)
        expected = 1 + torch.where(straight > width, 2 * width - straight, straight)
        assert_close(found.positions[:, t], expected, rtol=0, atol=2e-3)


def test_two_balls_keep_their_momentum_when_they_meet() -> None:
    here = torch.tensor([[[4.0, 5.0], [5.9, 5.5]]])
    velocity = torch.tensor([[[1.0, 0.2], [-0.5, 0.0]]])
    after = balls._off_each_other(here, velocity, 1.0)
    assert_close(after.sum(1), velocity.sum(1))
    assert_close(after.square().sum(), velocity.square().sum())
    assert not torch.equal(after, velocity)
    assert torch.equal(balls._off_each_other(here, after, 1.0), after)  # they move apart
    assert torch.equal(balls._off_each_other(here, velocity, 0.9), velocity)  # they do not touch


def test_two_frames_tell_more_than_one() -> None:
    frames = balls.bounce(300, 40, seeded(3)).frames.flatten(2)
    before, now, following = (frames[:, i : i + 38].flatten(0, 1) for i in range(3))
    errors = []
    for known in (now, torch.cat((before, now), 1)):
        guess = known @ torch.linalg.lstsq(known, following).solution
        errors.append((following - guess).square().sum(1).mean())
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"size": 2}, "does not fit"), ({"balls": 9, "size": 6}, "hardly fit"), ({"speed": 5.0}, "jump")],
)
def test_impossible_balls_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        balls.bounce(2, 2, seeded(0), **options)
