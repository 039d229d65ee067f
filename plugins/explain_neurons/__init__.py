"""Explain each neuron of a language model, simulate it from the explanation, and score the simulation.

Bills et al. (OpenAI) 2023, "Language models can explain neurons in language models",
https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html.

The problem. A language model has more neurons than anybody can inspect, and an explanation of a neuron is
easy to make up and is rarely tested.

The idea. Automate explanation and testing in three steps. Explain: describe the pattern that a neuron
responds to, from texts with its activations. Simulate: predict the activation at each token of a new text
from the explanation alone. Score: correlate the prediction with the truth. An explanation that fits only the
texts from which it was made gets a score near zero. Mean scores over all neurons compare explainers. Most
explanations score poorly.

This folder. The explanations are found by search, not written by a language model. An explanation is the best
of a thousand predicates about a character and the characters before it ("after a vowel", "t after a blank").
It is found on one part of a text, and simulated and scored on another. `model` has the score, the predicates,
and a model's activations. `drawing` draws text coloured by activations. `experiment` compares explanations
with those of other neurons and of an untrained network, and with a lookup table of characters. It also gives
the explainer fewer predicates. Finally, it shows the effect of ablating a neuron. If an explanation describes
the neuron's function, the ablation should raise the loss where the explanation fires (the objection of Huang
et al. 2023, arXiv 2309.10312).

Dimensions: tokens, neurons, predicates, batch.
"""

from collections.abc import Callable

from torch import Tensor

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .experiment import SCORES, STRENGTH, experiment
from .model import activations_of, answers, correlations, losses, questions, rise_without, wording


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return correlations
