"""The shipped list: the reader's rows are unchanged, and every paper's facts are complete."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

PATH = Path(__file__).parents[1] / "papers.yaml"
LIST: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
PAPERS: dict[str, dict[str, Any]] = LIST["papers"]
PROSE = ("problem", "idea", "result")
# Bad habits of prose: hidden subjects, riddles with semicolons, "a lot" instead of a number.
TIRING = (
    r";|\bwhat (\w+ )*came to\b|\bwhat is (known|said)\b|\bis (said|told|asked for|looked at)\b"
    r"|\bthose of\b|\bone that\b|\bso many\b|\bas many as\b|\bnearly all of\b|\ba fraction\b"
    r"|\bbeside\b|\banew\b|\bthat is none\b"
)

# The reader's checklist. `x` is a tick, `.` is none; two spaces are one level; a line without either is
# prose.
CHECKLIST = """\
# Self notes for some research papers list
protip, use  perplexity.ai as a resource scrapper

## Optimization algorithm
x SGD - AdamW / AdamScheduleFree (cs231n) @blog
. Hessian Matrix (second order, BFGS, LBFGS etc)

## Development of language models
x Transformer (Attention is all you need)
  x Self A, Multi Head A, Cross A (Attention)
  . GPT (2018) [LLMs are multitask learners (Ilya)]
  . BERT (2018)
  . T5 (2019)
  . RoBERTa (2019)
  . Transformer-XL (2019)
  . Reformer (2020)
  . FlashAttention
  . Longformer (2020)
  . Conformers (2020)
  . ViT (2020)
  . PaLM (2022)
  . Galactia (2022)
  . Whisper (2022)
  . Persimmon (2023)
  . Fuyu (2023)
  . Mamba, S4, SSM (2023)
  . InfiniAtten (2024)
  . Grouped Query Attention
  . Sliding Window Attention

## Models
. RNN
. LSTM
. GRU
. Seq2Seq (Ilya, 2014)

## Vision
. CNN Casestudy:
  . CNN - Le - Alex - ZF - VGG - GoogleNet (inception architecture)
. Visualizing CNN techniques
  . DeepDream
. Localization and Segmentation (cs231n)
. Fast Faster Fastest?? R? - CNN's
. ResNet (residual and skip connection, research paper)
. CLIP-ResNet (read somewhere kinda interesting, mostprobably best ResNet till date? not sure)
. COCO dataset (train something)
. Multi-modality
. Generating Sequence with RNN (Alex graves, 2013)
. https://openai.com/research/weak-to-strong-generalization
. https://openai.com/research/microscope
. https://openai.com/research/language-models-can-explain-neurons-in-language-models
. Mistral of Experts
. Leave No Context Behind: Efficient Infinite Context Transformers with Infini-attention

## Image Generation
. Pixel RNN (maybe if interested)
. VAE
. GAN
. Stable Diffusion

## Reinforcement learning
. RF
. RoPE (it goes here? dont know.)

## Normalization and Regularization
. RMSNormLayer # most used, I think nowadays
@todo
. LayerNorm (research paper)

## Some research papers
x Understanding deeplearning requires rethinking generalization (research paper)-- See @notebook
. LM are Few Shot learners (https://arxiv.org/pdf/2005.14165)
. The recurrent temporal restricted boltzmann machine (research paper)-- energy model sounds interesting!
. Faster Training: Super Convergence (research paper)
. Training method: CURRICULUM LEARNING FOR LANGUAGE MODELING (research paper)

## Some resourceful repos
. https://github.com/coqui-ai/TTS?tab=readme-ov-file#model-implementations

## Tokenization
. https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
. https://arxiv.org/pdf/2207.14255.pdf
. https://arxiv.org/pdf/2304.08467.pdf
. https://www.beren.io/2023-02-04-Integer-tokenization-is-insane/

## New (saw somewhere in twitter)
. Byte-level tokenization
. LM without tokens
"""
# Parts of the checklist that are too long for a line above.
LONG = {
    "@blog": "[see blog](https://akash5100.github.io/blog/2024/04/12/Optimization_techniques.html)",
    "@notebook": "mnist_generalization [notebook](./mnist_generalization.ipynb)",
    "@todo": "(TODO: add more recently used normalization layers in chronological order, "
    "to know how one improved other for eg)",
}


def _walk(items: list[dict[str, Any]], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    for item in items:
        yield depth, item
        yield from _walk(item.get("rows", []), depth + 1)


def _as_text() -> str:
    """The list in papers.yaml, in the format of CHECKLIST."""
    lines = [f"# {LIST['title']}", LIST["note"]]
    for section in LIST["checklist"]:
        lines += ["", f"## {section['section']}"]
        lines += [section["note"]] if "note" in section else []
        for depth, item in _walk(section.get("rows", [])):
            tick = "x " if item.get("done") else ". "
            lines.append("  " * depth + (tick + item["text"] if "text" in item else item["note"]))
    return "\n".join(lines) + "\n"


ROWS = [
    (section["section"], row)
    for section in LIST["checklist"]
    for _, row in _walk(section.get("rows", []))
    if "text" in row
]


def test_the_rows_are_the_readers_in_words_order_nesting_and_ticks() -> None:
    expected = CHECKLIST
    for short, long in LONG.items():
        expected = expected.replace(short, long)
    assert _as_text().splitlines() == expected.splitlines()


def test_there_are_63_rows_in_11_sections_with_4_ticks() -> None:
    assert len(ROWS) == 63
    assert len(LIST["checklist"]) == 11
    assert sum(row.get("done", False) for _, row in ROWS) == 4


def test_every_row_names_papers_that_exist() -> None:
    for _, row in ROWS:
        assert row["papers"], row["text"]
        assert len(set(row["papers"])) == len(row["papers"]), row["text"]
        assert set(row["papers"]) <= PAPERS.keys(), row["text"]


def test_every_paper_answers_a_row_or_is_built_upon() -> None:
    named = {id_ for _, row in ROWS for id_ in row["papers"]}
    built_upon = {parent for paper in PAPERS.values() for parent in paper.get("builds_on", [])}
    assert PAPERS.keys() - named - built_upon == set()


def test_papers_stand_in_the_order_of_the_rows() -> None:
    order = dict.fromkeys(id_ for _, row in ROWS for id_ in row["papers"])
    assert list(PAPERS) == list(order)


def test_the_lineage_has_no_gap_and_no_circle() -> None:
    parents = {id_: paper.get("builds_on", []) for id_, paper in PAPERS.items()}
    for id_, ids in parents.items():
        assert set(ids) <= PAPERS.keys(), id_
        assert len(set(ids)) == len(ids), id_
    assert set(TopologicalSorter(parents).static_order()) == PAPERS.keys()


def test_no_key_occurs_twice() -> None:
    # PyYAML silently keeps the last of two equal keys.
    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value)
            assert [key for key, count in keys.items() if count > 1] == [], node.start_mark
            for _, value in node.value:
                check(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                check(value)

    root = yaml.compose(PATH.read_text(encoding="utf-8"))
    assert root is not None
    check(root)


def test_an_id_or_alias_means_one_paper() -> None:
    meaning: dict[str, str] = {}
    for id_, paper in PAPERS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", id_)
        aliases = paper.get("aliases", [])
        assert all(isinstance(alias, str) and alias == alias.strip().lower() for alias in aliases), id_
        assert len(set(aliases)) == len(aliases), id_
        assert id_ not in aliases
        for name in (id_, *aliases):
            # flash-attention, flash_attention and flashattention are the same name for a user.
            bare = re.sub(r"[^a-z0-9]", "", name)
            assert meaning.setdefault(bare, id_) == id_, name


@pytest.mark.parametrize("id_", PAPERS)
def test_every_paper_has_all_facts(id_: str) -> None:
    paper = PAPERS[id_]
    required = {"title", "authors", "year", "sources", *PROSE}
    assert required <= paper.keys() <= required | {"aliases", "builds_on"}
    for name in ("title", *PROSE):
        assert isinstance(paper[name], str)
        assert paper[name] == " ".join(paper[name].split()) != ""
    authors = paper["authors"]
    assert authors
    assert all(isinstance(author, str) and author.strip() == author != "" for author in authors)
    assert len(set(authors)) == len(authors)
    assert "et al." not in authors[:-1]
    assert type(paper["year"]) is int
    assert 1900 < paper["year"] < 2100


@pytest.mark.parametrize("id_", PAPERS)
def test_problem_idea_and_result_are_short_and_plain(id_: str) -> None:
    for name in PROSE:
        text = PAPERS[id_][name]
        assert text[0].isupper() or text[0].isdigit(), name
        assert text.endswith("."), name
        assert len(text.split()) < 60, name
        assert [found[0] for found in re.finditer(TIRING, text, re.IGNORECASE)] == [], name


@pytest.mark.parametrize("id_", PAPERS)
def test_every_source_is_well_formed(id_: str) -> None:
    forms = {
        "arxiv": r"\d{2}(0[1-9]|1[0-2])\.\d{4,5}(v[1-9]\d*)?|[a-z-]+(\.[A-Z]{2})?/\d{7}(v[1-9]\d*)?",
        "doi": r"10\.\d{4,9}/\S+",
        "pdf": r"https://[^\s/]+/\S+\.pdf",
        "page": r"https://[^\s/]+/\S+",
    }
    sources = PAPERS[id_]["sources"]
    assert sources
    for source in sources:
        (kind,) = source.keys() - {"note"}
        # An id without quotes would be parsed as a number here.
        assert isinstance(source[kind], str), source
        assert re.fullmatch(forms[kind], source[kind]), source
        assert source.get("note", "-").strip()
    values = [source[kind] for source in sources for kind in source.keys() - {"note"}]
    assert len(set(values)) == len(values)


def test_a_first_arxiv_id_gives_the_year_of_its_paper() -> None:
    for id_, paper in PAPERS.items():
        main = paper["sources"][0]
        if re.match(r"\d{4}\.", main.get("arxiv", "")):
            assert paper["year"] == 2000 + int(main["arxiv"][:2]), id_


def test_no_line_is_too_long_to_read() -> None:
    lines = PATH.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 110 or line != line.rstrip()] == []
