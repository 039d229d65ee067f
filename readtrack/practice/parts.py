"""Decompose a function's result into tensors and numbers, with names for messages."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

Parts = dict[str, Any]

_DEEPEST = 6


def parts(value: Any, name: str = "result") -> Parts:
    """`{"result[0]": tensor, ...}`; a single tensor or list of numbers is "result", a module its weights."""
    return dict(_parts(value, name, _DEEPEST))


def _parts(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth and isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", tensor) for key, tensor in value.state_dict(keep_vars=True).items())
    elif depth and isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _parts(value[key], f"{name}[{key!r}]", depth - 1)
    elif depth and hasattr(value, "_fields"):
        for key in value._fields:
            yield from _parts(getattr(value, key), f"{name}.{key}", depth - 1)
    elif isinstance(value, list | tuple) and value and all(type(part) in (int, float) for part in value):
        yield name, torch.tensor(value)
    elif depth and isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _parts(part, f"{name}[{index}]", depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name), f"{name}.{field.name}", depth - 1)
    else:
        yield name, value


def mapped(function: Callable[[Tensor], Any], value: Any) -> Any:
    """A copy of `value` with `function` applied to each tensor, including those in modules."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, nn.Module):
        return _module(function, value)
    if isinstance(value, Mapping) and type(value) is dict:
        return {key: mapped(function, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        made = [mapped(function, part) for part in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        if any(isinstance(part, Tensor) for part in fields.values()):
            return dataclasses.replace(
                value, **{name: mapped(function, part) for name, part in fields.items()}
            )
    if isinstance(value, torch.Generator):
        same = torch.Generator(value.device)
        same.set_state(value.get_state())
        return same
    if callable(value) or isinstance(value, torch.dtype | torch.device):
        return value
    return copy.deepcopy(value)


def _module(function: Callable[[Tensor], Any], module: nn.Module) -> nn.Module:
    """A copy of the module with other parameters and buffers; tied weights stay tied."""
    made = _copied(module, {})
    seen: dict[int, nn.Parameter] = {}
    for part in made.modules():
        for name, old in list(part._parameters.items()):
            if old is None:
                continue
            if id(old) not in seen:
                seen[id(old)] = nn.Parameter(function(old.detach()), requires_grad=old.requires_grad)
            if isinstance(part, nn.RNNBase):
                setattr(part, name, seen[id(old)])  # it also keeps them in a list
            else:  # setattr takes ten times as long
                part._parameters[name] = seen[id(old)]
        for name, buffer in list(part._buffers.items()):
            part._buffers[name] = buffer if buffer is None else function(buffer)
    return made


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Like copy.deepcopy but ten times as fast, because parameters and buffers are not copied."""
    if id(module) in memo:
        return cast(nn.Module, memo[id(module)])
    if type(module).__setstate__ is not nn.Module.__setstate__ or hasattr(module, "__deepcopy__"):
        return copy.deepcopy(module, memo)
    made = module.__new__(type(module))
    memo[id(module)] = made
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        memo[id(tensor)] = tensor
    for name, value in vars(module).items():
        if name == "_modules":
            value = {key: part and _copied(part, memo) for key, part in value.items()}
        elif name in ("_parameters", "_buffers"):
            value = type(value)(value)
        elif type(value) in (dict, OrderedDict, set, list):
            value = type(value)() if not value else copy.deepcopy(value, memo)
        elif not isinstance(value, bool | int | float | str | None):
            value = copy.deepcopy(value, memo)
        made.__dict__[name] = value
    return made


def leaves(value: Any) -> list[Tensor]:
    """The tensors in a value, including parameters and buffers of modules."""
    return [part for part in parts(value, "").values() if isinstance(part, Tensor)]
