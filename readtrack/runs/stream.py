"""A stream of random numbers."""

import torch


class Stream(torch.Generator):
    """A generator that allows weak references from checkpoints. Torch's own does not before torch 2.13."""
