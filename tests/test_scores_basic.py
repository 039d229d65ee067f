"""Accuracy, rank correlation and the Fréchet distance, compared with scikit-learn and SciPy."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from jaxtyping import install_import_hook
from sklearn.metrics import top_k_accuracy_score

with install_import_hook(["readtrack.scores.basic", "readtrack.scores.frechet"], "beartype.beartype"):
    from readtrack.scores import basic, frechet


@pytest.mark.parametrize("k", [1, 3])
def test_accuracy_matches_scikit_learns(k: int) -> None:
    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(6, (200,), generator=torch.Generator().manual_seed(1))
    expected = top_k_accuracy_score(labels, logits, k=k)
    assert basic.accuracy(logits, labels, k=k) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no rows"):
        basic.accuracy(logits[:0], labels[:0])


def test_rank_correlation_matches_scipys() -> None:
    x, y = (torch.tensor(values) for values in ([2.0, 2, 4, 7, 8, 3], [2.0, 4, 8, 2, 4, 8]))
    assert basic.rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert basic.rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert basic.rank_correlation(x, torch.ones(6)) == 0


def scipys(a: torch.Tensor, b: torch.Tensor) -> float:
    means, covariances = (
        [x.numpy().mean(0) for x in (a, b)],
        [np.cov(x.numpy(), rowvar=False) for x in (a, b)],
    )
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    shift = ((means[0] - means[1]) ** 2).sum()
    return float(shift + np.trace(covariances[0] + covariances[1] - 2 * np.real(root)))


@pytest.mark.parametrize("dim", [2, 7, 32])
def test_frechet_distance_is_the_formula_with_scipys_matrix_root(dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    mix = torch.randn(2, dim, dim, generator=generator, dtype=torch.float64)
    a = torch.randn(300, dim, generator=generator, dtype=torch.float64) @ mix[0]
    b = torch.randn(200, dim, generator=generator, dtype=torch.float64) @ mix[1] + 1
    assert frechet.frechet_distance(a, b) == pytest.approx(scipys(a, b), rel=1e-8)
    assert frechet.frechet_distance(a, a) == pytest.approx(0, abs=1e-8 * a.square().sum(1).mean().item())


def test_frechet_distance_of_fewer_rows_than_dimensions() -> None:
    a, b = torch.randn(2, 10, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # SciPy's root of a singular product is inexact, so a small value is added to the diagonal.
    eye = 1e-6 * torch.eye(40, dtype=torch.float64)
    covariances = [x.T.cov() + eye for x in (a, b)]
    root = np.real(scipy.linalg.sqrtm((covariances[0] @ covariances[1]).numpy()))
    shift = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = shift + (covariances[0] + covariances[1]).trace().item() - 2 * np.trace(root)
    found = frechet.gaussian_frechet_distance(a.mean(0), covariances[0], b.mean(0), covariances[1])
    assert found == pytest.approx(expected, rel=1e-6)
    assert frechet.frechet_distance(a, b) == pytest.approx(expected, rel=0.01)


def test_frechet_distance_of_known_gaussians() -> None:
    one, two = torch.eye(3), torch.diag(torch.tensor([4.0, 9.0, 1.0]))
    found = frechet.gaussian_frechet_distance(torch.zeros(3), one, torch.tensor([3.0, 0, 4.0]), two)
    assert found == pytest.approx(25 + (2 - 1) ** 2 + (3 - 1) ** 2)
    with pytest.raises(ValueError, match="1 rows"):
        frechet.frechet_distance(torch.zeros(5, 2), torch.zeros(1, 2))
