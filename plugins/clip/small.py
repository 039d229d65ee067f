"""Implements the experiment's networks: CLIP and a word-predicting baseline with the same image tower.

Dimensions: count, tokens, classes (pairs of a colour and a digit), dim.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..resnet import Convolution
from .loss import contrastive
from .model import CLIP, classifier
from .resnet import AttentionPool
from .task import VOCAB, bags

Pictures = Float[Tensor, "count 3 16 16"]
Ids = Int64[Tensor, "count tokens"]
Prompts = list[Int64[Tensor, "_ tokens"]]  # each class's prompts
DIM = 48


class ImageTower(nn.Module):
    """Three convolutions and the attention pool."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Convolution(3, 16, 5, stride=2),
            nn.ReLU(),
            Convolution(16, 24, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Convolution(24, 48, 3),
            nn.ReLU(),
        )
        self.pool = AttentionPool(4, 48, 4, dim)

    def forward(self, x: Pictures) -> Float[Tensor, "count dim"]:
        return self.pool(self.layers(x))


class BagTower(nn.Module):
    """The sum of a text's word embeddings: the bag-of-words text encoder of the paper's figure 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.words = nn.Linear(VOCAB, dim, bias=False)

    def forward(self, ids: Ids) -> Float[Tensor, "count dim"]:
        return self.words(bags(ids).to(self.words.weight.dtype))


class Learner(Protocol):
    """Learns from images and captions, then classifies images zero-shot with a list of prompts per class."""

    def loss(self, x: Pictures, ids: Ids) -> Float[Tensor, ""]: ...

    def scores(self, x: Pictures, prompts: Prompts) -> Float[Tensor, "count classes"]: ...


class Contrastive(nn.Module):
    """CLIP, with a bag of words for the text.

    contest  number of image-text pairs contrasted with each other (default: the batch, as in the paper)
    """

    def __init__(self, contest: int | None = None) -> None:
        super().__init__()
        self.contest = contest
        self.clip = CLIP(ImageTower(DIM), BagTower(DIM))

    def loss(self, x: Pictures, ids: Ids) -> Float[Tensor, ""]:
        if self.contest is None:
            return self.clip.loss(x, ids)
        seen, said = self.clip.embed(x, ids)
        contests = zip(seen.split(self.contest), said.split(self.contest), strict=True)
        return torch.stack([contrastive(*contest, self.clip.scale()) for contest in contests]).mean()

    @torch.no_grad()
    def scores(self, x: Pictures, prompts: Prompts) -> Float[Tensor, "count classes"]:
        """Cosine similarities with the mean text embedding of each class."""
        return F.normalize(self.clip.vision(x), dim=1) @ classifier(self.clip.text, prompts).T


class OthersTexts(Contrastive):
    """Each image is paired with the text of its neighbour in the batch."""

    def loss(self, x: Pictures, ids: Ids) -> Float[Tensor, ""]:
        return super().loss(x, ids.roll(1, 0))


class Words(nn.Module):
    """Predicts the caption's bag of words: a softmax over all words, with the caption's words as targets.

    weights  weight of each word (default: uniform)
    """

    def __init__(self, weights: Float[Tensor, " vocab"] | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(VOCAB) if weights is None else weights)
        self.tower = ImageTower(VOCAB)

    def loss(self, x: Pictures, ids: Ids) -> Float[Tensor, ""]:
        words = F.normalize(bags(ids) * self.weights, p=1, dim=1).to(x.dtype)
        return F.cross_entropy(self.tower(x), words)

    @torch.no_grad()
    def scores(self, x: Pictures, prompts: Prompts) -> Float[Tensor, "count classes"]:
        """Mean log-probability of each class's words, except words that all classes use equally often."""
        counts = torch.stack([bags(ids).sum(0) for ids in prompts])
        told = counts * (counts != counts[0]).any(0)
        return self.tower(x).log_softmax(1) @ F.normalize(told, p=1, dim=1).T.to(x.dtype)
