"""The claims about masks and training steps, and the breaks with which they must fail."""

from readtrack.plugin import UNTRAINED, Bound, Break, Claim, Figure, at_least, at_most

SIZE = Claim(
    name="the released size",
    sentence="The base configuration has the same number of parameters as the released encoder.",
    paper=Figure(
        "BERT-base has 110M parameters, and 50K subwords add about 15M. The released encoder has 124,645,632",
        where="sections 4 and 4.4",
        read="text",
    ),
    rule=(Bound("parameters", "==", 124_645_632),),
    kind="identity",
)

SAME_MASK = Break("one static mask", "Instead of fresh masks, each text has one mask in all passes.")
TWO_MASKS = Break("two static masks", "Each text has two masks, which alternate.", "near miss")
DROPOUT = Break(
    "one static mask with dropout", "Each text has one mask, and the dropout rate is 0.1.", "rival"
)
COUNTED = Break(
    "topics without a network",
    "A topic mixture is fitted to the same texts by expectation maximisation, without masks. The number "
    "of topics and the initialisation are chosen on the validation texts. The mixture has the form of the "
    "process that made the texts: one topic for each text.",
    "rival",
)
MIXED = Break(
    "longer on mixed texts",
    "After the steps of the shorter training, words are mixed across the texts of each batch.",
    "near miss",
)
TOPICS_OF_NEW = Break(
    "topics of new texts",
    "A topic mixture is fitted to as many texts as the shorter training reads, by expectation maximisation "
    "without masks. The number of topics and the initialisation are chosen on the validation texts. The "
    "mixture has the form of the process that made the texts: one topic for each text.",
    "rival",
)

TOY = (
    "We train one layer of hidden size 64, without dropout, on an artificial language. Each model uses the "
    "best of three learning rates and the best checkpoint on validation texts. The paper evaluates "
    "fine-tuned models on tasks. We evaluate the loss on masked words. We leave out the paper's other "
    "changes: larger batches, byte-pair tokens, ten times as much text, and the removal of next-sentence "
    "prediction. "
)
ONE_BEFORE = 'Until November 2026 the verdict was "reproduced", with the same bounds. '
TOPICS_JOIN = (
    "A topic mixture was added as a rival, because it sees the same texts and needs neither masks nor a "
    "network. On seeds 0 and 1, its loss is at least 1.2 nats lower than the network's with one mask, and "
    "0.9 nats lower than the network's with ten masks."
)

VARIED = Claim(
    name="dynamic masking against one static mask",
    sentence="After 40 passes over a corpus, a model trained with fresh masks has a lower loss on held-out "
    "texts than a model trained with a single mask for each text. One rival, a topic mixture, also meets "
    "both bounds.",
    paper=Figure(
        "BERT's authors stored ten masks for each text, to avoid using the same mask in every pass",
        where="section 4.1",
        read="text",
    ),
    rule=(
        at_most("nats", "fresh masks", -0.15, minus="one mask", toward=0.0),
        at_most("nats", "fresh masks", -0.1, minus="unigram", toward=0.0),
    ),
    control="the same training with one mask per text. Both models use their best learning rate and "
    "checkpoint",
    control_arm="one mask",
    control_reaches=(at_most("nats", "ten masks", -0.05, minus="unigram"),),
    breaks=(SAME_MASK, TWO_MASKS, DROPOUT, COUNTED, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations=TOY + "There are 200 texts and 40 passes. The paper does not compare with a single mask.",
    history=(
        ONE_BEFORE + "The near miss with two masks per text and the rival with dropout are new.",
        TOPICS_JOIN,
    ),
)

FRESH = Claim(
    name="dynamic masking against ten static masks",
    sentence="After 40 passes over a corpus, the loss on held-out texts is at most 0.05 nats higher for a "
    "model trained with fresh masks than for a model trained with ten stored masks. Fresh masks need no "
    "stored copies of the texts. One rival, a topic mixture, also meets the bound.",
    paper=Figure(
        "On SQuAD 2.0, MNLI and SST-2, static masking reaches 78.3, 84.3 and 92.5, and dynamic masking 78.7, "
        "84.0 and 92.9",
        where="section 4.1, table 1",
        read="table",
    ),
    rule=(at_most("nats", "fresh masks", 0.05, minus="ten masks"),),
    guards=(at_least("copies of the corpus stored", "ten masks", 10.0, over="fresh masks"),),
    control="the same training with ten masks per text, each of which is used four times. Both models use "
    "their best learning rate and checkpoint",
    control_arm="ten masks",
    control_reaches=(at_most("nats", "ten masks", -0.05, minus="unigram"),),
    breaks=(SAME_MASK, TWO_MASKS, DROPOUT, COUNTED, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations=TOY + "There are 200 texts and 40 passes.",
    history=(
        ONE_BEFORE + "The number of copies follows from the construction, so this bound is now a guard.",
        TOPICS_JOIN,
    ),
)

UNDERTRAINED = Claim(
    name="loss after 120 and 480 steps",
    sentence="On held-out texts, the same network has a lower loss on masked words after 480 steps than "
    "after 120 steps.",
    paper=Figure(
        "MNLI accuracy is 89.3, 90.0 and 90.2 after 100K, 300K and 500K steps on 160 GB of text",
        where="section 5, table 4",
        read="table",
    ),
    rule=(at_most("nats", "longer training", -0.2, minus="shorter training", toward=0.0),),
    control="the same training for a quarter of the steps. Both models use their best learning rate and "
    "checkpoint",
    control_arm="shorter training",
    control_reaches=(at_most("nats", "shorter training", -0.05, minus="unigram"),),
    breaks=(MIXED, TOPICS_OF_NEW, UNTRAINED),
    chosen_on=(0, 1, 2),
    headline=True,
    deviations=TOY + "Training takes 120 or 480 steps from scratch. Most models have not converged after "
    "so few steps, so the result says nothing about BERT's million steps. The abstract states that BERT was "
    "undertrained.",
    history=(
        ONE_BEFORE + "The break that stopped the longer training early was identical to the control. Two "
        "breaks replace it: repeated texts and larger batches.",
        (
            'Until 27 November 2026 the verdict was "not specific" (same bound), because larger batches also '
            "met the bound. However, larger batches are part of the paper's recipe, and so are repeated "
            "texts, which the paper's model reads many times. A topic mixture and mixed texts replace them. "
            "There were 60 and 240 steps, and after 60 steps the network was no better than the words' "
            "frequencies on one of five seeds. The condition on the control is new."
        ),
    ),
)
