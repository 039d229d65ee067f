"""Names of devices and dtypes. Devices that are not here are tried with torch's answers replaced."""

import os
import subprocess
import sys

import pytest
import torch

from readtrack import devices
from readtrack.errors import ReadtrackError

CPU = torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Makes torch report these kinds of device; nothing is computed on them."""

    def pretend(*kinds, capability=(8, 0)):
        for kind in ("cuda", "xpu"):
            module = getattr(torch, kind)
            monkeypatch.setattr(module, "is_available", lambda kind=kind: kind in kinds)
            monkeypatch.setattr(module, "device_count", lambda: 2)
            properties = type("Properties", (), {"name": f"A {kind} card", "total_memory": 8 << 30})
            monkeypatch.setattr(module, "get_device_properties", lambda _, found=properties: found)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return pretend


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        ((), ["cpu"]),
        (("cuda",), ["cuda:0", "cuda:1", "cpu"]),
        (("mps",), ["mps", "cpu"]),
        (("cuda", "mps", "xpu"), ["cuda:0", "cuda:1", "mps", "xpu:0", "xpu:1", "cpu"]),
    ],
)
def test_auto_takes_the_first_device_there_is(pretend, kinds, names):
    pretend(*kinds)
    assert [device.name for device in devices.available()] == names
    assert str(devices.resolve("auto")) == names[0]
    assert str(devices.resolve("cpu")) == "cpu"


def test_a_device_by_its_name(pretend):
    pretend("cuda", "mps")
    assert devices.resolve("cuda") == torch.device("cuda:0")
    assert devices.resolve(" CUDA:1 ") == torch.device("cuda:1")
    assert devices.resolve("mps") == torch.device("mps")
    assert devices.resolve("cpu:0") == CPU


@pytest.mark.parametrize("name", ["cuda:2", "tpu", "", "gpu", "mps"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(pretend, name):
    pretend("cuda")
    with pytest.raises(ReadtrackError, match="There is: cuda:0, cuda:1, cpu"):
        devices.resolve(name)


def test_dtypes(pretend):
    assert devices.resolve_dtype("auto", CPU) is torch.float32
    assert devices.resolve_dtype("bfloat16", CPU) is torch.bfloat16
    assert devices.resolve_dtype("auto", torch.device("mps")) is torch.float32
    pretend("cuda", capability=(9, 0))
    assert devices.resolve_dtype("auto", torch.device("cuda:0")) is torch.bfloat16
    pretend("cuda", capability=(7, 5))
    assert devices.resolve_dtype("auto", torch.device("cuda:0")) is torch.float32
    with pytest.raises(ReadtrackError, match="float32, bfloat16, float16, float64"):
        devices.resolve_dtype("int8", CPU)
    with pytest.raises(ReadtrackError, match="Metal has no float64"):
        devices.resolve_dtype("float64", torch.device("mps"))


def test_describe_says_what_a_result_needs():
    facts = devices.describe(CPU)
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cpu"]
    assert facts["torch"] == torch.__version__
    assert devices.device_memory(CPU) is None
    devices.synchronize(CPU)
    (cpu,) = [device for device in devices.available() if device.name == "cpu"]
    assert cpu.memory_bytes > 1 << 28


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process set its CPUs")
def test_threads_follow_the_affinity_mask_and_need_no_torch():
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os, sys; os.sched_setaffinity(0, {{{one}}});"
        "from readtrack.devices import physical_cores; print(physical_cores(), 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "False"]
    assert 1 <= devices.physical_cores() <= len(os.sched_getaffinity(0))


def test_hardware_threads_of_one_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(devices, "_TOPOLOGY", str(tmp_path / "cpu{}"))
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}"
        folder.mkdir()
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{cpu % 2}\n")
    assert devices.physical_cores() == 2
