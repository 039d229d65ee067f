"""Exercise: multiply by the inverse Hessian without forming the matrix."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_loops(draw: Draw) -> Iterator[Try]:
    yield Try("no pairs", draw(2), [], [], 0.5)
    for n, pairs in ((2, 1), (3, 2), (4, 3)):
        steps = [draw(n) for _ in range(pairs)]
        changes = [s + 0.1 * draw(n) for s in steps]
        yield Try(f"pairs: {pairs}", draw(n), steps, changes, 0.5)


EXERCISES = (
    Exercise(
        name="two loops",
        of="model.two_loop",
        task="Return H g, where H is gamma I after BFGS updates with the pairs, oldest first.",
        hints=(
            (
                "Loop from the newest to the oldest pair: α = ρ sᵀq with ρ = 1 / sᵀy. Subtract α y from q. "
                "Keep each α."
            ),
            "Then set r = gamma q.",
            "Loop from the oldest to the newest pair: β = ρ yᵀr. Add (α - β) s to r.",
        ),
        tries=of_loops,
    ),
)
