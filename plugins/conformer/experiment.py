"""Spoken digits in noise: attention with convolution, and each of the two alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data import recordings, speech
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores import error_rate

from .decoding import decode, prefix_search
from .model import Conformer, Hidden, Inside, RelativeAttention

NO_CONVOLUTION = Break(
    "no convolution",
    "The Conformer's blocks have no convolution module; their feed-forward layers are wider.",
)
NO_ATTENTION = Break("no attention", "In the Conformer each position attends only to itself.")

DEVIATIONS = (
    "Single digits by synthetic voices in noise of 0 to 20 dB, with other speakers in each part, judged at "
    "0 dB; blocks of hidden size 48, a kernel of 15, no dropout, 300 updates; connectionist temporal "
    "classification, not a transducer; no SpecAugment. A time step is 40 ms, so a kernel of 15 already sees "
    "0.6 s."
)

CONVOLUTION = Claim(
    name="convolution helps attention",
    sentence="With the same number of parameters, blocks with convolution and attention make fewer errors "
    "than blocks with attention alone.",
    paper=Figure(
        "Word errors of 2.1/4.3 % against Transformer Transducer's 2.4/5.6 %, without language models.",
        where="table 2",
        read="secondary",
    ),
    rule=(Bound("errors, attention alone / Conformer", ">=", 1.5, direction=1.1, ratio=True),),
    control="attention alone: the convolution's kernel is 1, with its gate and norm, and feed-forward "
    "layers are wider; the same data, batches and learning rates, each at its best",
    control_reaches=(Bound("errors of attention alone", "<=", 0.6),),
    breaks=(NO_CONVOLUTION,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS,
)

ATTENTION = Claim(
    name="attention helps convolution",
    sentence="With the same number of parameters, blocks with convolution and attention make fewer errors "
    "than blocks with convolution alone.",
    paper=Figure(
        "4.3 % against 4.6 % for ContextNet, which is convolutional.", where="table 2", read="secondary"
    ),
    rule=(Bound("errors, convolution alone / Conformer", ">=", 1.15, direction=1.0, ratio=True),),
    control="convolution alone, with wider feed-forward layers; the same data and learning rates, each at "
    "its best",
    breaks=(NO_ATTENTION,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + " Half a second of context is enough to recognise digits, so this may well fail.",
)

PATHS = Claim(
    name="a sum over paths",
    sentence="The CTC loss is minus the logarithm of the sum over all paths of a text, and prefix search "
    "finds that sum.",
    paper=Figure(
        "Graves et al. 2006: a text's probability is the sum over its paths. The Conformer uses a "
        "transducer.",
        read="secondary",
    ),
    kind="identity",
    rule=(Bound("largest difference of loss and sum (nats)", "<=", 1e-4),),
    control="torch's loss of connectionist temporal classification",
)

RATES = (0.003, 0.009)
WIDTH, BLOCKS, HEADS, KERNEL, LABELS, CHANNELS = 48, 2, 4, 15, 11, 16
PARTS: tuple[Literal["train", "choose", "judge"], ...] = ("train", "choose", "judge")
LABEL = "digit errors at 0 dB"


class Corpus(NamedTuple):
    """Log-mel spectrograms, padded with silence, their numbers of frames, and the digits spoken in them."""

    mels: Float[Tensor, "n frames 40"]
    frames: Int[Tensor, " n"]
    said: list[list[int]]


class Heard(NamedTuple):
    """The sounds of a run in three parts, and the words of their labels."""

    train: Corpus
    choose: Corpus
    judge: Corpus
    words: Sequence[str] = speech.WORDS


class Trained(NamedTuple):
    model: Conformer
    errors: float


def corpus(
    part: speech.Part, count: int, first: int, seed: int, snr: tuple[float, float], most: int
) -> Corpus:
    """Utterances from `first` on, of one to `most` digits each, in white noise of snr[0] to snr[1] dB."""
    generator = torch.Generator().manual_seed(seed)
    spoken = [speech.draw(first + index, part, (1, most))[0] for index in range(count)]
    waves, lengths = speech.pad(spoken)
    level = snr[0] + (snr[1] - snr[0]) * torch.rand(count, generator=generator)
    mels = speech.log_mel(speech.add_noise(waves, level, generator, lengths=lengths))
    digits = [[word for word in one.words if isinstance(word, int)] for one in spoken]
    return Corpus((mels - speech.MEL_MEAN) / speech.MEL_DEVIATION, lengths // speech.HOP, digits)


def recorded(run: Run) -> Heard:
    """The words of `--data`, with the same noise as the synthetic voices."""
    source = run.source("speech", needs="classes", at_most=run.pick(smoke=20, quick=1500, full=None))
    corpora = []
    for part, sounds, quietest in zip(PARTS, source.parts, (20.0, 0.0, 0.0), strict=True):
        waves, lengths, labels = recordings.normalised(sounds, source.rate)
        generator = run.data(f"noise to {part} by", part)
        level = quietest * torch.rand(len(waves), generator=generator)
        mels = speech.log_mel(speech.add_noise(waves, level, generator, lengths=lengths))
        mels = (mels - speech.MEL_MEAN) / speech.MEL_DEVIATION
        corpora.append(Corpus(mels, lengths // speech.HOP, [[label] for label in labels.tolist()]))
    return Heard(*corpora, words=source.names)


def made(run: Run) -> Heard:
    """Digits of synthetic voices. Each seed has its own utterances."""
    count, held = run.pick(smoke=(6, 3), quick=(600, 300), full=(6000, 1000))
    most = run.pick(smoke=1, quick=1, full=4)
    first, seed = 100_000 * run.seed, 10 * run.seed
    return Heard(
        corpus("train", count, first, seed, (0.0, 20.0), most),
        corpus("choose", held, first, seed + 1, (0.0, 0.0), most),
        corpus("judge", held, first, seed + 2, (0.0, 0.0), most),
    )


def both(labels: int = LABELS) -> Conformer:
    return network(4 * WIDTH, labels=labels)


def attention_alone(labels: int = LABELS) -> Conformer:
    """The Conformer with a kernel of 1, which sees no neighbour, so that training is comparable."""
    return network(196, kernel=1, labels=labels)


def convolution_alone(labels: int = LABELS) -> Conformer:
    return network(252, attends=False, labels=labels)


def no_module(labels: int = LABELS) -> Conformer:
    return network(240, convolves=False, labels=labels)


class Itself(RelativeAttention):
    """Attention from each position to itself only: the value and output projections remain."""

    def forward(self, x: Hidden, inside: Inside | None = None) -> Hidden:
        mixed: Hidden = self.linear_out(self.linear_v(x))
        return mixed


def to_itself(labels: int = LABELS) -> Conformer:
    model = both(labels)
    for layer in model.layers:
        layer.self_attn = Itself(WIDTH, HEADS)
    return model


def network(
    hidden: int, kernel: int = KERNEL, attends: bool = True, convolves: bool = True, labels: int = LABELS
) -> Conformer:
    return Conformer(
        speech.MELS, labels, WIDTH, BLOCKS, HEADS, kernel, CHANNELS, 0.0, hidden, attends, convolves
    )


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(PATHS):
        sum_paths(run)
    if not run.wants(CONVOLUTION, ATTENTION):
        return
    run.phase("setup")
    train, choose, judge, words = recorded(run) if run.option("speech", "") else made(run)
    best: dict[str, Best[Trained]] = {}
    pairs = (
        (CONVOLUTION, "attention alone", attention_alone),
        (ATTENTION, "convolution alone", convolution_alone),
    )
    rates = run.pick(smoke=(0.003,), quick=RATES, full=RATES)

    def tuned(arm: str, make: Callable[[int], Conformer]) -> Best[Trained]:
        return run.sweep(
            arm,
            rates,
            partial(learn, run, arm, partial(make, len(words) + 1), train, choose, judge),
            score="loss on choose",
        )

    whole = both
    for missing, without in ((NO_CONVOLUTION, no_module), (NO_ATTENTION, to_itself)):
        if run.without(missing.name):
            whole = without
    for claim, arm, make in pairs:
        if not run.wants(claim):
            continue
        makers = run.arms({"Conformer": whole, arm: make}, control=arm)
        if arm not in best:
            best[arm] = tuned(arm, makers[arm])
        # In null runs and with some breaks the Conformer is this arm, and has the same numbers.
        same = makers["Conformer"] is makers[arm]
        if not same and "Conformer" not in best:
            best["Conformer"] = tuned("Conformer", makers["Conformer"])
        ours = best[arm] if same else best["Conformer"]
        half = 0.5 / sum(map(len, judge.said))
        theirs = best[arm].result.errors
        values = {f"errors, {arm} / Conformer": (theirs + half) / (ours.result.errors + half)}
        if claim is CONVOLUTION:
            values["errors of attention alone"] = theirs
        run.claim(claim, values, tuned=[ours, best[arm]])
    for arm, one in best.items():
        run.metric(LABEL, one.result.errors, arm=arm)
        run.metric("weights", sum(w.numel() for w in one.result.model.parameters()), arm=arm)
    run.headline(f"loss, rate {next(iter(best.values())).value:g}")
    if not (run.null or run.broken):
        show(run, best, judge, words)


def learn(
    run: Run,
    arm: str,
    make: Callable[[], Conformer],
    train: Corpus,
    choose: Corpus,
    judge: Corpus,
    rate: float,
) -> tuple[float, Trained]:
    torch.manual_seed(run.seed)
    model = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    generator, steps = run.generator("batches"), run.pick(smoke=3, quick=300, full=4000)
    torch.manual_seed(run.seed + 1)  # dropout draws from torch's own generator
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}", state=(model, optimizer)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * (1 - step / steps)
        rows = torch.randint(len(train.said), (16,), generator=generator).tolist()
        run.descend(
            loss(run, model, train, rows),
            optimizer,
            step=step,
            metric=f"loss, rate {rate:g}",
            arm=arm,
            clip=1.0,
        )
    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        chosen = loss(run, model, choose, list(range(len(choose.said)))).item()
        heard = decode(*listen(run, model, judge))
    wrong = error_rate(judge.said, [[label - 1 for label in one] for one in heard])
    return chosen, Trained(model, wrong)


def listen(
    run: Run, model: Conformer, sounds: Corpus, rows: list[int] | None = None
) -> tuple[Float[Tensor, "n time labels"], list[int]]:
    picked = slice(None) if rows is None else rows
    frames = sounds.frames[picked].to(run.device)
    logs, lengths = model(sounds.mels[picked][:, : int(frames.max())].to(run.device, run.dtype), frames)
    return logs, lengths.tolist()


def loss(run: Run, model: Conformer, sounds: Corpus, rows: list[int]) -> Float[Tensor, ""]:
    logs, lengths = listen(run, model, sounds, rows)
    labels = [[digit + 1 for digit in sounds.said[row]] for row in rows]
    return F.ctc_loss(
        logs.float().transpose(0, 1),
        torch.tensor([label for one in labels for label in one]),
        torch.tensor(lengths),
        torch.tensor([len(one) for one in labels]),
        zero_infinity=True,
    )


def sum_paths(run: Run) -> None:
    """Compare torch's CTC loss of the best text with the sum that prefix search finds, on random inputs."""
    worst, generator = 0.0, run.generator("paths")
    for _ in range(5):
        logs = torch.randn(7, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
        text, total = prefix_search(logs, beams=10_000)
        nats = F.ctc_loss(
            logs[:, None], torch.tensor([text]), torch.tensor([7]), torch.tensor([len(text)]), reduction="sum"
        )
        worst = max(worst, abs(nats.item() + total))
    run.claim(PATHS, {"largest difference of loss and sum (nats)": worst})


def show(run: Run, best: dict[str, Best[Trained]], judge: Corpus, words: Sequence[str]) -> None:
    """Save a spectrogram of words in noise, and below it each network's probabilities over time."""
    row = next(index for index, said in enumerate(judge.said) if len(said) == max(map(len, judge.said)))
    picked = Corpus(judge.mels[row : row + 1], judge.frames[row : row + 1], [judge.said[row]])
    frames = int(picked.frames)
    mel = ((picked.mels[0, :frames].T.flip(0) + 2) / 4).repeat_interleave(2, 0).repeat_interleave(4, 1)
    panels, lines = [mel], []
    for arm, one in best.items():
        with torch.no_grad():
            logs, rows = listen(run, one.result.model, picked)
        shares = logs[0, : rows[0]].exp().float().cpu()
        panel = shares.T.repeat_interleave(4, 0).repeat_interleave(16, 1)[:, : mel.shape[1]]
        panels += [torch.full((2, mel.shape[1]), 0.5), F.pad(panel, (0, mel.shape[1] - panel.shape[1]))]
        heard = decode(logs, rows)[0]
        lines.append((arm, " ".join(words[label - 1] for label in heard)))
    said = " ".join(words[word] for word in picked.said[0])
    run.image(
        "what is heard",
        torch.cat(panels),
        caption=f"{said!r} at 0 dB; below, the probabilities of blank and of {words[0]} to {words[-1]}: "
        + ", ".join(best),
    )
    run.table("what was heard", ("network", f"of {said!r}"), lines)
