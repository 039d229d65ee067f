"""A valid plugin with a curve, a metric, a claim and an artifact, but without benchmark cases."""

from readtrack.plugin import Bound, Claim, Figure, hookimpl

CLAIM = Claim(
    name="falls",
    sentence="The loss falls.",
    paper=Figure("from 1 to 0.1"),
    rule=(Bound("last loss", "<=", 0.5),),
)


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    steps = run.option("steps", 5)
    run.phase("train")
    for step in run.steps(steps):
        run.metric("loss", 1 / (step + 1), step=step, arm="paper")
    run.phase("evaluate")
    run.metric("accuracy", 0.75, arm="paper")
    run.claim(CLAIM, {"last loss": 1 / steps})
    run.text("summary", "it fell", caption="what happened")
    run.log("done")


@hookimpl
def benchmark(bench):
    return iter(())
