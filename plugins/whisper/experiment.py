"""Compares training on clean studio speech and on varied speech with label noise, in unseen conditions."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from readtrack.data import speech
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Table,
    Trial,
    at_most,
    hookimpl,
)

from .decoding import decode, greedy
from .model import Whisper
from .sounds import (
    CONDITIONS,
    MANY_IN_STUDIO,
    STEP,
    STUDIO,
    STUDIO_IN_NOISE,
    VARIED,
    Judge,
    Kind,
    Mels,
    Sounds,
    features,
    hear,
    judge_by,
    recorded,
)
from .tokens import TRANSCRIBE, TRANSLATE, Tokens

MORE_SPEAKERS = Break(
    "more speakers in the studio",
    "The network is trained on the varied sound's 100 speakers and imperfect transcripts, but the speakers "
    "are recorded in the studio, without noise.",
    "near miss",
)
ADDED_NOISE = Break(
    "noise added to the studio",
    "The network is trained on the studio's 20 speakers and correct transcripts, with the noise of the "
    "varied sound added.",
    "rival",
)

REDUCTION = "mean relative error reduction, five conditions"
IN_STUDIO = "error rate, studio"

ROBUST = Claim(
    name="varied sound against studio sound",
    sentence="After 300 steps, a network trained on varied sound with imperfect transcripts makes at least "
    "20 % fewer errors in five unseen recording conditions than the same network trained on studio sound. In "
    "the studio its error rate is at most 5 points higher.",
    paper=Figure(
        "55.2 % fewer errors on average on other data sets, at equal error rates on LibriSpeech.",
        where="section 3.3 and table 2",
        read="text",
    ),
    rule=(
        Bound(REDUCTION, ">=", 0.2, direction=0.0),
        at_most(IN_STUDIO, "varied", 0.05, minus="studio"),
    ),
    control="the same network trained on studio sound, with the same number of utterances. Each network uses "
    "the better of the same two learning rates",
    control_arm="studio",
    control_reaches=(at_most(IN_STUDIO, "studio", 0.2),),
    after_steps=300,
    breaks=(MORE_SPEAKERS, ADDED_NOISE, UNTRAINED),
    chosen_on=(0, 1),
    deviations="Each network is trained on 600 single digits spoken by synthetic voices at 8 kHz, not on "
    "680,000 hours. The network has two layers of hidden size 48. The varied sound has five times as many "
    "speakers, and white and pink noise at 15 to 40 dB. One in ten of its transcripts is wrong. Babble, "
    "hum, a telephone band, an echo, clipping and all test speakers are new to both networks. Up to six "
    "bands and six frames of a training batch are masked. The paper uses no augmentation (section 2.4). No "
    "token marks the language or silence. A copy of the network trained on varied sound learns timestamps "
    "afterwards. They are not judged, because the predicted end of a word is no more accurate than the mean "
    "end in the training data. Unlike the paper's model, neither network is trained to convergence.",
    headline=True,
    history=(
        (
            "Until November 2026 babble and hum had no background noise, and there was digital silence "
            "outside the telephone band. Noise levels took the silence after a word into account, which made "
            'the noise 2 to 3 dB louder than stated. The verdict was "reproduced". The bounds are unchanged.'
        ),
        (
            "Until later that month the learning rate was chosen by the error rate, which was often equal "
            "for both learning rates. There were 200 test utterances. The break replaced the varied sound "
            'with studio sound, and there was no rival. The verdict was "reproduced" (9 of 10 seeds). The '
            "bounds are unchanged."
        ),
    ),
)

CACHE = Claim(
    name="what is kept",
    sentence="Decoding with a KV cache gives the same logits as one forward pass over the whole text.",
    paper=Figure("Not in the paper, which has an ordinary decoder.", where="section 2.2", read="text"),
    kind="identity",
    rule=(Bound("largest difference of the logits", "<=", 1e-3),),
    control="the whole text at once",
)

RATES = (0.002, 0.004)
BATCH = 48
LOSS = "loss"


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(CACHE):
        check_cache(run)
    if not run.wants(ROBUST):
        return
    run.phase("setup")
    data = recorded(run) if run.option("speech", "") else None

    def trained_on(kind: Kind) -> Arm[Kind]:
        return Arm(kind, before=partial(hear, kind, data))

    world, varied_arm = judge_by(run, data), trained_on(VARIED)
    table = run.compare(
        ROBUST,
        arms={"varied": varied_arm, "studio": trained_on(STUDIO)},
        attempt=learn,
        read=judged,
        grid=run.pick(smoke=RATES[1:], quick=RATES, full=RATES),
        widen=False,
        score="loss on the arm's own choosing data",
        derive=error_reduction,
        breaks={
            MORE_SPEAKERS.name: {"varied": trained_on(MANY_IN_STUDIO)},
            ADDED_NOISE.name: {"varied": trained_on(STUDIO_IN_NOISE)},
        },
        world=world,
    )
    run.headline(LOSS)
    if not (run.null or run.broken):
        networks = {arm: sweep.chosen for arm, sweep in table.sweeps.items()}
        train, choose = table.stage(varied_arm.before)
        check_tasks(run, networks["varied"], choose)
        if not data:
            check_times(run, teach_times(run, networks["varied"], train), train, choose)
        show(run, networks, world)


def learn(at: Trial, _: Kind, rate: float) -> tuple[float, Whisper]:
    """Train a network without timestamps. Return its loss on validation sounds, and the network."""
    run, (train, choose) = at.run, at.before
    model = Whisper(train.tokens.size).to(run.device, run.dtype)
    steps = at.length(run.pick(smoke=3, quick=300, full=5000))
    descend(at, model, f"{at.name}, rate {rate:g}", train, rate, steps, timed_share=0.0)
    run.phase("evaluate")
    untimed = torch.zeros_like(choose.labels, dtype=torch.bool)
    with run.evaluating(model):
        tokens = choose.tokens.texts(choose.labels, untimed, choose.times, untimed)
        return loss_of(model, choose.mels, tokens, untimed).item(), model


def teach_times(run: Run, model: Whisper, sounds: Sounds) -> Whisper:
    """Fine-tune a copy with timestamps in half of the target texts."""
    timer = copy.deepcopy(model)
    steps = run.pick(smoke=3, quick=80, full=2000)
    descend(run, timer, "times", sounds, 0.002, steps, timed_share=0.5)
    return timer


def descend(
    at: Trial | Run, model: Whisper, name: str, sounds: Sounds, rate: float, steps: int, *, timed_share: float
) -> None:
    """Train with AdamW. A random quarter of each batch is to be translated."""
    run = at if isinstance(at, Run) else at.run
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=rate, fused=True)
    generator = at.generator("batches")
    run.phase("train")
    for step in at.steps(steps, name, state=(model, optimizer)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * (1 - step / steps)
        rows = torch.randint(len(sounds.labels), (BATCH,), generator=generator)
        translate = (torch.rand(BATCH, generator=generator) < 0.25).to(run.device)
        mels = masked(sounds.mels[rows], generator)
        with_times = (torch.rand(BATCH, generator=generator) < timed_share).to(run.device)
        tokens = sounds.tokens.texts(sounds.labels[rows], translate, sounds.times[rows], with_times)
        loss = loss_of(model, mels, tokens, with_times)
        at.descend(loss, optimizer, step=step, metric=LOSS, arm=name, clip=1.0)


def loss_of(
    model: Whisper, mels: Mels, tokens: Int[Tensor, "n 6"], timed: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the tokens after the prompt, which includes "no times", up to the end token."""
    logits, wanted = model(mels, tokens[:, :-1])[:, 1:], tokens[:, 2:].clone()
    wanted[~timed, 0] = wanted[~timed, -1] = -100
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())


def masked(mels: Mels, generator: torch.Generator) -> Mels:
    """Mask up to six adjacent bands and six adjacent frames of a batch, as SpecAugment does."""
    low, first = (int(torch.randint(top, (), generator=generator)) for top in (mels.shape[2], mels.shape[1]))
    mels = mels.clone()
    mels[:, :, low : low + int(torch.randint(7, (), generator=generator))] = 0
    mels[:, first : first + int(torch.randint(7, (), generator=generator))] = 0
    return mels


def judged(at: Trial, found: Sweep[Whisper]) -> dict[str, Tensor]:
    """Error rates on test words in the studio and in five conditions that no arm was trained on."""
    at.run.phase("evaluate")
    with at.run.evaluating(found.chosen):
        wrong = {f"error rate, {name}": mistakes(found.chosen, one) for name, one in at.world.sounds.items()}
    for name, one in wrong.items():
        at.metric(name, one.mean().item())
    return wrong


def mistakes(model: Whisper, sounds: Sounds) -> Float[Tensor, " n"]:
    """1 for each word that is transcribed wrongly: as a different word, as none, or as several."""
    found = greedy(model, sounds.mels, sounds.tokens.prompt(), sounds.tokens.end, 3)
    wrong = [text.tokens != [label] for text, label in zip(found, sounds.labels.tolist(), strict=True)]
    return torch.tensor(wrong).double()


def error_reduction(table: Table) -> dict[str, dict[str, float]]:
    """The mean relative error reduction. Half an error is added to each count, so that no ratio is 0 / 0."""
    half = 0.5 / len(table.world.sounds["studio"].labels)
    errors = [table.of(f"error rate, {name}") for name in CONDITIONS]
    reductions = [1 - (one["varied"] + half) / (one["studio"] + half) for one in errors]
    return {"": {REDUCTION: sum(reductions) / len(reductions)}}


def timed(model: Whisper, sounds: Sounds) -> Float[Tensor, "n 2"]:
    """Predicted start and end of each word, in `STEP`s; NaN unless the output is time, word, time."""
    tokens, found = sounds.tokens, torch.full((len(sounds.mels), 2), torch.nan)
    texts = greedy(model, sounds.mels, tokens.prompt(timed=True), tokens.end, 4, times=tokens.times)
    for row, text in zip(found, texts, strict=True):
        if len(text.tokens) == 3:
            row[:] = torch.tensor(text.tokens[::2]) - tokens.times
    return found


def check_times(run: Run, timer: Whisper, train: Sounds, sounds: Sounds) -> None:
    """Log the errors of predicted timestamps, and the errors of the mean times in the training set."""
    heard = timed(timer, sounds)
    whole = heard.isfinite().all(1)
    run.metric("said with times", whole.double().mean().item())
    if bool(whole.any()):
        for who, times in (("heard", heard), ("mean of training", train.times.double().mean(0).cpu())):
            apart = STEP * (times - sounds.times.cpu())[whole].abs().mean(0)
            for name, error in zip(("beginning", "end"), apart.tolist(), strict=True):
                run.metric("error of times (s)", error, arm=f"{name}, {who}")


def check_tasks(run: Run, model: Whisper, sounds: Sounds) -> None:
    """Log how often the output of each task is a word of the task's language."""
    tokens, count = sounds.tokens, len(sounds.tokens.words)
    for name, task, first in (("transcribe", TRANSCRIBE, 0), ("translate", TRANSLATE, count)):
        found = greedy(model, sounds.mels, tokens.prompt(task), tokens.end, 3)
        own = sum(len(text.tokens) == 1 and text.tokens[0] in range(first, first + count) for text in found)
        run.metric("answers in the task's own words", own / len(found), arm=name)


def check_cache(run: Run) -> None:
    """Compare logits with and without cached keys and values, for an untrained network."""
    size, generator = Tokens().size, run.generator("cache")
    torch.manual_seed(run.seed)
    model = Whisper(size).to(run.device, run.dtype)
    mels = torch.randn(20, size.frames, size.mels, generator=generator).to(run.device, run.dtype)
    texts = torch.randint(size.vocab, (20, size.tokens), generator=generator).to(run.device)
    with torch.no_grad():
        at_once = model(mels, texts)
        logits, seen = model.decoder(texts[:, :2], model.encoder(mels))
        later, _ = model.decoder(texts[:, 2:], None, seen)
    difference = (torch.cat((logits, later), 1) - at_once).abs().max().item()
    run.claim(CACHE, {"largest difference of the logits": difference})


def show(run: Run, networks: dict[str, Whisper], judge: Judge) -> None:
    """Show the same words in every condition: pictures, sound, and each network's transcripts."""
    sets, (_, labels, _, tokens) = judge.waves, judge.sounds["studio"]
    rows, pictures = [], []
    words = [tokens.words[label] for label in labels[:4].tolist()]
    for name, waves in sets.items():
        mels = features(waves[:4])
        pictures += list((mels.mT.flip(1)[:, None] + 1) / 2.5)
        heard = {
            arm: [
                decode(
                    network,
                    mel[None],
                    tokens.prompt(),
                    tokens.end,
                    3,
                    run.generator("fallback"),
                )
                for mel in mels.to(run.device, run.dtype)
            ]
            for arm, network in networks.items()
        }
        for index in range(len(mels)):
            read = [tokens.read(heard[arm][index].tokens) for arm in ("studio", "varied")]
            rows.append((name, words[index], *read))
        wave, caption = waves[0] / waves[0].abs().max() * 0.8, f"'{rows[-4][1]}', {name}"
        run.audio(name, wave, speech.RATE, caption=caption, beside="" if name == "studio" else "studio")
    run.image(
        "conditions",
        torch.stack(pictures).repeat_interleave(2, 2).repeat_interleave(4, 3),
        columns=words,
        rows=list(sets),
        caption="Log-mel spectrograms of the same words in each condition.",
        alt="Spectrograms of four spoken words, with a column for each word and a row for each condition",
    )
    columns = ("condition", "word", "trained on studio sound", "trained on varied sound")
    run.table("what was heard", columns, rows, caption="Transcripts of each word by both networks.")
