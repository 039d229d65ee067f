"""The hash of an experiment's numbers, and a benchmark that measures a copy of the paper's code."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from readtrack.checks.benchmark import check_implementation
from readtrack.checks.constants import digest
from readtrack.checks.experiment import run_experiment

SOURCE = """
RATES = (0.1, 0.3)
CLAIM = Claim(name="a", threshold=0.2)


class Size:
    WIDTH = 8

    def made(self, layers=2):
        return net(width=self.WIDTH, betas=(0.9, 0.99), name="x")


def steps(run):
    return run.pick(smoke=2, quick=40, full=LONG) + run.option("more", 3)
"""


def of(text: str, folder: Path) -> str:
    module = ModuleType("toy")
    module.__file__ = str(folder / "toy.py")
    Path(module.__file__).write_text(text, encoding="utf-8")
    return digest(module)


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("(0.1, 0.3)", "(0.1, 0.4)", True),
        ("WIDTH = 8", "WIDTH = 9", True),
        ("layers=2", "layers=3", True),
        ("(0.9, 0.99)", "(0.9, 0.9)", True),
        ("quick=40", "quick=20", True),
        ("full=LONG", "full=LONGER", True),
        ('"more", 3', '"more", 4', True),
        ("(0.1, 0.3)", "(\n    0.1,\n    0.3,\n)  # two", False),
        ("threshold=0.2", "threshold=0.3", False),
        ('name="x"', 'name="y"', False),
    ],
)
def test_the_hash_covers_named_numbers(tmp_path, old, new, counts):
    assert SOURCE.count(old) == 1
    assert (of(SOURCE, tmp_path) != of(SOURCE.replace(old, new), tmp_path)) == counts


FILES = {
    "__init__": "from .benchmark import benchmark\nfrom .model import double as implementation\n"
    "def experiment(run):\n    run.metric('twice', run.seed)\n",
    "model": "def double(x):\n    return x + x\n",
    "benchmark": """
from readtrack.plugin import Case, Cost, Variant
from .model import double

def copied(x):
    return x + x

def benchmark(bench):
    for name, cost in CASES:
        until = lambda x: {"reached": bool(double(x).any())}
        ours = {"double": double, "copied": copied, "until": until}[name]
        yield Case(
            name=name,
            axes={"n": 4},
            inputs=lambda generator: (__import__("torch").ones(4),),
            variants=[
                Variant(name=role, role=role, call=ours if role == "paper" else lambda x: 2 * x)
                for role in ("naive", "strong", "paper")
            ],
            cost=cost,
        )
""",
}
FORWARD = '{"forward": Cost(flops=4, bytes=32)}'


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        (f'[("double", {FORWARD})]', False),
        (f'[("copied", {FORWARD})]', True),
        (f'[("copied", {FORWARD}), ("double", {FORWARD})]', False),
        (f'[("copied", {FORWARD}), ("until", {{"until": None}})]', True),
    ],
)
def test_a_benchmark_of_a_copy_is_found(tmp_path, monkeypatch, cases, found):
    name = f"toy_impl_{tmp_path.name}"
    (tmp_path / name).mkdir()
    for file, text in FILES.items():
        (tmp_path / name / f"{file}.py").write_text(text.replace("CASES", cases), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    _, run = run_experiment(module, tmp_path / "run", traced=True)
    hooks = ModuleType("hooks")
    hooks.__file__, hooks.benchmark = module.__file__, module.benchmark
    hooks.implementation = lambda: module.implementation
    try:
        check_implementation(hooks, run.lines)
        seen = False
    except AssertionError as error:
        seen = "code changes nothing there" in str(error)
    assert seen == found
