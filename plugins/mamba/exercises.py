"""Exercises: write the discretisation, the scan as a loop and as a tree, the selection, and the block."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import MambaBlock, SelectiveSSM


def of_steps(draw: Draw) -> Iterator[Try]:
    for label, batch, time, channels, order in (
        ("one step", 1, 1, 1, 1),
        ("3 steps", 1, 3, 1, 2),
        ("2 channels", 2, 3, 2, 3),
    ):
        steps = draw.between(0.1, 1, batch, time, channels)
        yield Try(
            label,
            draw(batch, time, channels),
            steps,
            -draw.between(0.5, 2, channels, order),
            draw(batch, time, order),
        )


def of_scans(draw: Draw) -> Iterator[Try]:
    for one in of_steps(draw):
        x, delta, a, b = one.arguments
        yield Try(one.label, x, delta, a, b, draw(*b.shape), draw(len(x), *a.shape))


def of_pairs(draw: Draw) -> Iterator[Try]:
    for time in (1, 2, 3, 6):
        yield Try(f"{time} steps", draw(1, time, 1, 2), draw(1, time, 1, 2))


def of_spaces(draw: Draw) -> Iterator[Try]:
    yield Try("one channel", SelectiveSSM(1, 2, 1), draw(1, 2, 1))
    yield Try("2 channels", SelectiveSSM(2, 3, 1), draw(2, 3, 2))
    yield Try("an initial state", SelectiveSSM(2, 2, 1), draw(1, 2, 2), draw(1, 2, 2))


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("one sample", MambaBlock(1, order=2), draw(1, 1, 1))
    yield Try("5 samples", MambaBlock(2, order=2, window=3), draw(2, 5, 2))
    state = draw(2, 4, 2), draw(2, 4, 2)
    yield Try("an initial state", MambaBlock(2, order=2, window=3), draw(2, 2, 2), state)


EXERCISES = (
    Exercise(
        name="discretise",
        of="loop.discretise",
        task="Compute the decay and the drive of every step, channel and state, with B discretised as Δ B.",
        hints=(
            "The decay is the exponential of Δ A, with an additional dimension for the order.",
            "The drive is Δ x times B. All channels share B.",
        ),
        tries=of_steps,
    ),
    Exercise(
        name="loop",
        of="loop.scan_loop",
        task="Compute the selective scan one step after another. Return all outputs and the last state.",
        hints=(
            "The new state is decay · state + drive.",
            "An output is the sum of C · state over the order, with the new state.",
        ),
        tries=of_scans,
    ),
    Exercise(
        name="tree",
        of="scan.prefixes",
        task="Compute all states from decays and drives by recursion on pairs, with a depth of 2 log₂(time).",
        hints=(
            "Two steps (a, u) and (b, v) make one step (b a, b u + v). That halves the sequence, so recurse.",
            "The recursion gives the states 1, 3, 5, … State 2i is drive + decay · state (2i - 1).",
            "Interleave even and odd states. If the number of steps is odd, append the last even state.",
        ),
        tries=of_pairs,
    ),
    Exercise(
        name="selection",
        of="model.SelectiveSSM.forward",
        task="Algorithm 2: compute Δ, B and C from the input, run the scan, and add the skip connection.",
        hints=(
            "Split the output of x_proj into parts of size rank, order and order.",
            "Δ is the softplus of dt_proj of the first part. A is -exp(A_log).",
            "Add D times the input to the outputs.",
        ),
        tries=of_spaces,
    ),
    Exercise(
        name="block",
        of="model.MambaBlock.forward",
        task="Figure 3: apply the convolution and the SSM in one branch, and the gate in the other. Also "
        "return the new state.",
        hints=(
            "in_proj gives the signal and the gate. Put the recent samples, or zeros, before the signal.",
            "The convolution needs time as the last axis and does not pad. SiLU and the SSM follow.",
            (
                "The output is y · SiLU(gate), projected. The state keeps the last window - 1 samples of "
                "the signal."
            ),
        ),
        tries=of_blocks,
    ),
)
