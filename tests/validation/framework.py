"""Estimate how often a test has a false positive, and how often it finds a planted effect."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

LEVEL = 0.05
KEY = ["test", "data without effect", "speakers"]
COLUMNS = [*KEY, "draws", "looks", "false positives", "upper bound", "level", "power", "at"]
BATCH = 20  # data sets made at a time
MOST = 0.065  # upper bound of the share of false positives, up to which a test holds its level


@dataclass(frozen=True)
class Scenario:
    """A test, and data to try it on.

    `run(generators, speakers=, effect=, **design)` makes a data set with each generator of random numbers and gives the
    p values, [data set, test], of tests of which nothing is true (`effect` 0), or of those of what is planted. The tests
    of a data set count as one: its p is the least of them, so a family is to be given as corrected for its size.
    """

    test: str
    data: str
    run: Callable
    speakers: tuple = (8, 16, 24)
    design: dict = field(default_factory=dict)
    effect: float = 0.0  # what is planted for the power; 0 for none
    planted: str = ""  # that in words
    draws: int = 2000
    limit: str = ""  # why the level cannot be held, where it cannot and the library says so


def bound_of(p) -> float:
    """Upper bound of the share of p below 0.05 among those that are finite; NaN where none is."""
    tested = np.isfinite(p)
    return upper_bound(int((p[tested] < LEVEL).sum()), int(tested.sum())) if tested.any() else np.nan


def each(run) -> Callable:
    """What makes several data sets, of `run(rng, **design)`, which makes one."""

    def several(generators, **design):
        return [run(rng, **design) for rng in generators]

    return several


def least_p(scenario, speakers, draws, *, effect=0.0, seed=0) -> np.ndarray:
    """The least p of each of `draws` data sets, NaN where nothing could be tested."""
    of_scenario = zlib.crc32(f"{scenario.test}, {scenario.data}".encode())
    seeds = [[seed, of_scenario, draw, speakers, int(1000 * effect)] for draw in range(draws)]
    generators = [np.random.default_rng(one) for one in seeds]
    found = []
    for start in range(0, draws, BATCH):
        some = generators[start : start + BATCH]
        p = np.asarray(scenario.run(some, speakers=speakers, effect=effect, **scenario.design), float)
        tested = np.isfinite(p).any(axis=1)
        found.append(np.where(tested, np.where(np.isfinite(p), p, np.inf).min(axis=1), np.nan))
    return np.concatenate(found)


def upper_bound(hits, draws) -> float:
    """Upper 97.5 % bound of a share, of `hits` in `draws` (Clopper and Pearson, one-sided)."""
    return 1.0 if hits == draws else float(stats.beta.ppf(0.975, hits + 1, draws - hits))


def row(scenario, speakers, draws) -> dict:
    """A row of the table.

    An exact test whose level is 4.9 % has a bound above 6.5 % in one of eight rows of 2,000 data sets, by chance. So a row
    that does not show its level to be held is made again, of four times as many other data sets, which then count alone.
    Two looks, each with a bound at 97.5 %, call a level held that is not in 5 % of cases, or fewer.
    """
    p = least_p(scenario, speakers, draws)
    looks = 1
    if not scenario.limit and bound_of(p) > MOST:
        p, looks = least_p(scenario, speakers, 4 * draws, seed=1), 2
    tested, bound = np.isfinite(p), bound_of(p)
    share = np.mean(p[tested] < LEVEL) if tested.any() else np.nan
    power = np.nan
    if scenario.effect:
        power = np.mean(least_p(scenario, speakers, max(draws // 8, 20), effect=scenario.effect) < LEVEL)
    hits = int((p[tested] < LEVEL).sum())
    least = stats.beta.ppf(0.025, hits, tested.sum() - hits + 1) if hits else 0.0
    said = "holds" if bound <= MOST else "too often" if least > LEVEL else "not known"
    if bound < LEVEL / 2:
        said = "conservative"
    if scenario.limit and said in ("too often", "not known"):
        said = f"a limit: {scenario.limit}"
    return {
        "test": scenario.test,
        "data without effect": scenario.data,
        "speakers": speakers,
        "draws": int(tested.sum()),
        "looks": looks,
        "false positives": share,
        "upper bound": bound,
        "level": said if tested.any() else "no test",
        "power": power,
        "at": scenario.planted or (f"{scenario.effect:g} SD of clips" if scenario.effect else ""),
    }


def rows(scenarios, *, draws=None, jobs=2, left_out=()):
    """Yield a row for each scenario and number of speakers, in their order; `draws` instead of each one's own."""
    asked = [(one, n, draws or one.draws) for one in scenarios for n in one.speakers]
    asked = [(one, n, many) for one, n, many in asked if (one.test, one.data, n) not in left_out]
    yield from Parallel(n_jobs=jobs, return_as="generator")(delayed(row)(*one) for one in asked)


def table(scenarios, *, draws=None, jobs=2) -> pd.DataFrame:
    """All rows."""
    return pd.DataFrame(rows(scenarios, draws=draws, jobs=jobs))


def key(row) -> tuple:
    """What tells a row from others."""
    return tuple(row[name] for name in KEY)


def kept(path) -> pd.DataFrame:
    """The rows that were kept in a file, by their keys; none where there is no file."""
    found = pd.DataFrame(columns=COLUMNS)
    if path.exists():
        found = pd.read_csv(path, keep_default_na=False, na_values={"power": [""]})
    return found.set_index(pd.MultiIndex.from_frame(found[KEY]))


def written(found) -> str:
    """The table in Markdown, shares in per cent."""
    shown = found.copy()
    for name in ("false positives", "upper bound"):
        shown[name] = shown[name].map("{:.1%}".format)
    shown["power"] = shown["power"].map(lambda x: "" if np.isnan(x) else f"{x:.0%}")
    lines = [f"| {' | '.join(shown.columns)} |", f"|{'---|' * shown.shape[1]}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, line))} |" for line in shown.to_numpy())])
