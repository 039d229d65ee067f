"""Products with the Hessian: curvature of a network for about the price of a gradient.

Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", doi 10.1162/neco.1994.6.1.147; and Sagun, Evci,
Güney, Dauphin and Bottou 2017, "Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
arXiv 1706.04454.

The problem. A network of n weights has n² second derivatives: they cannot be written down, let alone solved
with or decomposed.

The idea. Most methods only multiply the Hessian with vectors. H v is how the gradient changes along v, so
differentiate the program that computes the gradient, in the direction v: exact, no matrix, about two
gradients' work. A few dozen such products are enough for Lanczos's method to find the ends of the spectrum
and the outline of the rest. What it shows on trained networks: a bulk at zero, and a few eigenvalues far
outside, as many as the data have clusters.

This folder. model.py has the product, for any module, and Lanczos's method. experiment.py checks and counts
them, holds the outliers against the number of clusters, and draws the spectrum of a network that reads
digits. benchmark.py times the product.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CHEAP, EXACT, OUTLIERS, experiment
from .model import density, full_hessian, hessian_product, lanczos, module_loss, reverse_product


@hookimpl
def implementation() -> object:
    return hessian_product
