"""The claims: an unseen prompt of 26 tokens as one gist token, and the time that it saves."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from statistics import mean

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from .benchmark import cached_bytes, read
from .model import GistGPT2, Visible, causal_mask, gist_mask, promptless_mask

UNTUNED = Break(
    "the mask without tuning", "The model that has always seen the prompt is asked through the mask."
)

COMPRESSES = Claim(
    name="the gist carries the prompt",
    sentence="Tuned with the mask, the model answers by one gist token what it cannot know without a prompt, "
    "on each of the settings in prompts of 26 tokens that it has never seen.",
    paper=Figure("up to 26 times compression with minimal loss of quality", read="abstract"),
    rule=(
        Bound("accuracy by the gist, beyond no prompt, first setting", ">=", 0.3, direction=0.1),
        Bound("accuracy by the gist, beyond no prompt, second setting", ">=", 0.3, direction=0.1),
    ),
    guards=(Bound("cached tokens, prompt / gist", "==", 26.0),),
    control="the same model tuned alike without a prompt: nothing that follows it sees the gist token "
    "either; each at the best of the same rates",
    control_reaches=(Bound("accuracy by the whole prompt", ">=", 0.9),),
    breaks=(UNTUNED,),
    chosen_on=(0,),
    deviations="Prompts are 2 settings of 10 values among 24 filling words, requests ask for both in any "
    "order; a tenth of all combinations of settings is never trained on, and judged. A gist that carries one "
    "of the settings alone does not do.",
)

HARMLESS = Claim(
    name="little is lost",
    sentence="By one gist token the model answers nearly as well as by the whole prompt of 26.",
    paper=Figure("up to 26 times compression with minimal loss of quality", read="abstract"),
    rule=(Bound("accuracy lost to the whole prompt", "<=", 0.1, direction=0.3),),
    guards=(Bound("cached tokens, prompt / gist", "==", 26.0),),
    control="the model before it was tuned, with the whole prompt in view",
    control_reaches=(Bound("accuracy by the whole prompt", ">=", 0.9),),
    breaks=(UNTUNED,),
    chosen_on=(0,),
    deviations="Prompts are 2 settings of 10 values among 24 filling words, requests ask for both in any "
    "order; a tenth of all combinations of settings is never trained on, and judged. Tuned for no more than "
    "140 steps. A prompt that is cut to as many tokens is not tried.",
)

FASTER = Claim(
    name="answers come sooner",
    sentence="With the gist in the cache an answer takes less time than with the prompt read again.",
    paper=Figure("up to 40 % fewer operations and 4.2 % less time", read="abstract"),
    rule=(
        Speedup("an answer", over="the prompt read anew", threshold=1.07, axes={"prompt": 832}, mode="until"),
    ),
    control="the model that reads the prompt each time; its cache of the whole prompt is timed beside it",
)

PROMPT, GISTS, SETTINGS, VALUES, FILLING = 26, 1, 2, 10, 8
ASKS = VALUES  # the first of the tokens that ask for a setting
VOCAB = VALUES + SETTINGS + FILLING
IGNORED = -100  # what `cross_entropy` leaves out

ORDINALS = ("first", "second")

Accuracies = tuple[float, ...]  # on each setting
Texts = tuple[Int[Tensor, "_ _"], Int[Tensor, "_ _"]]  # what is read, what comes next


@hookimpl
def experiment(run: Run) -> None:
    if not run.wants(COMPRESSES, HARMLESS):
        return
    visible: dict[str, Visible] = {"gist": gist_mask, "no prompt": promptless_mask}
    arms = run.arms(visible, control="no prompt")
    rates = run.pick(smoke=(5e-3,), quick=(2e-3, 6e-3, 1.8e-2), full=(7e-4, 2e-3, 6e-3, 1.8e-2))
    first = full_model(run)
    judged = texts(run.pick(smoke=8, quick=400, full=4000), True, run.generator("texts to judge by"))
    whole = report(run, first, judged, "whole prompt")
    best: dict[str, Best[GistGPT2]] = {}
    right: dict[str, Accuracies] = {}
    for arm, mask in arms.items():
        best[arm] = run.sweep(arm, rates, partial(tuned, run, arm, first, mask), score="validation nats")
        right[arm] = report(run, best[arm].result, judged, arm)
    run.headline("accuracy over steps of tuning")
    cache = best["gist"].result.compress(judged[0][:1, :PROMPT].to(run.device), gists=GISTS, room=1)
    common = {
        "cached tokens, prompt / gist": PROMPT / cache.length,
        "accuracy by the whole prompt": mean(whole),
    }
    gained = {
        f"accuracy by the gist, beyond no prompt, {setting} setting": ours - theirs
        for setting, ours, theirs in zip(ORDINALS, right["gist"], right["no prompt"], strict=True)
    }
    run.claim(COMPRESSES, {**gained, **common}, tuned=list(best.values()))
    lost = mean(whole) - mean(right["gist"])
    run.claim(HARMLESS, {"accuracy lost to the whole prompt": lost, **common}, tuned=[best["gist"]])
    show_saved(run, best["gist"].result, judged[0][:1, :PROMPT].to(run.device))
    show(run, {"whole prompt": first, **{arm: one.result for arm, one in best.items()}}, judged)


def held_out(settings: Int[Tensor, "count settings"]) -> Bool[Tensor, " count"]:
    """A tenth of all combinations; every value of either setting is in nine that are trained on."""
    return (settings * torch.tensor([1, 3])).sum(1) % VALUES == 0


def texts(count: int, unseen: bool, generator: torch.Generator) -> Texts:
    """Prompts, the gist token, and requests each with its answer; only answers are to be predicted."""
    settings = torch.randint(VALUES, (20 * count + 100, SETTINGS), generator=generator)
    settings = settings[held_out(settings) == unseen][:count]
    prompt = torch.randint(VALUES + SETTINGS, VOCAB, (count, PROMPT), generator=generator)
    prompt[:, 1 + PROMPT // SETTINGS * torch.arange(SETTINGS)] = settings
    asked = torch.rand(count, SETTINGS, generator=generator).argsort(1)
    answers = settings.gather(1, asked)
    pairs = torch.stack((ASKS + asked, answers), 2).flatten(1)
    ids = torch.cat((prompt, torch.full((count, GISTS), VOCAB), pairs), 1)
    target = torch.full_like(ids, IGNORED)
    target[:, PROMPT + GISTS + 1 :: 2] = answers
    return ids[:, :-1], target[:, 1:]


def nats(network: GistGPT2, part: Texts) -> Float[Tensor, ""]:
    """Mean nats of an answer."""
    ids, target = (ids.to(network.tokens.weight.device) for ids in part)
    return F.cross_entropy(network(ids).flatten(0, 1), target.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def accuracies(network: GistGPT2, part: Texts) -> Accuracies:
    """Answers about each setting that are right, those before them being given."""
    ids, target = (ids.to(network.tokens.weight.device) for ids in part)
    right = (network(ids).argmax(-1) == target).double()
    return tuple(right[ids == ASKS + setting].mean().item() for setting in range(SETTINGS))


def report(run: Run, network: GistGPT2, judged: Texts, arm: str) -> Accuracies:
    found = accuracies(network, judged)
    for setting, value in zip(ORDINALS, found, strict=True):
        run.metric(f"accuracy on unseen prompts, {setting} setting", value, arm=arm)
    return found


@torch.no_grad()
def show_saved(run: Run, network: GistGPT2, prompt: Int[Tensor, "1 prompt"]) -> None:
    """What is kept of a prompt until it is used, and the operations of the first answer then.

    The times are the benchmark's.
    """
    ask, whole = torch.full_like(prompt[:, :1], ASKS), read(network, prompt, 1)
    gist = network.compress(prompt, gists=GISTS, room=1)
    kept_bytes = cached_bytes(whole), cached_bytes(gist)  # before they are added to
    ways: dict[str, tuple[int, int, Callable[[], Tensor]]] = {
        "the prompt read anew": (0, 0, lambda: network(torch.cat((prompt, ask), 1))),
        "the prompt's cache": (whole.length, kept_bytes[0], lambda: network(ask, whole)),
        "its gist": (gist.length, kept_bytes[1], lambda: network(ask, gist)),
    }
    rows = []
    for way, (tokens, kept, call) in ways.items():
        with FlopCounterMode(display=False) as counter:
            call()
        rows.append((way, tokens, kept, counter.get_total_flops()))
    run.table(
        "what a prompt costs",
        ("way", "tokens in the cache", "bytes in the cache", "operations of an answer"),
        rows,
        caption="Of this small model, for one request of one token; times are the benchmark's.",
    )


def descend(run: Run, network: GistGPT2, rate: float, steps: int, arm: str) -> None:
    """Train on fresh texts. The gist token is among what is learned from the beginning."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    drawn = run.generator(f"texts, {steps} steps")
    on_the_way = texts(run.pick(smoke=4, quick=100, full=500), True, run.generator("texts on the way"))
    run.phase("train")
    for step in run.steps(steps, arm):
        run.descend(nats(network, texts(32, False, drawn)), optimizer, step=step, arm=arm, clip=1.0)
        schedule.step()
        if step % 25 == 24 or step == steps - 1:
            now = mean(accuracies(network, on_the_way))
            run.metric("accuracy over steps of tuning", now, step=step + 1, arm=arm)


def full_model(run: Run) -> GistGPT2:
    """Trained with the whole prompt in view; the gist token stands there and has no say."""
    torch.manual_seed(run.seed)
    context = PROMPT + GISTS + 2 * SETTINGS
    network = GistGPT2(VOCAB, context=context, model=48, heads=4, layers=2, std=0.1, visible=causal_mask)
    network = network.to(run.device, run.dtype)
    descend(run, network, 5e-3, run.pick(smoke=2, quick=60, full=1500), "whole prompt")
    return network


def tuned(run: Run, arm: str, first: GistGPT2, mask: Visible, rate: float) -> tuple[float, GistGPT2]:
    """The full model, tuned with another mask; the nats of unseen prompts, and the network."""
    network = deepcopy(first)
    network.visible = mask
    if not (run.without(UNTUNED.name) and mask is gist_mask):
        descend(run, network, rate, run.pick(smoke=2, quick=140, full=1000), f"{arm}, rate {rate:g}")
    run.phase("evaluate")
    part = texts(run.pick(smoke=8, quick=200, full=2000), True, run.generator("texts to choose by"))
    with torch.no_grad():
        return nats(network, part).item(), network


@torch.no_grad()
def show(run: Run, networks: dict[str, GistGPT2], part: Texts) -> None:
    """Two unseen prompts, what is asked, and what each model answers."""
    lines = []
    for ids, target in zip(part[0][:2], part[1][:2], strict=True):
        places = (target != IGNORED).nonzero()[:, 0]
        lines.append("prompt   " + " ".join(spelled(token) for token in ids[:PROMPT].tolist()))
        lines.append("asked    " + " ".join(spelled(token) for token in ids[places].tolist()))
        lines.append("right    " + " ".join(spelled(token) for token in target[places].tolist()))
        for arm, network in networks.items():
            found = network(ids[None].to(run.device))[0].argmax(-1).cpu()[places]
            lines.append(f"{arm:13}" + " ".join(spelled(token) for token in found.tolist()))
        lines.append("")
    caption = "Settings are digits, A and B ask for the first and the second, dots are filling words."
    run.text("answers to unseen prompts", "\n".join(lines), caption=caption)


def spelled(token: int) -> str:
    if token < VALUES:
        return str(token)
    return chr(65 + token - ASKS) if token < VALUES + SETTINGS else "·"
