"""Nests of tensors in tuples, lists and dictionaries: the inputs of a case and the results of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

_CONSTANTS = (bool, int, float, str, bytes, type(None))


def leaves(nest: Any) -> list[Any]:
    """The leaves of a nest, in order; dictionaries in the order of their keys.

    A module is a nest of its parameters by name.
    """
    if isinstance(nest, nn.Module):
        return [parameter for _, parameter in sorted(nest.named_parameters())]
    if isinstance(nest, Mapping):
        return [leaf for key in sorted(nest, key=str) for leaf in leaves(nest[key])]
    if isinstance(nest, (tuple, list)):
        return [leaf for part in nest for leaf in leaves(part)]
    return [nest]


def tensors(nest: Any) -> list[Tensor]:
    """The tensors of a nest, without the constants."""
    return [leaf for leaf in leaves(nest) if isinstance(leaf, Tensor)]


def mapped(function: Callable[[Tensor], Any], nest: Any) -> Any:
    """The same nest with `function` applied to each tensor.

    Raises TypeError for anything except tensors and plain constants.
    """
    if isinstance(nest, Tensor):
        return function(nest)
    if isinstance(nest, Mapping):
        return {key: mapped(function, part) for key, part in nest.items()}
    if isinstance(nest, (tuple, list)):
        parts = [mapped(function, part) for part in nest]
        if isinstance(nest, list):
            return parts
        return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)
    if isinstance(nest, _CONSTANTS):
        return nest
    raise TypeError(
        f"inputs are tensors and plain constants in tuples, lists and dictionaries, not {type(nest).__name__}"
    )
