"""Creates a home with many papers and runs, for measuring the app and the commands.

    python tests/big_home.py FOLDER [--papers 10000] [--runs 5000]

Titles, authors and notes consist of random words with a fixed seed. Every tenth paper has a note, and every
fifth an abstract.
"""

from __future__ import annotations

import argparse
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

SYLLABLES = [
    "ra",
    "ne",
    "to",
    "li",
    "ko",
    "ma",
    "ser",
    "vin",
    "gra",
    "dal",
    "pen",
    "tor",
    "mi",
    "su",
    "lex",
    "nor",
    "fa",
    "bri",
    "ton",
    "qua",
    "zel",
    "hum",
]
STATES = ("todo", "reading", "read", "implemented", "skipped")
START = datetime(2024, 1, 1, tzinfo=UTC)


def words(rng: random.Random, vocabulary: list[str], count: int) -> str:
    # Few words are frequent and many are rare, as in natural language.
    return " ".join(
        vocabulary[min(int(rng.paretovariate(0.7)) - 1, len(vocabulary) - 1)] for _ in range(count)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--papers", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5_000)
    asked = parser.parse_args()
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    home = asked.folder
    for name in ("notes", "metadata", "runs"):
        (home / name).mkdir(parents=True, exist_ok=True)
    papers(home, rng, vocabulary, asked.papers)
    runs(home, rng, asked.papers, asked.runs)


def papers(home: Path, rng: random.Random, vocabulary: list[str], count: int) -> None:
    rows: list[str] = []
    blocks: list[str] = []
    journal: list[str] = []
    for number in range(count):
        if number % 100 == 0:
            rows += [f"  - section: {words(rng, vocabulary, 2)} {number // 100}", "    rows:"]
        title, id_ = words(rng, vocabulary, 7), f"paper_{number}"
        rows += [f"      - text: {title}", f"        papers: [{id_}]"]
        parents = sorted({f"paper_{rng.randrange(number)}" for _ in range(2)}) if number else []
        blocks += [
            f"  {id_}:",
            f"    title: {title}",
            f"    authors: [{', '.join(sorted({words(rng, vocabulary, 3) for _ in range(3)}))}]",
            f"    year: {1990 + number % 36}",
            f'    sources: [{{arxiv: "{15 + number // 12 % 10}{number % 12 + 1:02}.{number:05}"}}]',
            f"    builds_on: [{', '.join(parents)}]",
            f"    idea: {words(rng, vocabulary, 25)}",
        ]
        when = START + timedelta(minutes=number * 97)
        entry = {"at": when.isoformat(), "id": f"{number:08x}", "paper": id_, "state": rng.choice(STATES)}
        journal.append(json.dumps(entry))
        if number % 10 == 0:
            (home / "notes" / f"{id_}.md").write_text(words(rng, vocabulary, 60) + "\n", encoding="utf-8")
        if number % 5 == 0:
            abstract = json.dumps({"abstract": words(rng, vocabulary, 150)})
            (home / "metadata" / f"{id_}.json").write_text(abstract, encoding="utf-8")
    text = "\n".join(["title: A big list", "checklist:", *rows, "papers:", *blocks])
    (home / "papers.yaml").write_text(text + "\n", encoding="utf-8")
    (home / "journal.jsonl").write_text("\n".join(journal) + "\n", encoding="utf-8")


def runs(home: Path, rng: random.Random, papers: int, count: int) -> None:
    """Copies of the run that the app's tests replay, with other names and dates."""
    from readtrack.runs.store import load, write_result

    recorded = Path(__file__).parents[1] / "tests" / "tui" / "recorded"
    texts = {name: (recorded / name).read_text(encoding="utf-8") for name in ("events.jsonl", "job.json")}
    old = json.loads(texts["job.json"])["run_id"]
    for number in range(count):
        when, paper = START + timedelta(minutes=7 * number), f"paper_{rng.randrange(papers)}"
        run = f"{when:%Y%m%d-%H%M%S}-{paper}-{number % 65536:04x}"
        folder = home / "runs" / run
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            named = text.replace(old, run).replace('"adam"', f'"{paper}"')
            (folder / name).write_text(named, encoding="utf-8")
        if "result.json" not in texts:  # created once, then copied like the other files
            write_result(folder, load(folder))
            written = (folder / "result.json").read_text(encoding="utf-8")
            texts["result.json"] = written.replace(run, old).replace(f'"{paper}"', '"adam"')


if __name__ == "__main__":
    main()
