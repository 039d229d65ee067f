"""Networks that several papers share: trained once, cached under a hash of their code and settings."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from readtrack.home import Home, replacing

if TYPE_CHECKING:
    import torch
    from torch import nn


class Trained(NamedTuple):
    """The trained `network`, and `untrained` with the same initial weights."""

    network: nn.Module
    untrained: nn.Module


def trained(
    key: str,
    make: Callable[[], nn.Module],
    train: Callable[[nn.Module], None],
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    budget: str,
    settings: Mapping[str, str],
    log: Callable[[str], None],
    keep: bool = True,
) -> Trained:
    """See `Run.trained`. `keep` enables reading and writing the cache."""
    import torch

    torch.manual_seed(int.from_bytes(_digest(key, str(seed))[:7], "big"))
    untrained = make().to(device, dtype)
    network = deepcopy(untrained)
    varied = " ".join((budget, *map(str, sorted(settings.items()))))
    facts = (key, _source(train), str(seed), varied, str(dtype), torch.__version__)
    path = Home().cache / "trained" / f"{key}-{_digest(*facts).hex()[:16]}.pt"
    if keep and path.is_file():
        try:
            network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        except Exception as error:  # whatever the damage, train again
            log(f"{key}: the cached network is damaged ({type(error).__name__}) and is trained again")
        else:
            log(f"{key}: trained earlier and read from the cache")
            return Trained(network.eval(), untrained.eval())
    train(network)
    if keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            torch.save(network.state_dict(), part)
    return Trained(network.eval(), untrained.eval())


def _digest(*facts: str) -> bytes:
    return hashlib.sha256("\0".join(facts).encode()).digest()


def _source(function: Callable[..., object]) -> str:
    """The source of the paper that `function` belongs to. If it changes, the network is trained again."""
    module = inspect.getmodule(function)
    if module is None or module.__file__ is None:
        return inspect.getsource(function)
    file = Path(module.__file__)
    in_folder = module.__name__.count(".") > 2 or file.name == "__init__.py"
    files = sorted(file.parent.rglob("*.py")) if in_folder else [file]
    return "".join(path.read_text(encoding="utf-8") for path in files)
