"""Measure GPT-2 (124 million parameters) against transformers' on a GPU: `python tests/bench_gpt2.py`.

All variants train on the same random tokens in bfloat16 mixed precision with torch's fused AdamW. They take
turns for several rounds. Then readtrack and transformers generate tokens greedily with their KV caches.
Prints tables of tokens per second: the median of the rounds, with the slowest and the fastest round.
`--small` uses a tiny network and works on a CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import compile_in_parallel, rates, report, seconds, warmed
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from readtrack.papers.flashattention import flash_attention
from readtrack.papers.gpt2 import GPT2
from readtrack.papers.gpt2.weights import renamed

ROUNDS, DRAWN = 5, 128
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
    compile_in_parallel([name for name in VARIANTS if name.endswith(COMPILED)])

    def step_of(name: str) -> Callable[[], Tensor]:
        return partial(trainer(name, theirs, device), ids)

    found = rates(warmed(VARIANTS, step_of, device), device, per_step=ids[:, 1:].numel())
    print(f"\nTraining, {asked.batch} × {ids.shape[1] - 1} tokens a step, tokens per second on {device}")
    report(found, against=EAGER[0] + COMPILED)

    found = {}
    for name, write in generators(theirs, device):
        write()
        times = [seconds(write, device) for _ in range(ROUNDS)]
        drawn = write().shape[1] - theirs.config.n_positions // 8
        found[name] = [drawn / taken for taken in times]
    print("\nGreedy generation of one sequence, tokens per second")
    report(found, against="transformers")


if __name__ == "__main__":
    main()
