"""Write the golden arrays: `python -m tests.golden`; `--force` overwrites, `--only sweep` writes one section."""

import argparse
import time

from . import record, store


def main():
    """Write what is asked for, unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="overwrite the arrays that are there")
    parser.add_argument("--only", action="append", choices=list(record.SECTIONS), help="these sections only")
    asked = parser.parse_args()
    sections = asked.only or list(record.SECTIONS)
    there = [section for section in sections if store.path(section).exists()]
    if there and not asked.force:
        parser.error(f"golden arrays are made once, and there are those of {', '.join(there)}: --force overwrites them")
    for section in sections:
        began = time.process_time()
        store.write(record.found(section), store.path(section))
        seconds, size = time.process_time() - began, store.path(section).stat().st_size
        print(f"{section}: {seconds:.1f} s, {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
