"""Texts with ambiguous words: their distribution, and their information about the topic."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from readtrack.data.senses import senses


def drawn():
    language = senses(torch.Generator().manual_seed(1), words=64, topics=8)
    return language, *language.draw(400, 10, torch.Generator().manual_seed(2))


def test_the_same_generator_makes_the_same_language():
    again, ids, topic = drawn()
    other, same, _ = drawn()
    assert torch.equal(again.own, other.own)
    assert torch.equal(ids, same)
    assert again.own.shape == (8, 16)
    assert all(len(row.unique()) == 16 for row in again.own)
    assert (ids.shape, topic.shape) == ((400, 10), (400,))


def test_a_text_has_words_of_its_topic_alone_each_as_likely():
    language, ids, topic = drawn()
    assert (ids[:, :, None] == language.own[topic][:, None]).any(2).all()
    assert topic.bincount(minlength=8).min() > 25
    ids, _ = language.draw(4000, 10, torch.Generator().manual_seed(3))
    counts = ids.flatten().bincount(minlength=64) / ids.numel()
    expected = language.own.flatten().bincount(minlength=64) / language.own.numel()
    assert_close(counts, expected, rtol=0, atol=0.004)


def test_the_posterior_matches_counting():
    language, ids, topic = drawn()
    posterior = language.posterior(ids)
    for row in range(5):
        for end in range(10):
            seen = set(ids[row, : end + 1].tolist())
            possible = [seen <= set(own.tolist()) for own in language.own]
            assert_close(posterior[row, end], torch.tensor(possible).float() / sum(possible))
    assert posterior[torch.arange(400), -1, topic].mean() > 0.95
    assert posterior[torch.arange(400), 0, topic].mean() < 0.6
