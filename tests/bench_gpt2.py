"""Measure GPT-2 (124 million parameters) against transformers' on a GPU: `python tests/bench_gpt2.py`.

All variants train on the same random tokens in bfloat16 mixed precision with torch's fused AdamW. They take
turns for several rounds. Then readtrack and transformers generate tokens greedily with their KV caches.
Prints tables of tokens per second: the median of the rounds, with the slowest and the fastest round.
`--small` uses a tiny network and works on a CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from readtrack.papers.flashattention import flash_attention
from readtrack.papers.gpt2 import GPT2
from readtrack.papers.gpt2.weights import renamed

ROUNDS, STEPS, DRAWN = 5, 5, 128
Loss = Callable[[Tensor], Tensor]
Step = Callable[[Tensor], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def transformers_loss(network: GPT2LMHeadModel) -> Loss:
    """The loss of all tokens after the first, as in `GPT2.loss`."""

    def loss(ids: Tensor) -> Tensor:
        return F.cross_entropy(network(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())

    return loss


KERNELS = "readtrack, FlashAttention plugin"
COMPILED = ", compiled"
EAGER = ("transformers, SDPA", "readtrack", KERNELS, "readtrack, torch's SDPA")
VARIANTS = (*EAGER, *(name + COMPILED for name in EAGER))


def variant(name: str, theirs: GPT2LMHeadModel) -> tuple[torch.nn.Module, Loss]:
    """A network with the weights of `theirs`, and the function from tokens to its loss."""
    config = theirs.config
    if name.startswith("transformers"):
        network = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")
        network.load_state_dict(theirs.state_dict())
        loss = transformers_loss(network)
    else:
        sizes = {"model": config.n_embd, "heads": config.n_head, "layers": config.n_layer}
        attend = {KERNELS: flash_attention, EAGER[3]: sdpa}.get(name.removesuffix(COMPILED))
        network = GPT2(
            config.vocab_size,
            context=config.n_positions,
            **sizes,
            **({"attend": attend} if attend else {}),
        )
        network.load_state_dict(renamed(theirs.state_dict()))
        loss = network.loss
    return network, torch.compile(loss, dynamic=False) if name.endswith(COMPILED) else loss


def trainer(name: str, theirs: GPT2LMHeadModel, device: torch.device) -> Step:
    """A function that does one training step on a batch and returns its loss."""
    network, loss = variant(name, theirs)
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device.type == "cuda")

    def step(ids: Tensor) -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            found = loss(ids)
        found.backward()
        optimizer.step()
        return found.detach()

    return step


def seconds(action: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def generators(theirs: GPT2LMHeadModel, device: torch.device) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Both networks in bfloat16, continuing a prompt of one sequence."""
    prompt = torch.randint(theirs.config.vocab_size, (1, theirs.config.n_positions // 8)).to(device)
    ours, _ = variant("readtrack", theirs)
    ours, copied = (
        ours.to(device, torch.bfloat16),
        variant("transformers", theirs)[0].to(device, torch.bfloat16),
    )
    count = min(DRAWN, theirs.config.n_positions - prompt.shape[1])
    draws = torch.Generator()
    yield "readtrack", lambda: ours.generate(prompt, count, draws, temperature=0)
    yield (
        "transformers",
        lambda: copied.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=count,
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        ),
    )


def report(rates: dict[str, list[float]], *, against: str) -> None:
    """One row per variant: tokens per second, and the ratio of the medians to that of `against`."""
    best = median(rates[against])
    for name, found in sorted(rates.items(), key=lambda item: -median(item[1])):
        middle = median(found)
        print(
            f"{name:50} {middle:10,.0f}  ({min(found):,.0f} to {max(found):,.0f})  {middle / best:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--warm", metavar="VARIANT", help="only compile this variant, into torch's cache")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    small = (
        {"vocab_size": 50, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2} if asked.small else {}
    )
    theirs = GPT2LMHeadModel(
        GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, **small)
    )
    shape = asked.batch, theirs.config.n_positions + 1
    ids = torch.randint(theirs.config.vocab_size, shape).to(device)
    if asked.warm:
        trainer(asked.warm, theirs, device)(ids)
        return
    # Compilers fill torch's cache in parallel, so that the measuring process compiles nothing.
    command = [sys.executable, *sys.argv, "--warm"]
    waiting = [subprocess.Popen([*command, name]) for name in VARIANTS if name.endswith(COMPILED)]
    print([process.wait() for process in waiting], "exit codes of the compilers", flush=True)

    steps: dict[str, Step] = {}
    for name in VARIANTS:
        try:
            steps[name] = trainer(name, theirs, device)
            taken = seconds(lambda name=name: [steps[name](ids) for _ in range(3)], device)
            print(
                f"{name}: loss {steps[name](ids).item():.4f} at step 4, {taken:.1f} s to warm up", flush=True
            )
        except Exception as error:  # the other variants are still measured
            print(f"{name} failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
            steps.pop(name, None)
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            taken = seconds(lambda step=step: [step(ids) for _ in range(STEPS)], device)
            if turn:  # the first round only warms up
                rates[name].append(STEPS * ids[:, 1:].numel() / taken)
    print(f"\nTraining, {asked.batch} × {ids.shape[1] - 1} tokens a step, tokens per second on {device}")
    report(rates, against=EAGER[0] + COMPILED)

    rates = {}
    for name, write in generators(theirs, device):
        write()
        found = [seconds(write, device) for _ in range(ROUNDS)]
        drawn = write().shape[1] - theirs.config.n_positions // 8
        rates[name] = [drawn / taken for taken in found]
    print("\nGreedy generation of one sequence, tokens per second")
    report(rates, against="transformers")


if __name__ == "__main__":
    main()
