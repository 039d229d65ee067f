"""Hessian-vector products: compute a network's curvature at about the cost of a gradient.

Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", doi 10.1162/neco.1994.6.1.147; and Sagun, Evci,
Güney, Dauphin and Bottou 2017, "Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
arXiv 1706.04454.

The problem. A network of n weights has n² second derivatives, too many to store, let alone to invert or
decompose.

The idea. Most methods only multiply the Hessian by vectors. H v is the derivative of the gradient along v, so
it suffices to differentiate the gradient computation in the direction v. The product is exact, needs no
matrix, and costs about two gradients. From a few dozen products, Lanczos's method finds the ends of the
spectrum and its approximate density. The spectrum of a trained network has a bulk at zero and a few large
outliers, about as many as there are clusters in the data.

This folder. `model` has the Hessian-vector product for any module, and Lanczos's method. `experiment` tests
the accuracy and cost of both, compares the number of outliers with the number of clusters, and plots the
spectrum of a digit classifier. `benchmark` times the product.
"""

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import CHEAP, EXACT, OUTLIERS, experiment
from .model import density, full_hessian, hessian_product, lanczos, module_loss, reverse_product


@hookimpl
def implementation() -> object:
    return hessian_product
