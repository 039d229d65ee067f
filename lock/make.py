"""Writes the lock files next to this script with uv: `python lock/make.py`, or with `--upgrade`.

build.txt  pip and the packages for building readtrack
run.txt    packages for `make run`, without PyTorch
torch.txt  PyTorch from the package index, with the CUDA libraries of its Linux build
dev.txt    further packages for `make test`

Every package has one version and the hashes of its files, for every Python and system that readtrack
supports. Versions are kept while they are compatible. `--upgrade` and `--upgrade-package NAME` are passed on
to uv. torch-cpu.txt is maintained by hand, because the package index does not have that build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parent
PROJECT = LOCK.parent / "pyproject.toml"
BUILD = ("pip", "hatchling", "editables")
TORCH = ("torch", "triton", "cuda-", "nvidia-")
OPTIONS = "--universal --python-version 3.11 --only-binary :all: --generate-hashes --no-header --no-annotate"


def main(options: list[str]) -> None:
    known = "".join(path.read_text(encoding="utf-8") for path in sorted(LOCK.glob("*.txt")))
    everything = compiled(known, BUILD, PROJECT, "--all-extras", *options)
    known = "".join(everything.values())
    build = set(compiled(known, BUILD))
    run = set(compiled(known, (), PROJECT, "--extra", "run"))
    torch = {name for name in run if name.startswith(TORCH)}
    rest = everything.keys() - build - run
    write("build.txt", "pip itself and what builds readtrack", everything, build)
    write("run.txt", "What `make run` needs, but for PyTorch", everything, run - torch)
    write("torch.txt", "PyTorch, and the CUDA libraries of its Linux build", everything, torch)
    # PyTorch's CPU build does not include Triton, whose interpreter the tests use.
    write("dev.txt", "What `make test` needs beyond run.txt", everything, rest | {"triton"})


def compiled(known: str, packages: tuple[str, ...], *arguments: Path | str) -> dict[str, str]:
    """The lines of each package that uv resolves, by name. Versions in `known` are preferred."""
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "asked.in"), Path(folder, "found.txt")
        asked.write_text("\n".join(packages), encoding="utf-8")
        found.write_text(known, encoding="utf-8")
        command = [
            "uv",
            "pip",
            "compile",
            "--quiet",
            *OPTIONS.split(),
            "--output-file",
            found,
            asked,
            *arguments,
        ]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        blocks = re.split(r"^(?=\S)", found.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    lines: dict[str, str] = {}
    for block in blocks:  # a package has several blocks if its version depends on the Python
        name = block.partition("==")[0]
        lines[name] = lines.get(name, "") + block
    return lines


def write(file: str, what: str, everything: dict[str, str], names: set[str]) -> None:
    head = f"# {what}. Made by `python lock/make.py`, which needs uv.\n"
    text = head + "".join(everything[name] for name in sorted(names))
    (LOCK / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
