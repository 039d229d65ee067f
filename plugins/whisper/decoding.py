"""Decoding: greedy, sampled at a temperature, with timestamps, by beam search, and with fallbacks.

Token ids are in Whisper's order: text, the end, tokens of the prompt, "no times", then the timestamps.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .model import Seen, Whisper

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
Sound = Float[Tensor, "batch frames mels"]


class Text(NamedTuple):
    """Tokens between prompt and end, their mean log-probability (including the end), and the temperature."""

    tokens: list[int]
    log_probability: float
    temperature: float


def in_time(
    logits: Float[Tensor, " vocab"], said: Sequence[int], end: int, first: int
) -> Float[Tensor, " vocab"]:
    """Section 2.3: mask the logits so that each text is between two timestamps, which never decrease.

    said   tokens after the prompt
    first  the id of time 0; later times follow, and the token before it is "no times"

    If all timestamps together are more likely than any other token, a timestamp comes next, as in the
    released code.
    """
    never, times = -torch.inf, [token for token in said if token >= first]
    logits = logits.clone()
    logits[first - 1] = never
    if not said:
        logits[:first] = never
    elif said[-1] >= first:
        # An end time is followed by the next start time or the end of the text, a start time by text.
        began = len(said) < 2 or said[-2] >= first
        logits[slice(first, None) if began else slice(end)] = never
    if times:
        logits[first : times[-1] + (said[-1] < first)] = never
    if logits[first:].logsumexp(0) > logits[:first].max():
        logits[:first] = never
    return logits


@torch.no_grad()
def greedy(
    model: Whisper,
    mel: Sound,
    prompt: Sequence[int],
    end: int,
    most: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    times: int | None = None,
) -> list[Text]:
    """Decode at most `most` tokens, greedily or by sampling at a temperature.

    times  the id of time 0, if the text should have timestamps
    """
    tokens = torch.tensor([list(prompt)] * len(mel), device=mel.device)
    logits, seen = model.decoder(tokens, model.encoder(mel))
    said: list[list[int]] = [[] for _ in mel]
    total, over = [0.0] * len(mel), [False] * len(mel)
    for _ in range(most):
        last = logits[:, -1].float()
        if times is not None:
            last = torch.stack([in_time(*row, end, times) for row in zip(last, said, strict=True)])
        logs = last.log_softmax(-1)
        if temperature:
            probabilities = (last / temperature).softmax(-1).cpu()
            chosen = torch.multinomial(probabilities, 1, generator=generator).to(mel.device)
        else:
            chosen = logs.argmax(-1, keepdim=True)
        for row, (token, log) in enumerate(
            zip(chosen[:, 0].tolist(), logs.gather(1, chosen)[:, 0].tolist(), strict=True)
        ):
            if not over[row]:
                total[row] += log
                over[row] = token == end
                said[row] += [] if over[row] else [token]
        if all(over):
            break
        logits, seen = model.decoder(chosen, None, seen)
    return [
        Text(words, sum_ / (len(words) + stopped), temperature)
        for words, sum_, stopped in zip(said, total, over, strict=True)
    ]


@torch.no_grad()
def beam_search(
    model: Whisper,
    mel: Float[Tensor, "1 frames mels"],
    prompt: Sequence[int],
    end: int,
    most: int,
    beams: int = 5,
) -> Text:
    """Section 4.5: the text with the largest log-probability that a beam search finds."""
    tokens = torch.tensor([list(prompt)], device=mel.device)
    logits, seen = model.decoder(tokens, model.encoder(mel))
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    for _ in range(most):
        logs = logits[:, -1].float().log_softmax(-1)
        scores = torch.tensor([score for score, _ in alive], device=mel.device)[:, None] + logs
        best = scores.flatten().topk(min(2 * beams, scores.numel()))
        rows, next_alive = [], []
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(index, logs.shape[1])
            if token == end:
                done.append((score, alive[row][1]))
            elif len(next_alive) < beams:
                rows.append(row)
                next_alive.append((score, [*alive[row][1], token]))
        alive = next_alive
        if not alive or (len(done) >= beams and max(done)[0] >= alive[0][0]):
            break
        seen = [Seen(*(kept[rows] for kept in state)) for state in seen]
        last = torch.tensor([[words[-1]] for _, words in alive], device=mel.device)
        logits, seen = model.decoder(last, None, seen)
    stopped = bool(done)
    score, words = max(done or alive)
    return Text(words, score / (len(words) + stopped), 0.0)


def repeats(tokens: Sequence[int]) -> float:
    """The zlib compression ratio, which is large for repetitive text."""
    raw = b" ".join(str(token).encode() for token in tokens)
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def decode(
    model: Whisper,
    mel: Float[Tensor, "1 frames mels"],
    prompt: Sequence[int],
    end: int,
    most: int,
    generator: torch.Generator | None = None,
) -> Text:
    """Section 4.5: beam search, then sampling at rising temperatures, until the text is likely (a mean
    log-probability of at least -1) and not repetitive (a compression ratio of at most 2.4)."""
    for temperature in TEMPERATURES:
        if temperature:
            (text,) = greedy(model, mel, prompt, end, most, temperature, generator)
        else:
            text = beam_search(model, mel, prompt, end, most)
        if text.log_probability >= -1 and repeats(text.tokens) <= 2.4:
            break
    return text
