"""The Triton kernels: compared with the formula in Triton's interpreter, and compiled for two GPUs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the kernels extra (triton) is not installed"
)

# Shared memory per block on an SM (CUDA C++ programming guide, technical specifications).
SHARED = {80: 163 * 1024, 90: 227 * 1024}


def run(*what: str, **environment: str) -> list[dict]:
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("triton_attention.py"), *what],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shapes():
    return run("shapes", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def configs():
    return run("configs", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return run("compile", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))


def check(cases: list[dict]) -> None:
    for case in cases:
        (error, gradient_error), (standard, standard_gradient) = case["ours"], case["standard"]
        # The authors' tolerance, but at least float32's rounding. They give none for second derivatives,
        # which get twice that of the first.
        times = 3 * case.get("order", 1)
        assert error <= max(2 * standard, 1e-6), case
        assert gradient_error <= max(times * standard_gradient, 1e-6), case


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "engine"), [("torch.float32", True), ("torch.float16", False)])
def test_interpreted_kernels_compute_attention_and_its_gradients(shapes, dtype, engine):
    """Covers full, causal and windowed attention, odd lengths, more or fewer queries than keys, shared
    heads, and both head sizes.
    """
    cases = [case for case in shapes if (case["dtype"], case["engine"]) == (dtype, engine)]
    assert len(cases) == 11
    check(cases)


def test_every_configuration_computes_the_same(configs):
    """Runs the forward pass and both backward passes with each of their block sizes."""
    cases = [case for case in configs if "config" in case]
    assert len(cases) == 4
    check(cases)


def test_second_derivatives_of_interpreted_kernels(configs):
    cases = [case for case in configs if case.get("order") == 2]
    assert len(cases) == 1
    check(cases)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_kernels_on_this_gpu(precision):
    check(run("shapes", precision) + run("configs", precision))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_compiled_kernels_use_tensor_cores_without_spills(compiled, capability):
    """They multiply matrices on tensor cores, copy asynchronously, and spill almost no registers."""
    found = [kernel for kernel in compiled if kernel["capability"] == capability]
    assert len(found) == 6
    for kernel in found:
        assert kernel["tensor_cores"] > 0, kernel
        assert kernel["copies"] > 0, kernel
        assert kernel["spilled_bytes"] <= 64, kernel
        assert kernel["shared_bytes"] <= SHARED[capability], kernel
