"""A stub with the parts of torch that a worker needs to start. Importing the real torch takes seconds and
does not affect how a process ends. Tests that depend on torch use the real one.
"""

from types import SimpleNamespace

__version__ = "0.light"


class device:
    def __init__(self, name):
        self.type = name

    def __str__(self):
        return self.type


class _Dtype(str):
    __slots__ = ()


float32, float64, float16, bfloat16 = (
    _Dtype(f"torch.{name}") for name in ("float32", "float64", "float16", "bfloat16")
)
cuda = xpu = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
seeds = []


def manual_seed(seed):
    seeds.append(seed)


def get_num_threads():
    return 1


def set_num_threads(count):
    pass
