"""Whisper compared with transformers', its cache and beams with exhaustive computation, and the
conditions.
"""

from __future__ import annotations

import importlib
import itertools
from functools import partial

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.data import speech
from readtrack.papers import whisper
from readtrack.papers.whisper import (
    SIZES,
    Size,
    Whisper,
    beam_search,
    decode,
    from_released,
    greedy,
    in_time,
)
from readtrack.papers.whisper.decoding import repeats
from readtrack.papers.whisper.experiment import REDUCTION, error_reduction, timed
from readtrack.papers.whisper.sounds import (
    CONDITIONS,
    MANY_IN_STUDIO,
    STUDIO,
    STUDIO_IN_NOISE,
    VARIED,
    Judge,
    Sounds,
    hear,
    mishear,
    recorded,
    ruin,
    say,
    studio,
    varied,
)
from readtrack.papers.whisper.tokens import Tokens
from readtrack.runs.table import Table
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.whisper.experiment")

DIGITS = Tokens()
END, START, TRANSCRIBE, TRANSLATE, NO_TIMES, TIMES = range(20, 26)
SMALL = Size(2, 12, 3, mels=5, frames=14, tokens=9, vocab=11)


def theirs_of(size: Size):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.WhisperConfig(
        vocab_size=size.vocab,
        num_mel_bins=size.mels,
        d_model=size.width,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.width,
        decoder_ffn_dim=4 * size.width,
        max_source_positions=size.frames // 2,
        max_target_positions=size.tokens,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return transformers.WhisperForConditionalGeneration(config)


def test_the_logits_match_transformers(assert_parity):
    ours, theirs = Whisper(SMALL), theirs_of(SMALL).eval()
    for weight in ours.parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight)
    tokens = torch.randint(1, SMALL.vocab, (2, 6))  # the reference learns nothing about the padding token, 0

    def reference(weights, mel):
        named = {f"model.{name}": weight for name, weight in weights.items()}
        named["proj_out.weight"] = weights["decoder.embed_tokens.weight"]
        return functional_call(
            theirs, named, (mel.mT,), {"decoder_input_ids": tokens, "use_cache": False}
        ).logits

    assert_parity(
        lambda w, mel: functional_call(ours, w, (mel, tokens)),
        reference,
        (torch.randn(2, SMALL.frames, SMALL.mels),),
        weights=dict(ours.named_parameters()),
        rtol=1e-7,
        atol=1e-8,
    )


def test_released_weights_read_as_in_transformers():
    theirs = theirs_of(SMALL).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ours = Whisper(SMALL)
    ours.load_state_dict(from_released(theirs.state_dict()))
    mel, tokens = torch.randn(2, SMALL.frames, SMALL.mels), torch.randint(1, SMALL.vocab, (2, 6))
    with torch.no_grad():
        wanted = theirs(mel.mT, decoder_input_ids=tokens).logits
        assert_close(ours(mel, tokens), wanted, rtol=1e-4, atol=1e-4)
    ours.load_state_dict(from_released(theirs.model.state_dict()))
    with pytest.raises(ValueError, match="Whisper has no parameter lm_head"):
        from_released({"lm_head.weight": torch.zeros(1)})


@pytest.mark.parametrize(("name", "count"), [("tiny", 37_760_640), ("large", 1_543_304_960)])
def test_the_papers_sizes(name, count):
    """Table 1: 39 and 1550 million parameters; the released weights' names and shapes."""
    with torch.device("meta"):
        ours, theirs = Whisper(SIZES[name]), theirs_of(SIZES[name])
    assert sum(weight.numel() for weight in ours.parameters()) == count
    shapes = {f"model.{name}": weight.shape for name, weight in ours.state_dict().items()}
    released = {name: weight.shape for name, weight in theirs.state_dict().items()}
    released.pop("proj_out.weight")
    assert shapes == released


def test_positions_of_the_sound_are_fixed():
    ours, theirs = Whisper(SMALL), theirs_of(SMALL)
    assert_close(ours.encoder.embed_positions.weight, theirs.model.encoder.embed_positions.weight)
    assert not ours.encoder.embed_positions.weight.requires_grad


def test_keys_have_no_bias():
    biases = [name for name, _ in Whisper(SMALL).named_parameters() if "k_proj" in name]
    assert all(name.endswith("weight") for name in biases)
    assert len(biases) == 3 * SMALL.layers


def test_the_cache_matches_the_whole_text():
    model, mel = Whisper(SMALL).double(), torch.randn(3, 14, 5, dtype=torch.float64)
    tokens = torch.randint(11, (3, 7))
    whole, sound = model(mel, tokens), model.encoder(mel)
    for cuts in ((1, 1, 1, 1, 1, 1, 1), (3, 4), (2, 1, 4)):
        seen, parts, source = None, [], sound
        for part in tokens.split(cuts, 1):
            logits, seen = model.decoder(part, source, seen)
            parts.append(logits)
            source = None
        assert_close(torch.cat(parts, 1), whole)


def test_no_token_sees_a_later_one():
    model, mel, tokens = Whisper(SMALL), torch.randn(1, 14, 5), torch.randint(11, (1, 6))
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 11
    before, after = model(mel, tokens), model(mel, changed)
    assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_beams_find_the_best_text():
    """With as many beams as texts, beam search is compared with all texts of at most three tokens."""
    model = Whisper(Size(1, 8, 2, mels=5, frames=6, tokens=9, vocab=4))
    mel, end = torch.randn(1, 6, 5), 3
    torch.nn.init.normal_(model.decoder.embed_tokens.weight)

    def score(words):
        tokens = torch.tensor([[0, *words]])
        logs = model(mel, tokens).log_softmax(-1)[0, :-1]
        return logs.gather(1, tokens[0, 1:, None]).sum().item()

    with torch.no_grad():
        every = {
            words: score([*words, end])
            for count in range(3)
            for words in itertools.product(range(3), repeat=count)
        }
    found = beam_search(model, mel, (0,), end, 3, beams=40)
    best = max(every, key=every.get)
    assert tuple(found.tokens) == best
    assert found.log_probability == pytest.approx(every[best] / (len(best) + 1), abs=1e-5)


def test_greedy_takes_the_likeliest_and_stops():
    model, mel = Whisper(SMALL), torch.randn(2, 14, 5)
    found = greedy(model, mel, (1, 2), end=0, most=5)
    for row, text in enumerate(found):
        tokens = [1, 2]
        for word in text.tokens:
            assert model(mel[row : row + 1], torch.tensor([tokens]))[0, -1].argmax() == word
            tokens.append(word)
        assert 0 not in text.tokens
    torch.nn.init.zeros_(model.decoder.embed_tokens.weight)
    drawn = greedy(model, mel, (1,), 0, 6, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert drawn[0].tokens != drawn[1].tokens


def test_an_unlikely_text_is_drawn_again(monkeypatch):
    tried = []

    def pretend(model, mel, prompt, end, most, temperature, generator):
        tried.append(temperature)
        return [whisper.Text([7] * 60 if temperature < 0.3 else [1], -0.5, temperature)]

    def pretend_beams(model, mel, prompt, end, most):
        tried.append(0.0)
        return whisper.Text([1], -1.5, 0.0)

    monkeypatch.setattr("readtrack.papers.whisper.decoding.beam_search", pretend_beams)
    monkeypatch.setattr("readtrack.papers.whisper.decoding.greedy", pretend)
    mel = torch.randn(1, 14, 5)
    assert decode(Whisper(SMALL), mel, (1,), 0, 9).temperature == 0.4
    assert tried == [0.0, 0.2, 0.4]
    assert repeats([7] * 60) > 2.4 > repeats([3, 1, 4, 15, 9, 2, 6])


def test_rules_of_times_match_transformers():
    """For texts with no time stamp, one, two, and a pair."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GenerationConfig(
        no_timestamps_token_id=NO_TIMES, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=None
    )
    theirs = transformers.WhisperTimeStampLogitsProcessor(config, begin_index=2)
    texts_said = ([], [TIMES + 2], [TIMES + 2, 4], [TIMES + 2, 4, TIMES + 5])
    texts_said += ([TIMES + 2, 4, TIMES + 5, TIMES + 5], [TIMES + 2, 4, TIMES + 5, TIMES + 6, 7, 8])
    for said, times in itertools.product(texts_said, (-5.0, 0.0, 1.0)):
        logits = torch.randn(DIGITS.size.vocab, dtype=torch.float64)
        logits[TIMES:] += times
        logits[20:TIMES] -= 3
        wanted = theirs(torch.tensor([[START, TRANSCRIBE, *said]]), logits[None].clone())[0]
        assert_close(in_time(logits, said, END, TIMES), wanted)


def test_times_are_read_from_the_text(monkeypatch):
    said = [[TIMES + 2, 4, TIMES + 9], [TIMES + 2, 4]]
    monkeypatch.setattr(
        experiment_module,
        "greedy",
        lambda *given, times: [whisper.Text(tokens, 0.0, 0.0) for tokens in said],
    )
    sounds = Sounds(torch.randn(2, 40, 40), torch.tensor([4, 4]), torch.zeros(2, 2, dtype=torch.long), DIGITS)
    found = timed(Whisper(DIGITS.size), sounds)
    assert found[0].tolist() == [2, 9]
    assert found[1].isnan().all()
    waves, _, times, lengths, _ = say(20, 0, 5, 0)
    assert (times[:, 0] >= 1).all()
    assert (times[:, 1] > times[:, 0] + 4).all()
    assert times.max() <= waves.shape[1] / 320
    assert all(not wave[end:].any() and wave[:end].any() for wave, end in zip(waves, lengths, strict=True))


def test_texts_contain_task_word_and_end():
    times = torch.tensor([[2, 9], [3, 8]])
    made = DIGITS.texts(torch.tensor([3, 9]), torch.tensor([False, True]), times, torch.tensor([False, True]))
    assert made.tolist() == [
        [START, TRANSCRIBE, NO_TIMES, 3, END, END],
        [START, TRANSLATE, TIMES + 3, 10, TIMES + 8, END],
    ]
    assert DIGITS.prompt() == (START, TRANSCRIBE, NO_TIMES)
    assert DIGITS.prompt(1, timed=True) == (START, TRANSLATE)
    assert DIGITS.read([3, 10, 19, TIMES]) == "three (nine) (eight) ?"


def test_the_arms_differ_in_sound_alone():
    """Both have as many utterances. Studio recordings are quiet and varied recordings are noisy. Every tenth
    transcript is wrong."""
    quiet, loud = studio(say(40, 0, 20, 1), 2), varied(say(40, 0, 100, 1), 2)
    assert quiet.mels.shape == loud.mels.shape == (40, 40, 40)
    floor = [one.mels.quantile(0.1).item() for one in (quiet, loud)]
    assert floor[1] > floor[0] + 0.1
    digits = torch.randint(10, (5000,))
    assert (mishear(digits, 0) != digits).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert set(mishear(torch.zeros(500, dtype=torch.long), 0, words=3).tolist()) == {0, 1, 2}


def test_conditions_differ_from_the_training_data():
    said = say(3, 2000, 5, 0)
    waves = said.waves
    assert CONDITIONS == ("babble", "hum", "telephone", "echo", "clipping")
    ruined = {name: ruin(said, name, 0) for name in CONDITIONS}
    for name, wave in ruined.items():
        assert wave.shape == waves.shape
        assert wave.isfinite().all(), name
        silence = [row[end:] for row, end in zip(wave, said.lengths, strict=True)]
        assert all(rest.std() > 1e-4 for rest in silence), name  # never digital silence
    spectrum = torch.fft.rfft(ruined["telephone"]).abs().square()
    hertz = torch.linspace(0, speech.RATE / 2, spectrum.shape[1])
    assert spectrum[:, (hertz < 600) | (hertz > 2400)].sum() < 1e-3 * spectrum.sum()
    assert ruined["clipping"].abs().amax() < 0.5 * waves.abs().amax()


def test_noise_is_measured_against_the_word_and_not_the_silence_behind_it():
    said = say(3, 2000, 5, 0)
    noise = said.noisy(20, torch.Generator().manual_seed(0)) - said.waves
    for word, added, end in zip(said.waves, noise, said.lengths, strict=True):
        snr = 10 * (word[:end].square().mean() / added[:end].square().mean()).log10()
        assert snr.item() == pytest.approx(20, abs=0.01)


def test_arms_differ_in_speakers_noise_and_transcripts(part_of_run):
    at = Trial(Workshop(part_of_run(), None), Work(arm="any"), arm="any")
    quiet, loud, many, added = (
        hear(kind, None, at) for kind in (STUDIO, VARIED, MANY_IN_STUDIO, STUDIO_IN_NOISE)
    )
    right = [torch.equal(one.train.labels, say(8, 0, 20, 1).labels) for one in (quiet, added)]
    assert right == [True, True]
    assert torch.equal(loud.train.labels, many.train.labels)
    floor = [one.train.mels.quantile(0.1).item() for one in (quiet, loud, many, added)]
    assert min(floor[1], floor[3]) > max(floor[0], floor[2])
    assert [kind.wrong for kind in (STUDIO, VARIED, MANY_IN_STUDIO, STUDIO_IN_NOISE)] == [0, 0.1, 0.1, 0]
    assert [kind.speakers for kind in (STUDIO, VARIED, MANY_IN_STUDIO, STUDIO_IN_NOISE)] == [20, 100, 100, 20]


def test_error_reductions_are_averaged_over_the_conditions():
    labels = torch.zeros(10, dtype=torch.long)
    table = Table(Judge({}, {"studio": Sounds(torch.zeros(10, 2, 2), labels, labels[:, None], DIGITS)}))
    errors = [(0.1, 0.4), (0.0, 0.0), (0.2, 0.2), (0.2, 0.1), (0.0, 1.0)]
    for name, (ours, theirs) in zip(CONDITIONS, errors, strict=True):
        table.add({"varied": {f"error rate, {name}": ours}, "studio": {f"error rate, {name}": theirs}})
    wanted = (1 - 1.5 / 4.5) + 0 + 0 + (1 - 2.5 / 1.5) + (1 - 0.5 / 10.5)
    assert error_reduction(table)[""][REDUCTION] == pytest.approx(wanted / 5)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(whisper)
    assert {artifact["name"] for artifact in record.artifacts} == {
        "conditions",
        "what was heard",
        "studio",
        *CONDITIONS,
    }


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "3f3c862b5d5e"


def test_recorded_words_are_padded_alike_and_have_tokens_of_their_own(tones, part_of_run):
    run = part_of_run()
    run._settings = {"speech": "tones"}
    train, choose, judge = recorded(run)
    assert [len(said.labels) for said in (train, choose, judge)] == [12, 4, 4]
    tokens = train.tokens
    assert (tuple(tokens.words), tokens.frames, tokens.end) == (("high", "low"), 26, 4)  # 0.52 s
    assert train.waves.shape[1] == 26 * 160
    assert Whisper(tokens.size)(studio(train, 0).mels, torch.tensor([[tokens.start]] * 12)).shape[2] == 23
    for said in (train, choose, judge):
        for wave, label in zip(said.waves, said.labels.tolist(), strict=True):
            loudest = torch.fft.rfft(wave[:4000]).abs().argmax().item() * 2  # Hz
            assert loudest == (200 if tokens.words[label] == "low" else 1000)


def test_with_data_the_networks_hear_its_words(tones, run_experiment):
    record = run_experiment(whisper, speech="tones")
    assert {claim["claim"]["name"] for claim in record.claims} == {
        "varied sound against studio sound",
        "what is kept",
    }
    assert {arm for name, arm in record.values if name == "error rate, babble"} == {"studio", "varied"}


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(whisper)] == ["text from sound"]


def test_it_is_built_anywhere():
    with torch.device("meta"):
        assert partial(Whisper, SMALL)().decoder.embed_tokens.weight.is_meta
