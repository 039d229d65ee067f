"""Names of devices and dtypes. Missing devices are simulated by replacing torch's functions."""

import importlib.util
import os
import platform
import subprocess
import sys

import pytest
import torch

from readtrack import devices
from readtrack.errors import NotAvailableError, ReadtrackError

CPU = torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Makes torch report these kinds of device. Nothing is computed on them."""

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
def test_a_missing_device_is_reported_with_the_available_ones(pretend, name):
    pretend("cuda")
    with pytest.raises(ReadtrackError, match="Available: cuda:0, cuda:1, cpu"):
        devices.resolve(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cuda", "this PyTorch, 2.9.0, was built without cuda"),
        ("CUDA:1", "built without cuda"),
        ("xpu", "built without xpu"),
    ],
)
def test_devices_that_a_build_of_torch_lacks_are_known_without_importing_it(
    tmp_path, monkeypatch, name, reason
):
    torch_with(tmp_path, monkeypatch, cuda="None")
    with pytest.raises(NotAvailableError, match=reason) as caught:
        devices.require(name)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_an_invalid_device_name_is_a_usage_error(name):
    with pytest.raises(ReadtrackError, match="Devices are cpu, cuda") as caught:
        devices.require(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["auto", "cpu", "cpu:0", " CPU "])
def test_devices_that_may_exist_are_accepted(tmp_path, monkeypatch, name):
    torch_with(tmp_path, monkeypatch, cuda="None")
    devices.require(name)


def test_a_torch_for_cuda_needs_a_driver(tmp_path, monkeypatch):
    torch_with(tmp_path, monkeypatch, cuda="'12.8'")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "_has_driver", lambda: False)
    with pytest.raises(NotAvailableError, match="no NVIDIA driver"):
        devices.require("cuda")
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    devices.require("cuda:7")  # only torch knows the number of devices
    monkeypatch.setenv("READTRACK_PYTHON", "sh")
    monkeypatch.setattr(devices, "_has_driver", lambda: False)
    devices.require("cuda")  # another Python's torch is unknown


def torch_with(folder, monkeypatch, cuda):
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text("raise AssertionError('imported')")
    (folder / "torch/version.py").write_text(
        "from typing import Optional\n\n__all__ = ['__version__', 'cuda', 'hip']\n__version__ = '2.9.0'\n"
        f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = None\nxpu: Optional[str] = None\n"
    )
    spec = importlib.util.spec_from_file_location("torch", folder / "torch/__init__.py")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: spec)


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    """Makes the processor's name come from this file."""

    def named(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")
        devices._cpu_model.cache_clear()
        return devices._cpu_model()

    yield named
    devices._cpu_model.cache_clear()


def test_processors_of_arm_are_distinguished_by_their_parts(cpuinfo, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    core = "processor\t: {}\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU part\t: {}\n\n"
    one = cpuinfo("".join(core.format(cpu, "0xd0c") for cpu in range(4)))
    big_and_little = cpuinfo(core.format(0, "0xd05") + core.format(1, "0xd0b") + core.format(2, "0xd05"))
    assert one == "aarch64 (implementer 0x41, part 0xd0c)"
    assert big_and_little == "aarch64 (implementer 0x41, part 0xd05, 0xd0b)"
    # 32-bit kernels report the instruction set as the name.
    named = "model name\t: ARMv7 Processor rev 4 (v7l)\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n"
    assert cpuinfo(named) == "aarch64 (implementer 0x41, part 0xd03)"


def test_other_processors_have_a_name(cpuinfo):
    assert cpuinfo("processor\t: 0\nmodel name\t: A  Fast Chip\n") == "A Fast Chip"


def test_the_system_distinguishes_apples_processors(monkeypatch):
    said = {
        "machdep.cpu.brand_string": "Apple M3 Pro",
        "hw.perflevel0.l2cachesize": "16777216",
        "hw.l2cachesize": "4194304",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(devices, "_sysctl", lambda name: said.get(name, ""))
    devices._cpu_model.cache_clear()
    assert devices._cpu_model() == "Apple M3 Pro"
    devices._cpu_model.cache_clear()
    assert devices.last_level_cache() == 16 << 20
    monkeypatch.setattr(devices, "_sysctl", lambda name: "")
    assert devices.last_level_cache() is None


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


def test_describe_states_the_needs_of_a_result():
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
