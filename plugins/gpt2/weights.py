"""Loads the released weights into this folder's model, and the released vocabulary.

The weights are published as `model.safetensors` or `pytorch_model.bin` with `merges.txt` (Hugging Face's file
names), for gpt2, gpt2-medium, gpt2-large and gpt2-xl. This module downloads nothing.

    readtrack weights get gpt2
    readtrack run gpt2 --set weights=gpt2 --data wikitext-2
    readtrack run gpt2 --set weights=FOLDER/model.safetensors
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from readtrack.errors import NotAvailableError

from ..byte_bpe import ByteBPE
from ..byte_bpe.words import TO_ID
from .model import GPT2

HEAD = 64  # size of a head in all released models
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

WHOLE = {"wte.weight": "tokens.weight", "wpe.weight": "positions.weight"}
# Released matrices multiply from the right, so they are transposed.
LAYER = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.output",
    "mlp.c_fc": "feed_forward.0",
    "mlp.c_proj": "feed_forward.2",
}
NORMS = {"ln_1": "norms.0", "ln_2": "norms.1"}


def from_released(path: Path, *, heads: int | None = None) -> GPT2:
    """A model from a released file, in float32. Raises NotAvailableError for other files.

    heads  number of heads, if their size is not 64
    """
    tensors = renamed(read_tensors(path))
    try:
        (vocab, model), context = tensors["tokens.weight"].shape, len(tensors["positions.weight"])
        layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        with torch.device("meta"):
            network = GPT2(vocab, context=context, model=model, heads=heads or model // HEAD, layers=layers)
        network.load_state_dict(tensors, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise NotAvailableError(f"{path} does not hold GPT-2's weights: {error}") from error
    return network


def renamed(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with our names, in float32. Masks and the output matrix, which is tied to the embedding,
    are left out."""
    ours: dict[str, Tensor] = {}
    for name, tensor in released.items():
        name = name.removeprefix("transformer.")
        found = re.fullmatch(r"h\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in WHOLE:
            ours[WHOLE[name]] = tensor.float()
        elif name.startswith("ln_f."):
            ours[name.replace("ln_f", "norm")] = tensor.float()
        elif found and found[2] in NORMS:
            ours[f"blocks.{found[1]}.{NORMS[found[2]]}.{found[3]}"] = tensor.float()
        elif found and found[2] in LAYER:
            whole = tensor.float().T.contiguous() if found[3] == "weight" else tensor.float()
            ours[f"blocks.{found[1]}.{LAYER[found[2]]}.{found[3]}"] = whole
    return ours


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a file written by `torch.save`, whose code is never run.

    A safetensors file has the length of its header in eight bytes, the header in JSON (name to dtype, shape
    and offsets), and the data. Raises NotAvailableError if the file is missing or has neither format.
    """
    if not path.is_file():
        raise NotAvailableError(f"There is no file {path}.")
    try:
        if path.suffix != ".safetensors":
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        body = path.read_bytes()
        start = 8 + int.from_bytes(body[:8], "little")
        header = json.loads(body[8:start])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            if entry["dtype"] in DTYPES:
                first, end = entry["data_offsets"]
                numbers = bytearray(body[start + first : start + end])
                flat = torch.frombuffer(numbers, dtype=DTYPES[entry["dtype"]])
                tensors[name] = flat.view(entry["shape"])
        return tensors
    except Exception as error:  # files of other kinds raise many kinds of errors
        raise NotAvailableError(f"{path} cannot be read as weights: {error}") from error


def read_merges(path: Path) -> ByteBPE:
    """GPT-2's vocabulary from `merges.txt` (or `vocab.bpe`), with one merge per line after a version line.

    The end-of-text token comes last. No text is encoded to it. Raises NotAvailableError for other files.
    """
    if not path.is_file():
        raise NotAvailableError(f"There is no file {path}. Give GPT-2's merges with --set merges=FILE.")
    ids, merges = dict(TO_ID), []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#version"):
                left, right = line.split(" ")
                merges.append((ids[left], ids[right]))
                ids.setdefault(left + right, len(ids))
    except (ValueError, KeyError) as error:
        raise NotAvailableError(f"{path} does not hold GPT-2's merges: {error}") from error
    bpe = ByteBPE(merges)
    bpe.tokens.append(b"<|endoftext|>")
    return bpe
