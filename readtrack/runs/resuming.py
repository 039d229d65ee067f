"""Find the stopped run that `readtrack run --resume` continues."""

from __future__ import annotations

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.plugins import prints
from readtrack.runs import checkpoints
from readtrack.runs.job import Job, renewed
from readtrack.runs.store import load, summaries


def resumed(home: Home, paper: str, code: prints.Prints) -> Job:
    """A job that continues the paper's newest run with checkpoints.

    code  hashes of the paper's current code

    Raises NotAvailableError if no stopped run has a checkpoint, ReadtrackError if the run is alive or the
    paper's code has changed since.
    """
    for run in summaries(home, paper):
        folder = home.runs / run.run_id
        record = load(folder)
        if record.job is None or record.outcome == "completed":
            continue
        first = record.job.resumes or run.run_id
        if not any(checkpoints.folder(home, first).glob("*.pt")):
            continue
        if record.outcome is None:
            raise ReadtrackError(f"{run.run_id} has not ended. `readtrack watch {run.run_id}` follows it.")
        then = prints.load(folder)
        if then and (changes := prints.changes(then, code)):
            raise ReadtrackError(
                f"The code has changed since {run.run_id}: {prints.in_words(changes)}. Its checkpoints "
                f"cannot be used. `readtrack run {paper}` starts from the beginning."
            )
        return renewed(record.job, resumes=first, spent=record.duration)
    raise NotAvailableError(
        f"No stopped run of {paper} has a checkpoint. The first is written after a minute of training, "
        f"or once an arm is trained. `readtrack run {paper}` starts from the beginning."
    )
