"""Make the bundled sample corpus: synthetic emotional speech with known factors (see data/README.md).

    python data/recipes/make_sample.py                     # all of data/sample, about a minute
    python data/recipes/make_sample.py --only 1 2          # some actors only
    python data/recipes/make_sample.py --card              # then measure the clips and print the data card's tables

Every clip has random generators of its own, so that order and company never change a sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import pandas as pd
import prosody
import soundfile
import synthesis
from tqdm.auto import tqdm

COLUMNS = ["file", "actor", "sex", "split", "emotion", "intensity", "statement", "repetition", "subset", "varied"]


def recipes(actors=tuple(prosody.VOICES)):
    """One row per clip: who says what how, and to which file."""
    rows = []
    for actor, emotion, intensity, statement in prosody.cells():
        rows.append(
            (
                actor,
                emotion,
                intensity,
                statement,
                1,
                "main",
                "",
                "",
                prosody.factors(actor, emotion, intensity, statement),
            )
        )
    for actor, repetition, varied, factors in prosody.one_factor_cells():
        rows.append((actor, "neutral", "normal", 1, repetition, "one_factor", varied, "one_factor/", factors))
    table = []
    for actor, emotion, intensity, statement, repetition, subset, varied, folder, factors in rows:
        name = (
            f"03-01-{prosody.EMOTIONS.index(emotion) + 1:02d}"
            f"-{list(prosody.INTENSITY).index(intensity) + 1:02d}"
            f"-{statement:02d}-{repetition:02d}-{actor:02d}.flac"
        )
        file = f"{folder}Actor_{actor:02d}/{name}"
        if actor in actors:
            table.append(
                dict(
                    zip(
                        COLUMNS,
                        (
                            file,
                            actor,
                            prosody.sex(actor),
                            prosody.split(actor),
                            emotion,
                            intensity,
                            statement,
                            repetition,
                            subset,
                            varied,
                        ),
                    ),
                    **factors,
                )
            )
    return pd.DataFrame(table)


def render(recipe):
    """Samples and phonemes of one row of `recipes`; one-factor rows of a voice share their draws."""
    cell = (
        (0, 0, 1)
        if recipe["subset"] == "one_factor"
        else (
            prosody.EMOTIONS.index(recipe["emotion"]),
            list(prosody.INTENSITY).index(recipe["intensity"]),
            recipe["statement"],
        )
    )
    return synthesis.clip(
        recipe["actor"], recipe["statement"], {name: recipe[name] for name in prosody.FACTORS}, (recipe["actor"], *cell)
    )


def write(recipe, out):
    """Write one clip; returns its rows of phonemes.csv."""
    samples, phonemes = render(recipe)
    path = Path(out) / recipe["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, synthesis.RATE, subtype="PCM_16", format="FLAC", compression_level=1.0)
    return [(recipe["file"], *row) for row in phonemes]


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "sample")
    parser.add_argument("--only", type=int, nargs="+", metavar="ACTOR", default=list(prosody.VOICES))
    parser.add_argument("--card", action="store_true", help="measure the clips and print the data card's tables")
    parser.add_argument("--jobs", type=int, default=4)
    options = parser.parse_args()
    synthesis.espeak()  # fail here, in one line, rather than in a worker
    table = recipes(tuple(options.only))
    jobs = (joblib.delayed(write)(row, options.out) for row in table.to_dict("records"))
    phonemes = list(tqdm(joblib.Parallel(options.jobs, return_as="generator")(jobs), total=len(table), unit="clip"))
    table.to_csv(options.out / "factors.csv", index=False)
    pd.DataFrame(
        [row for rows in phonemes for row in rows], columns=["file", "start", "end", "phoneme", "word"]
    ).to_csv(options.out / "phonemes.csv", index=False)
    if options.card:
        import card

        card.show(options.out, options.jobs)


if __name__ == "__main__":
    main()
