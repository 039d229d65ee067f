"""Mutations of five experiments, and the check or test that finds each: `python tests/mutate.py [PAPER]...`
writes docs/mutations.md. It takes about half an hour, and changes files of the checkout while it runs.

Each mutation is a plausible mistake: in the idea, in the control, in the evaluation, or in the breaks.
`readtrack plugins check` runs first, then the paper's own tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "mutations.md"
INTRODUCTION = (
    "Each row names a plausible mistake in one of five experiments, and the check of "
    "`readtrack plugins check` or the paper's test that finds it."
)
PYTEST = Path(sys.executable).with_name("pytest")
# The checks of `readtrack plugins check` for the experiment; the benchmark's checks take longer.
CHECKS = """
import sys, tempfile
from pathlib import Path
from readtrack.checks.__main__ import checks
from readtrack.home import Home
from readtrack.plugins.load import load

load(sys.argv[1], Home())
with tempfile.TemporaryDirectory() as folder:
    for what, check in checks(sys.argv[1], Path(folder)):
        if what == "the benchmark declares cases":
            break
        try:
            check()
        except Exception as error:
            print(f"{what}: {error or type(error).__name__}")
            break
"""
TIMEOUT = 400  # seconds
LONGEST = 130  # characters of a message


class Mutation(NamedTuple):
    """Replaces `old`, which occurs once in the paper's experiment.py."""

    part: str
    what: str
    old: str
    new: str


MUTATIONS = {
    "mamba": [
        Mutation(
            "idea",
            "the paper's arm is the control",
            '"selective": Arm(SelectiveSSM)',
            '"selective": Arm(TimeInvariantSSM)',
        ),
        Mutation(
            "control",
            "the control has no recurrence",
            "return convolve(x.mT, response).mT + self.D * x, None",
            "return self.D * x, None",
        ),
        Mutation(
            "control",
            "the control's step size and A are not learned",
            "delta, A = F.softplus(self.dt_proj(dt)), -self.A_log.exp()",
            "delta, A = F.softplus(self.dt_proj(dt)).detach(), -self.A_log.exp().detach()",
        ),
        Mutation(
            "control",
            "the control's B and C are not learned",
            "nn.Parameter(torch.randn(rank + 2 * order))",
            "nn.Parameter(torch.randn(rank + 2 * order), requires_grad=False)",
        ),
        Mutation(
            "control",
            "the control has a tenth of the learning rate",
            "lr=rate)",
            'lr=rate if at.name == "selective" else rate / 10)',
        ),
        Mutation(
            "control",
            "the control is trained for half of the steps",
            "for step in at.steps(steps, name, state",
            'for step in at.steps(steps if at.name == "selective" else steps // 2, name, state',
        ),
        Mutation(
            "control",
            "the control is trained on batches of 4 instead of 32",
            "selective_copying(32, length, keep, batches)",
            'selective_copying(32 if at.name == "selective" else 4, length, keep, batches)',
        ),
        Mutation(
            "evaluation",
            "judged on the data for choosing the learning rate",
            'run.data(f"sequences to {part} by", part)',
            'run.data("sequences to choose by", "choose")',
        ),
        Mutation(
            "evaluation",
            "the learning rate is chosen on the test data",
            'return copied(run, copier, "choose").mean().item(), copier',
            'return copied(run, copier, "judge").mean().item(), copier',
        ),
        Mutation(
            "evaluation",
            "the least likely token counts as the prediction",
            ".argmax(-1).cpu()",
            ".argmin(-1).cpu()",
        ),
        Mutation(
            "evaluation",
            "the first outputs are scored instead of the last",
            "found = copier(ids.to(run.device))[:, -keep:]",
            "found = copier(ids.to(run.device))[:, :keep]",
        ),
        Mutation("evaluation", "the worst learning rate is chosen", 'keep="highest"', 'keep="lowest"'),
        Mutation(
            "evaluation",
            "trained on the test data",
            'at.generator("sequences to train on")',
            'run.data("sequences to judge by", "judge")',
        ),
        Mutation(
            "evaluation",
            "the tokens to copy are always at the start",
            "torch.rand(count, length, generator=generator).argsort(1)[:, :keep].sort(1).values",
            "torch.arange(keep).expand(count, keep)",
        ),
        Mutation(
            "evaluation",
            "the smoke budget skips an evaluation of the quick budget",
            '    at.metric("accuracy", copied(run, copier, "judge").mean().item(), arm=name)\n',
            "    if run.pick(smoke=False, quick=True, full=True):\n"
            '        at.metric("accuracy", copied(run, copier, "judge").mean().item(), arm=name)\n',
        ),
        Mutation(
            "evaluation",
            "evaluated with dropout",
            "copier = Copier(space, 32, 16)",
            "copier = nn.Sequential(Copier(space, 32, 16), nn.Dropout(0.1))",
        ),
        Mutation(
            "control",
            "all arms take fewer steps in the quick budget",
            "quick=400, full=3000",
            "quick=200, full=3000",
        ),
        Mutation("breaks", "the near miss changes nothing", "inputs[0].roll(1, 0)", "inputs[0].roll(0, 0)"),
        Mutation("breaks", "the rival has no gate", "* F.silu(self.gate(x)), None", ", None"),
    ],
    "bert": [
        Mutation(
            "idea",
            "the paper's arm is pre-trained from left to right",
            '"both sides": Arm(seeing, before=both),',
            '"both sides": Arm(seeing, before=left),',
        ),
        Mutation(
            "control",
            "the control is not pre-trained",
            '"left to right": Arm(blind, before=left),',
            '"left to right": Arm(blind, before=network),',
        ),
        Mutation(
            "control",
            "the control is pre-trained to repeat its input",
            "ids[:, 1:].flatten())",
            "ids[:, :-1].flatten())",
        ),
        Mutation(
            "control",
            "the control sees the words that it is pre-trained to predict",
            "model.bert(ids, causal=True)",
            "model.bert(ids, causal=False)",
        ),
        Mutation(
            "control",
            "the control sees both sides during tuning",
            "hidden = self.bert(ids, causal=self.causal)",
            "hidden = self.bert(ids, causal=False)",
        ),
        Mutation(
            "control",
            "the control is pre-trained for half of the steps",
            'for step in at.steps(steps, f"pre-training',
            'for step in at.steps(steps // (1 + causal), f"pre-training',
        ),
        Mutation(
            "control",
            "the control has a tenth of the learning rate",
            "AdamW(model.parameters(), lr=rate, weight_decay",
            "AdamW(model.parameters(), lr=rate / 10 if model.causal else rate, weight_decay",
        ),
        Mutation(
            "control",
            "the control is tuned without early stopping",
            "if (step + 1) % gap == 0:",
            "if (step + 1) % gap == 0 and (not model.causal or step + 1 == steps):",
        ),
        Mutation(
            "evaluation",
            "tuned on the test data",
            'run.data("labelled", "train")',
            'run.data("to judge by", "judge")',
        ),
        Mutation(
            "evaluation",
            "early stopping uses the test data",
            "texts = chosen(run, language)",
            "texts = judged(run, language)",
        ),
        Mutation(
            "evaluation",
            "judged on the data for early stopping",
            "right = accuracy(found.chosen, judged(at.run, at.world))",
            "right = accuracy(found.chosen, chosen(at.run, at.world))",
        ),
        Mutation(
            "evaluation",
            "pre-trained on the test texts",
            "ids, _ = at.world.draw(48, LENGTH, draw)",
            "ids, _ = judged(run, at.world)",
        ),
        Mutation(
            "evaluation",
            "the least likely topic counts as the prediction",
            ".argmax(2).cpu()\n    return (found",
            ".argmin(2).cpu()\n    return (found",
        ),
        Mutation("evaluation", "arms share their weights", "deepcopy(trained.bert)", "trained.bert"),
        Mutation(
            "evaluation",
            "only the output layer is tuned",
            "AdamW(model.parameters(), lr=rate,",
            "AdamW(model.output.parameters(), lr=rate,",
        ),
        Mutation("breaks", "the near miss does not mix the words", "        if mixed:", "        if False:"),
        Mutation(
            "breaks",
            "the rival is the paper's arm",
            'UNMASKED.name: {"both sides": Arm(seeing, before=left)}',
            'UNMASKED.name: {"both sides": Arm(seeing, before=both)}',
        ),
    ],
    "gpt3": [
        Mutation("idea", "all models are small", "Arm(size) for name", 'Arm(WIDTHS["small"]) for name'),
        Mutation(
            "control",
            "the small model has a tenth of the learning rate",
            "own = rate_of(size.width, rate)",
            'own = rate_of(size.width, rate) * (0.1 if at.name == "small" else 1)',
        ),
        Mutation(
            "control",
            "the large model trains twice as long",
            "size.times * run.pick(",
            '(1 + (at.name == "large")) * size.times * run.pick(',
        ),
        Mutation(
            "control",
            "the small model is trained on batches of 8 instead of 64",
            "ids, _ = rules.draw(64, generator)",
            'ids, _ = rules.draw(8 if at.name == "small" else 64, generator)',
        ),
        Mutation(
            "evaluation",
            "the loss is on outputs whose input includes the answer",
            "F.cross_entropy(net(ids)[:, ::2]",
            "F.cross_entropy(net(ids)[:, 1::2]",
        ),
        Mutation(
            "evaluation",
            "judged on the data for choosing the learning rate",
            'ids = documents(at.run, at.world, "judge")',
            'ids = documents(at.run, at.world, "choose")',
        ),
        Mutation(
            "evaluation",
            "the learning rate is chosen on the test data",
            'chosen = documents(run, rules, "choose")',
            'chosen = documents(run, rules, "judge")',
        ),
        Mutation(
            "evaluation",
            "trained on the test data",
            "ids, _ = rules.draw(64, generator)",
            'ids = documents(run, rules, "judge")',
        ),
        Mutation(
            "evaluation",
            "answers that are right without examples are not subtracted",
            "added = right[:, -1] - right[:, 0]",
            "added = right[:, -1]",
        ),
        Mutation(
            "evaluation",
            "the accuracy after one example is reported as the accuracy without examples",
            '"accuracy without an example": right[:, 0]',
            '"accuracy without an example": right[:, 1]',
        ),
        Mutation(
            "evaluation",
            "the least likely answer counts as the prediction",
            "[:, ::2].argmax(2)",
            "[:, ::2].argmin(2)",
        ),
        Mutation(
            "evaluation",
            "answers are compared with the keys",
            "answers == ids[:, 1::2]",
            "answers == ids[:, ::2]",
        ),
        Mutation(
            "evaluation",
            "the predictor that knows all rules forgets the examples",
            "fits[..., :-1]), 2).cumprod(2)",
            "fits[..., :-1]), 2)",
        ),
        Mutation("breaks", "the break keeps the rules related", "replace(rules, unrelated=True)", "rules"),
        Mutation("breaks", "the rival does not train for longer", "_replace(times=4)", "_replace(times=1)"),
    ],
    "grad_cam": [
        Mutation(
            "idea",
            "the maps are those of the untrained network",
            '"Grad-CAM": Arm(last_maps(trained)),',
            '"Grad-CAM": Arm(last_maps(untrained)),',
        ),
        Mutation(
            "idea",
            "the maps are those of another digit",
            "question(asked.images, asked.classes)",
            "question(asked.images, asked.classes.roll(1))",
        ),
        Mutation(
            "idea",
            "the maps are not weighted",
            '"Grad-CAM": Arm(last_maps(trained)),',
            '"Grad-CAM": Arm(unweighted(trained)),',
        ),
        Mutation(
            "control",
            "the control is the gradient of the untrained network",
            "Arm(partial(saliency, trained))",
            "Arm(partial(saliency, untrained))",
        ),
        Mutation(
            "control",
            "the untrained network is trained",
            '"untrained": Arm(last_maps(untrained))',
            '"untrained": Arm(last_maps(trained))',
        ),
        Mutation(
            "evaluation",
            "the boxes are swapped",
            "energy(found.chosen, asked.boxes), energy(found.chosen, asked.others)",
            "energy(found.chosen, asked.others), energy(found.chosen, asked.boxes)",
        ),
        Mutation(
            "evaluation",
            "an empty map counts as a share of one half",
            "part = inside / (inside + beside).clamp(min=1e-12)",
            "part = (inside + 1e-12) / (inside + beside + 2e-12)",
        ),
        Mutation(
            "evaluation",
            "the share is relative to the whole image",
            "part = inside / (inside + beside).clamp(min=1e-12)",
            "part = inside",
        ),
        Mutation(
            "evaluation",
            "judged on the data for choosing the network",
            'asked = known(run, pair.trained, "judge",',
            'asked = known(run, pair.trained, "choose",',
        ),
        Mutation(
            "evaluation",
            "every digit counts as recognised",
            'references={"": {"digits that the network names": asked.named}}',
            'references={"": {"digits that the network names": 1.0}}',
        ),
        Mutation(
            "evaluation",
            "the measured difference is always zero",
            "(found - exact).abs().max()",
            "(exact - exact).abs().max()",
        ),
        Mutation(
            "evaluation",
            "the null run compares copies, whose difference is zero",
            '        null="items",\n',
            "",
        ),
        Mutation(
            "breaks", "the near miss weights the maps", "Arm(unweighted(trained))", "Arm(last_maps(trained))"
        ),
        Mutation(
            "breaks",
            "the rival is the paper's arm",
            "Arm(partial(guided_gradient, trained))",
            "Arm(last_maps(trained))",
        ),
    ],
    "weak_to_strong": [
        Mutation(
            "idea",
            "the student is trained on the true labels",
            '"weak labels": Arm(Student(strong, teachers_labels)),',
            '"weak labels": Arm(Student(strong, truth)),',
        ),
        Mutation(
            "idea",
            "the student's own predictions have no weight in the confidence loss",
            '"confidence loss": Arm(Student(strong, teachers_labels, 0.5)),',
            '"confidence loss": Arm(Student(strong, teachers_labels)),',
        ),
        Mutation(
            "idea",
            "the bootstrapped student is trained on the true labels",
            '"bootstrapped": Arm(Student(strong, handed_on_by_middle)),',
            '"bootstrapped": Arm(Student(strong, truth)),',
        ),
        Mutation(
            "idea",
            "the intermediate student is as large as the strong student",
            'pretrained(at, "middle", 16,',
            'pretrained(at, "middle", 64,',
        ),
        Mutation(
            "control",
            "the student of the teacher's kind has untrained features",
            '"teacher\'s kind": Arm(Student(teachers_pixels, teachers_labels)),',
            '"teacher\'s kind": Arm(Student(untrained, teachers_labels)),',
        ),
        Mutation(
            "control",
            "the teacher's labels are not hardened",
            '"teacher\'s, hardened": Arm(Student(strong, teachers_labels, 0.5, teachers_answers)),',
            '"teacher\'s, hardened": Arm(Student(strong, teachers_labels)),',
        ),
        Mutation(
            "control",
            "the untrained features are trained",
            'pretrained(at, "untrained", 64, 0)',
            'pretrained(at, "untrained", 64, at.world.steps)',
        ),
        Mutation(
            "control",
            "the control is relabelled by an intermediate student",
            '"relabelled": Arm(Student(strong, handed_on_by_strong)),',
            '"relabelled": Arm(Student(strong, handed_on_by_middle)),',
        ),
        Mutation(
            "control",
            "the strong student has a tenth of the learning rate",
            "peak=student.peak, loss=student.loss)",
            'peak=student.peak, loss=student.loss, rate=0.003 if at.name == "weak labels" else 0.03)',
        ),
        Mutation(
            "control",
            "the paper's student trains twice as long",
            "peak=student.peak, loss=student.loss)",
            'peak=student.peak, loss=student.loss, longer=2 if at.name == "confidence loss" else 1)',
        ),
        Mutation(
            "evaluation",
            "students are trained on the test digits",
            "x, x_test, odd = view(known[on][0]),",
            'x, x_test, odd = view(known["test" if on == "transfer" else on][0]),',
        ),
        Mutation(
            "evaluation",
            "the student's own accuracy is the ceiling of the gap",
            'rows["truth"]["accuracy"])',
            'rows["weak labels"]["accuracy"])',
        ),
        Mutation(
            "evaluation",
            "the gap starts at the accuracy of the student of the teacher's kind",
            "low, rows = right(table.world, table.world.teacher), table.rows",
            'low, rows = table.rows["teacher\'s kind"]["accuracy"], table.rows',
        ),
        Mutation(
            "evaluation",
            "the teacher's predictions are judged instead of the student's",
            '"accuracy": right(at.world, found.chosen)',
            '"accuracy": right(at.world, at.world.teacher)',
        ),
        Mutation(
            "evaluation",
            "judged on the validation data",
            'run.rows(len(known["test"][0]), "judge")',
            'run.rows(len(known["test"][0]), "choose")',
        ),
        Mutation(
            "evaluation",
            "every student counts as agreeing with the teacher",
            "(found.chosen.answers == at.world.teacher.answers)",
            "(found.chosen.answers == found.chosen.answers)",
        ),
        Mutation(
            "breaks", "the near miss does not remove pre-training", "replace(school, steps=0)", "school"
        ),
        Mutation(
            "breaks",
            "the rival has the student's inputs",
            "Arm(Student(all_pixels, teachers_labels))",
            "Arm(Student(strong, teachers_labels))",
        ),
        Mutation(
            "breaks",
            "the rival is the paper's arm",
            'SECOND_ROUND.name: {"confidence loss": Arm(Student(strong, handed_on_by_strong))}',
            'SECOND_ROUND.name: {"confidence loss": Arm(Student(strong, teachers_labels, 0.5))}',
        ),
        Mutation(
            "breaks",
            "the near miss keeps the intermediate student",
            'NOBODY_BETWEEN.name: {"bootstrapped": Arm(Student(strong, handed_on_by_strong))}',
            'NOBODY_BETWEEN.name: {"bootstrapped": Arm(Student(strong, handed_on_by_middle))}',
        ),
    ],
}


def main(papers: list[str]) -> None:
    lines = {}
    for paper in papers or MUTATIONS:
        file = CHECKOUT / "plugins" / paper / "experiment.py"
        text = file.read_text(encoding="utf-8")
        for mutation in MUTATIONS[paper]:
            if text.count(mutation.old) != 1:
                raise SystemExit(f"{paper}: {mutation.what}: {text.count(mutation.old)} places")
        for mutation in MUTATIONS[paper]:
            file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
            try:
                found = noticed(paper)
            finally:
                file.write_text(text, encoding="utf-8")
            cells = (paper, mutation.part, mutation.what, found)
            lines[cells[:3]] = f"| {' | '.join(cells)} |"
            print(lines[cells[:3]], flush=True)
    if not papers:
        killed = sum(not line.endswith("| nothing |") for line in lines.values())
        PAGE.write_text(page(killed, list(lines.values())), encoding="utf-8")


def noticed(paper: str) -> str:
    """The first failure: a check of the experiment, else a test of the paper."""
    checked = run(sys.executable, "-c", CHECKS, paper)
    if checked.stdout:
        return f"check: {stable(checked.stdout)}"
    if checked.returncode:
        return "check: the experiment cannot be imported"
    tested = run(PYTEST, "-q", "-x", "-p", "no:cacheprovider", f"tests/papers/test_{paper}.py")
    if tested.returncode:
        failed = re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", tested.stdout, re.M)
        return f"test: {failed[0].replace('_', ' ') if failed else 'the tests fail'}"
    return "nothing"


def stable(said: str) -> str:
    """The message in one short line, without addresses and the last digits of numbers."""
    said = re.sub(r"<(\w+) (\S+) at 0x[0-9a-f]+>", r"\2", " ".join(said.split())).replace("|", "/")
    said = re.sub(r"\d+\.\d{4,}(?:e[+-]?\d+)?", lambda number: f"{float(number[0]):.3g}", said)
    return said if len(said) <= LONGEST else said[: said.rindex(" ", 0, LONGEST)].rstrip(" :,") + " …"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words = list(map(str, command))
    return subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def page(killed: int, lines: list[str]) -> str:
    return "\n".join(
        [
            "# Mutations of experiments",
            "",
            f"**{killed} of {len(lines)} found.** Written by `python tests/mutate.py`.",
            "",
            INTRODUCTION,
            "",
            "| paper | part | mistake | found by |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
