"""The terms of claims and benchmarks, explained once for both front ends."""

from __future__ import annotations

WORDS: dict[str, str] = {
    "claim": "A sentence of the paper as a rule that was fixed before the run: metric, threshold, control.",
    "control": "The arm that the paper's arm is compared with, tuned on the same grid.",
    "validation score": "The held-out score by which an arm's learning rate or other setting is chosen.",
    "reaches": "A bound that the control must reach. If it does not, the comparison is not judged.",
    "guard": "A condition that holds by construction. It is checked and does not count as evidence.",
    "held, missed": "The verdict of one run with one seed.",
    "reproduced": "The means over 5, 10 or 20 seeds clear all bounds with 95 % one-sided confidence. "
    "docs/method.md in the repository explains how, and states the error rates.",
    "unsteady": "Reproduced, but fewer than three in four seeds satisfy the rule individually.",
    "not specific": "Reproduced, but a rival in place of the paper's arm passes the same rule. The "
    "claim is true here, but not because of the idea.",
    "weak": "The effect has the right sign but does not reach the threshold.",
    "inconclusive": "After 20 seeds, the claim is neither reproduced nor excluded.",
    "earlier": "Measured by the previous procedure, with 5 or 10 seeds, and counted separately.",
    "not judged": "The run was too short or shared the machine, or its control had not learned.",
    "null run": "A run in which every arm is the control. Its claims must not hold.",
    "break": "A run with a change that removes the idea. The claims that name the break must fail.",
    "near miss": "A break that removes only what the paper calls essential, and leaves the rest.",
    "rival": "The strongest cheap method with the same information, used in place of the paper's arm.",
    "differs": "How the run's set-up differs from the paper's: smaller data, another model, fewer steps.",
    "edited": "The run used a copy of the code that you changed. It is not evidence for the shipped paper.",
    "exact": "An identity or a theorem that held, up to rounding. It does not count as evidence.",
    "edge": "The best value lies at the end of the grid: a wider grid might have found a better one.",
    "vs best": "Speed relative to the fastest free implementation in the same run. Above 1 is faster.",
    "closeness": "The share of the ceiling, in percent: how close the time is to the machine's best.",
    "ceiling": "The shortest possible time at this machine's measured compute and memory rates.",
    "contended": "Other programs used the machine during the measurement, so the time doesn't count.",
    "±": "Half of the 95 % interval of the median time, in percent.",
}
