"""Explain each neuron of a language model, simulate it from the explanation, and score the simulation.

Bills et al. (OpenAI) 2023, "Language models can explain neurons in language models",
https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html.

The problem. A language model has more neurons than anybody can look at, and a story about one of them is
easily told and hardly ever tested.

The idea. Let a machine do all of it. Explain: from where a neuron is active, write down what it looks for.
Simulate: from that explanation alone say how active it will be at each token of a new text. Score: correlate
that with the truth. A story that fits only where it was made up scores nothing, and two ways to explain can
be compared over all neurons. Most explanations score poorly.

This folder. Here no language model explains: an explanation is the best of a thousand predicates about a
character and those before it ("after a vowel", "t after a blank"), found on one part of a text, simulated and
scored on another. `model`: the score, the predicates, and a model's neurons; `drawing`: neurons on text, in
colours. `experiment` compares explanations with those of other neurons, of an untrained network and with a
lookup table of characters, and gives the explainer fewer predicates. It shows what ablating a neuron does: an
explanation that says what a neuron is for must say where the model misses it (the objection of Huang et al.
2023, arXiv 2309.10312).

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
