"""Formulas of abstracts in Unicode: known commands are converted, and everything else stays unchanged."""

import pytest

from readtrack.latex import readable


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("no mathematics, 50% off, x_1", "no mathematics, 50% off, x_1"),
        (r"We show $O(n^2)$ for $\alpha \in \mathbb{R}^n$.", "We show O(n²) for α∈ℝⁿ."),
        (r"$\beta_2 = 0.999$, $10^{-8}$, $\ell_2$", "β₂ = 0.999, 10⁻⁸, ℓ₂"),
        (r"$\leq 3\times$ faster, 20\% less", "≤3× faster, 20% less"),
        (r"\emph{Adam} and Schr\"odinger", "Adam and Schrödinger"),
        ("costs $5 or $10 a day", "costs $5 or $10 a day"),
        (r"an open $\alpha stays", r"an open $\alpha stays"),
        (r"$x + \unknown{y}$ and $\gamma$", r"$x + \unknown{y}$ and γ"),
        ("\\", "\\"),
    ],
)
def test_known_commands_are_converted(latex: str, expected: str) -> None:
    assert readable(latex) == expected
