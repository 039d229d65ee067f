"""Exercises: write the BFGS and DFP updates, and minimise a cubic."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_updates(draw: Draw) -> Iterator[Try]:
    for n in (2, 3):
        factor, s = draw(n, 2 * n), draw(n)
        yield Try(f"n = {n}", factor @ factor.mT, s, s + 0.1 * draw(n))


def of_cubics(draw: Draw) -> Iterator[Try]:
    yield Try("a parabola", 0.0, 1.0, -2.0, 2.0, 1.0, 2.0)
    yield Try("a cubic", 0.0, 0.0, -1.0, 2.0, 1.0, 5.0)
    yield Try("from right to left", 2.0, 1.0, 5.0, 0.0, 0.0, -1.0)
    yield Try("no minimum", 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)


EXERCISES = (
    Exercise(
        name="update",
        of="model.bfgs_update",
        task="Update the model of the inverse Hessian after a step s that changed the gradient by y.",
        hints=(
            "H⁺ = (I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ with ρ = 1 / sᵀy.",
            "Multiplied out, the update needs only H y and two outer products.",
        ),
        tries=of_updates,
    ),
    Exercise(
        name="DFP's update",
        of="rivals.dfp_update",
        task="Write the update of Davidon, Fletcher and Powell (DFP).",
        hints=("H⁺ = H - (H y)(H y)ᵀ / yᵀHy + s sᵀ / sᵀy.",),
        tries=of_updates,
    ),
    Exercise(
        name="cubic",
        of="model.cubic_minimum",
        task="Compute the minimiser of the cubic with given values and slopes at two points, or NaN if it "
        "has no minimum.",
        hints=(
            "Let d1 = da + db - 3 (fa - fb) / (a - b). There is no minimum if d1² < da · db.",
            "Let d2 be the root of d1² - da · db, with the sign of b - a.",
            "The minimiser is b - (b - a) (db + d2 - d1) / (db - da + 2 d2).",
        ),
        tries=of_cubics,
    ),
)
