"""Count how often a test calls chance an effect, and how often it finds a planted one."""

from dataclasses import dataclass, field
from typing import Callable

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import stats

LEVEL = 0.05
MOST = 0.065  # upper bound of the share of false positives, up to which a test holds its level


@dataclass(frozen=True)
class Scenario:
    """A test, and data to try it on.

    `run(rng, speakers=, effect=, **design)` makes one data set and gives the p values, [test], of tests of which nothing
    is true (`effect` 0), or of those of what is planted. They count as one: p of the data set is the least of them, so
    a family of tests is to be given as corrected for its size.
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


def least_p(scenario, speakers, draws, *, effect=0.0, seed=0) -> np.ndarray:
    """The least p of each of `draws` data sets, NaN where nothing could be tested."""
    found = np.full(draws, np.nan)
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw, speakers, int(1000 * effect)])
        p = np.asarray(scenario.run(rng, speakers=speakers, effect=effect, **scenario.design), float)
        if np.isfinite(p).any():
            found[draw] = np.nanmin(p)
    return found


def upper_bound(hits, draws) -> float:
    """Upper 95 % bound of a share, of `hits` in `draws` (Clopper and Pearson, one-sided)."""
    return 1.0 if hits == draws else float(stats.beta.ppf(0.95, hits + 1, draws - hits))


def row(scenario, speakers, draws) -> dict:
    """A row of the table."""
    p = least_p(scenario, speakers, draws)
    tested = np.isfinite(p)
    hits = int((p[tested] < LEVEL).sum())
    bound = upper_bound(hits, int(tested.sum())) if tested.any() else np.nan
    share = hits / max(int(tested.sum()), 1)
    power = np.nan
    if scenario.effect:
        power = np.mean(least_p(scenario, speakers, max(draws // 8, 20), effect=scenario.effect) < LEVEL)
    said = "holds" if bound <= MOST else "too often"
    if bound < LEVEL / 2:
        said = "conservative"
    if said == "too often" and scenario.limit:
        said = f"a limit: {scenario.limit}"
    return {
        "test": scenario.test,
        "data without effect": scenario.data,
        "speakers": speakers,
        "draws": int(tested.sum()),
        "false positives": share,
        "upper bound": bound,
        "": said if tested.any() else "no test",
        "power": power,
        "at": scenario.planted or (f"{scenario.effect:g} SD of clips" if scenario.effect else ""),
    }


def table(scenarios, *, draws=None, jobs=2) -> pd.DataFrame:
    """A row for each scenario and number of speakers; `draws` instead of each one's own."""
    asked = [(one, n, draws or one.draws) for one in scenarios for n in one.speakers]
    return pd.DataFrame(Parallel(n_jobs=jobs)(delayed(row)(*one) for one in asked))


def written(found) -> str:
    """The table in Markdown, shares in per cent."""
    shown = found.copy()
    for name in ("false positives", "upper bound"):
        shown[name] = shown[name].map("{:.1%}".format)
    shown["power"] = shown["power"].map(lambda x: "" if np.isnan(x) else f"{x:.0%}")
    lines = [f"| {' | '.join(shown.columns)} |", f"|{'---|' * shown.shape[1]}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, line))} |" for line in shown.to_numpy())])
