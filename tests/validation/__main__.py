"""Write the table of docs/validation.md: `python -m tests.validation`, which takes long; `--draws 100` for a glimpse."""

import argparse
from pathlib import Path

from . import framework, sweeps, words

DOCUMENT = Path(__file__).parents[2] / "docs" / "validation.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def main():
    """Run the scenarios that are asked for, print their table, and keep that of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, help="data sets for each row, instead of each one's own number")
    parser.add_argument("--only", default="", help="the beginning of the test's name")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    every = [*sweeps.SCENARIOS, *words.SCENARIOS]
    some = [one for one in every if one.test.startswith(asked.only)]
    text = framework.written(framework.table(some, draws=asked.draws, jobs=asked.jobs))
    print(text)
    if len(some) == len(every) and asked.draws is None:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
