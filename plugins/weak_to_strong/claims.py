"""The claims about students of weak teachers, and the breaks with which they must fail."""

from readtrack.plugin import UNTRAINED, Break, Claim, Figure, at_least, flat

NO_PRETRAINING = Break("no pre-training", "The strong student's features are random.", "near miss")
TEACHERS_ANSWERS = Break(
    "trusts the teacher",
    "The student is trained towards the teacher's hardened predictions instead of its own.",
    "near miss",
)
NOBODY_BETWEEN = Break(
    "nobody in between",
    "Labels from another strong student replace those from the student of intermediate size.",
    "near miss",
)
ALL_PIXELS = Break(
    "all pixels", "The student is a linear probe on all 64 pixels, without any features.", "rival"
)
NEIGHBOURS = Break(
    "nearest neighbours",
    "The student averages the teacher's labels of the 20 nearest transfer images, compared by their pixels.",
    "rival",
)
SECOND_ROUND = Break(
    "labelled twice",
    "The student learns from the predictions of another student of the same size, "
    "which was trained on the teacher's labels.",
    "rival",
)

SETTING = (
    "The gap is computed from mean accuracies over the teachers. The task is to tell whether a digit "
    "is odd. Teachers are probes on 20 random pixels, trained on 100 digits. The student is a linear "
    "probe. Its features were trained to classify 500 digits into ten classes, which also "
    "determine the parity (the leakage that section 6 of the paper warns of). The images are "
    "small, there is no language task, and the features are not tuned together with the probe."
)

LEARNED = (
    "Until November 2026 nothing checked that the control had learned its task, or that 719 test digits "
    'were enough for a precise result. The break "untrained" had to be run by hand. The bounds are '
    "unchanged."
)

NO_FEATURES_NEEDED = (
    "Until November 2026 there was no rival that averages the teacher's labels of similar images, and the "
    'verdict was "reproduced" (4 of 5 seeds, same bound). With five other seeds, this rival recovers 0.26 to '
    "0.60 more of the gap than the control, without any pre-training."
)

BEATS_ITS_TEACHER = Claim(
    name="student and weak teacher",
    seeded_as="beats its teacher",
    sentence="A strong student trained on a weak teacher's labels becomes more accurate than the teacher, "
    "while a student that sees only the teacher's pixels does not.",
    paper=Figure(
        "With AlexNet as the teacher, linear probes on DINO's features recover 57 % (ViT) and 67 % "
        "(ResNet) of the gap, computed from the accuracies in the authors' repository. Its first version "
        "gave 42 and 58 %.",
        read="secondary",
    ),
    rule=(
        at_least(
            "gap recovered",
            "weak labels",
            0.08,
            minus="teacher's kind",
            toward=0.01,
            called="gap recovered, strong student - the teacher's kind",
        ),
    ),
    control="a probe on the teacher's own pixels, trained on the same labels",
    control_arm="teacher's kind",
    learned=(flat("teacher's kind"),),
    breaks=(NO_PRETRAINING, ALL_PIXELS, UNTRAINED),
    chosen_on=(0, 1),
    deviations=SETTING,
    headline=True,
    history=(LEARNED,),
)

TRUSTS_ITSELF = Claim(
    name="confidence loss and weak labels alone",
    seeded_as="trusts itself",
    sentence="A student that is also trained towards its own hardened predictions recovers more of the "
    "performance gap than a student trained on the weak labels alone.",
    paper=Figure(
        "The median gap recovered rises from about 25 % to nearly 80 % on language tasks, for the widest "
        "gap between models.",
        where="figure 5",
        read="text",
    ),
    rule=(
        at_least(
            "gap recovered",
            "confidence loss",
            0.05,
            minus="weak labels",
            toward=0.01,
            called="gap recovered, confidence loss - weak labels alone",
        ),
        at_least(
            "gap recovered",
            "confidence loss",
            0.03,
            minus="teacher's, hardened",
            toward=0.005,
            called="gap recovered, its own predictions - the teacher's, hardened",
        ),
    ),
    control="the same student with the same learning rate and number of epochs, trained on the weak labels "
    "alone. In a second control the teacher's hardened labels replace the student's own hardened "
    "predictions, because half of the gain comes from hardening alone",
    control_arm="weak labels",
    learned=(flat("weak labels"),),
    breaks=(TEACHERS_ANSWERS, SECOND_ROUND, UNTRAINED),
    chosen_on=(0, 1),
    deviations=f"{SETTING} The student's own predictions have a weight of 1/2, as in the paper for all "
    "but the largest models.",
    history=(LEARNED,),
)

KNEW_BEFORE = Claim(
    name="pre-trained and random features",
    seeded_as="knew it before",
    sentence="A student on pre-trained features recovers more of the performance gap than a student on "
    "random features, so the labels elicit abilities acquired in pre-training.",
    paper=Figure("This is the authors' explanation. They give no number.", where="section 1", read="text"),
    rule=(
        at_least(
            "gap recovered",
            "weak labels",
            0.1,
            minus="untrained features",
            toward=0.02,
            called="gap recovered, trained - untrained features",
        ),
    ),
    control="the same probe on the randomly initialised features",
    control_arm="untrained features",
    learned=(flat("untrained features"),),
    breaks=(NO_PRETRAINING, ALL_PIXELS, NEIGHBOURS, UNTRAINED),
    chosen_on=(0, 1),
    deviations=SETTING,
    history=(LEARNED, NO_FEATURES_NEEDED),
)

BOOTSTRAPPING = Claim(
    name="labels through an intermediate student",
    seeded_as="a student in between",
    sentence="The strong student recovers more of the performance gap with labels passed on by a student "
    "of intermediate size than with the teacher's own labels or with labels passed on by another "
    "strong student.",
    paper=Figure(
        "Bootstrapping helps for chess puzzles, but little for language. We did not look up the numbers.",
        where="section 4.3.1",
        read="secondary",
    ),
    rule=(
        at_least(
            "gap recovered",
            "bootstrapped",
            0.03,
            minus="weak labels",
            toward=0.005,
            called="gap recovered, bootstrapped - weak labels alone",
        ),
        at_least(
            "gap recovered",
            "bootstrapped",
            0.02,
            minus="relabelled",
            toward=0.005,
            called="gap recovered, bootstrapped - relabelled by a strong student",
        ),
    ),
    control="the strong student, trained on labels passed on by another strong student",
    control_arm="relabelled",
    learned=(flat("relabelled"),),
    breaks=(NOBODY_BETWEEN, UNTRAINED),
    no_rival="The cheapest rival, labels passed on by another strong student, is part of the rule.",
    chosen_on=(0, 1),
    deviations=f"{SETTING} There is one intermediate student, with a quarter of the hidden size.",
    history=(LEARNED,),
)
