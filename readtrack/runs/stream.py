"""A stream of random numbers."""

import torch


class Stream(torch.Generator):
    """A generator that a checkpoint can refer to weakly, as it cannot to torch's own before torch 2.13."""
