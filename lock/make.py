"""Write the lock files beside this script with uv: `python lock/make.py`, or with `--upgrade`.

build.txt  pip itself and what builds readtrack
run.txt    what `make run` needs
dev.txt    what `make test` needs beyond that
cuda.txt   what PyTorch's CUDA build for Linux needs

Every line names one version and the hashes of its files, for every Python and system that readtrack supports.
Versions stay as they are while they fit. `--upgrade` and `--upgrade-package NAME` are handed to uv.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parent
PROJECT = LOCK.parent / "pyproject.toml"
# uv hashes the files of the package index. A machine may offer PyTorch's CPU build for Linux, too.
CPU_BUILD = {
    # torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
    "torch==2.13.0": "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
}
CUDA = ("cuda-", "nvidia-")
HEAD = """\
# {what}
# Made by `python lock/make.py`, which needs uv. Do not edit.
"""


def main(options: list[str]) -> None:
    known = "".join(path.read_text(encoding="utf-8") for path in sorted(LOCK.glob("*.txt")))
    everything = compiled(known, ["pip", "hatchling", "editables"], "--all-extras", *options)
    known = "".join(everything.values())
    build = compiled(known, ["pip", "hatchling", "editables"], project=False)
    run = compiled(known, [], "--extra", "run")
    cuda = {name for name in run if name.startswith((*CUDA, "triton"))}
    write("build.txt", "pip itself and what builds readtrack.", everything, build)
    write("run.txt", "What `make run` needs.", everything, run.keys() - cuda)
    write("dev.txt", "What `make test` needs beyond run.txt.", everything, everything.keys() - run.keys() - build.keys() | {"triton"})
    write("cuda.txt", "What PyTorch's CUDA build for Linux needs beyond run.txt.", everything, cuda)


def compiled(known: str, packages: list[str], *options: str, project: bool = True) -> dict[str, str]:
    """The lines of each package that uv resolves, by name. Versions in `known` are preferred."""
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder, "asked.in"), Path(folder, "lock.txt")
        asked.write_text("\n".join(packages), encoding="utf-8")
        out.write_text(known, encoding="utf-8")
        given = [PROJECT, asked] if project else [asked]
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header"]
        command += ["--no-annotate", "--only-binary", ":all:", "--python-version", "3.11"]
        subprocess.run([*command, *options, "--output-file", out, *given], stdout=subprocess.DEVNULL, check=True)
        blocks = re.split(r"^(?=\S)", out.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for block in blocks:
        name = block.partition("==")[0]
        found[name] = found.get(name, "") + block
    return found


def write(file: str, what: str, everything: dict[str, str], names: set[str] | dict[str, str]) -> None:
    lines = "".join(everything[name] for name in sorted(names))
    for pin, digest in CPU_BUILD.items():
        lines = lines.replace(f"{pin} \\\n", f"{pin} \\\n    --hash={digest} \\\n")
    (LOCK / file).write_text(HEAD.format(what=what) + lines, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
