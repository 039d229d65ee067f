"""Measure training of ResNet-20 against the same network of torch's modules: `python tests/bench_resnet.py`.

All variants start from the same weights and train on the same augmented batches of a data set in the
readtrack home (`--data`), in bfloat16 mixed precision with torch's fused SGD. They take turns for several
rounds. Prints images per second: the median of the rounds, with the slowest and the fastest round. `--small`
uses small batches of a few images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import cycle

import torch
import torch.nn.functional as F
from side_by_side import compile_in_parallel, rates, report, warmed
from torch import Tensor, nn

from readtrack.data import sources
from readtrack.papers.resnet.benchmark import torchs
from readtrack.papers.resnet.model import cifar
from readtrack.papers.resnet.pictures import augmented

MODULES = {"torch's modules": torchs, "readtrack": lambda network: network}
LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}
MODES = {"": None, ", compiled": "default", ", compiled with CUDA graphs": "reduce-overhead"}
VARIANTS = {
    made + layout + mode: (MODULES[made], LAYOUTS[layout], MODES[mode])
    for made in MODULES
    for layout in LAYOUTS
    for mode in MODES
}
STRONGEST = "torch's modules, channels last, compiled with CUDA graphs"


def trainer(
    name: str, start: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]], device: torch.device
) -> Callable[[], Tensor]:
    """A function that does one training step on the next batch and returns its loss."""
    change, layout, mode = VARIANTS[name]
    network: nn.Module = change(cifar(20, channels=batches[0][0].shape[1]))
    network.load_state_dict(start, strict=False)  # torch's normalisation also counts batches
    network.to(device, memory_format=layout)
    called = torch.compile(network, dynamic=False, mode=mode) if mode else network
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=device.type == "cuda"
    )
    given = cycle([(x.contiguous(memory_format=layout), y) for x, y in batches])

    def step() -> Tensor:
        x, y = next(given)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(called(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--warm", metavar="VARIANT", help="only compile this variant, into torch's cache")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = 4 if asked.small else 128
    source = sources.load("images", asked.data, 0, at_most=500 if asked.small else 20_000).small(32)
    x, y = source.parts.train
    x = x - x.mean(0)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(20):
        rows = torch.randint(len(x), (batch,), generator=generator)
        batches.append((augmented(x[rows], generator).to(device), y[rows].to(device)))
    torch.manual_seed(0)
    start = cifar(20, channels=x.shape[1]).state_dict()
    if asked.warm:
        trainer(asked.warm, start, batches, device)()
        return
    compile_in_parallel([name for name in VARIANTS if ", compiled" in name])
    steps = warmed(VARIANTS, lambda name: trainer(name, start, batches, device), device)
    found = rates(steps, device, per_step=batch, count=2 if asked.small else 50)
    print(f"\nTraining on batches of {batch} images, images per second on {device}")
    report(found, against=STRONGEST)


if __name__ == "__main__":
    main()
