"""The features for generated digits: the network classifies digits, and the distance grows with their
defects.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

with install_import_hook("readtrack.scores.digit_features", "beartype.beartype"):
    from readtrack.scores import digit_features
from readtrack import data
from readtrack.data import sources
from readtrack.runs.events import EventWriter
from readtrack.runs.run import Run
from readtrack.scores import frechet_distance


@pytest.mark.slow
def test_it_reads_digits_and_knows_made_ones(tmp_path: Path):
    torch.manual_seed(0)
    run = Run(
        folder=tmp_path,
        events=EventWriter(tmp_path),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=3,
        budget="quick",
        settings={},
    )
    eye = digit_features.digit_features(run, sources.load("images", "digits", 3))
    assert not eye.training
    (train, _), (choose, _), (judge, labels) = data.parts(*data.digits(), seed=3)
    with torch.no_grad():
        assert (eye(judge).argmax(1) == labels).float().mean() > 0.9
    noisy = (judge + 0.4 * torch.randn(judge.shape)).clamp(0, 1)
    floor, ruined = eye.distance(choose, judge), eye.distance(noisy, judge)
    assert 1.5 * floor < ruined < 1.5 * ruined < eye.distance(judge.flip(1), judge)
    with torch.no_grad():
        assert eye.distance(train, judge) == frechet_distance(eye.features(train), eye.features(judge))
