"""Write the table of docs/validation.md: `python -m tests.validation`, which takes hours; `--draws 100` for a glimpse."""

import argparse
from pathlib import Path

from . import framework, readings, sweeps, words

DOCUMENT = Path(__file__).parents[2] / "docs" / "validation.md"
ROWS = DOCUMENT.with_suffix(".csv")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def main():
    """Run the scenarios that are asked for, keep each row as soon as it is there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, help="data sets for each row; then rows are shown, and not kept")
    parser.add_argument("--only", default="", help="the beginning of the test's name")
    parser.add_argument("--go-on", action="store_true", help="leave out the rows that are there")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    some = [one for one in every() if one.test.startswith(asked.only)]
    if asked.draws is not None:
        print(framework.written(framework.table(some, draws=asked.draws, jobs=asked.jobs)))
        return
    kept = framework.kept(ROWS)
    left_out = set(kept.index) if asked.go_on else set()
    for row in framework.rows(some, jobs=asked.jobs, left_out=left_out):
        kept.loc[framework.key(row)] = row
        kept.to_csv(ROWS, index=False)
        write(kept)


def every():
    """All scenarios."""
    return [*sweeps.SCENARIOS, *readings.SCENARIOS, *words.SCENARIOS]


def write(rows):
    """Put the rows, in the order of the scenarios, into the document."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    order = [(one.test, one.data, n) for one in every() for n in one.speakers]
    text = framework.written(rows.loc[[key for key in order if key in rows.index]])
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
