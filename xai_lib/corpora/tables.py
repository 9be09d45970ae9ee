"""Reading of tables: CSV files as written by spreadsheets, scripts and people; used wherever a table is read.

Blanks around names and values are removed, numbers that are names stay text, and the separator is detected.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

# Columns whose values are names, even where they look like numbers: a fold "1" and a speaker "007".
NAMES = {"path", "file", "filename", "label", "emotion", "split", "corpus", "fold", "recording", "sex"}
NAMES |= {"speaker", "speaker_id", "client_id", "actor_id", "subject", "participant", "person", "id"}
# Missing values in columns of numbers; elsewhere "NA" may be a name.
MISSING = {"NA", "N/A", "NaN", "nan", "NULL", "null", "None"}
SEPARATORS = ",;\t|"
ENCODINGS = ("utf-8-sig", "cp1252")  # cp1252 (Windows, western Europe) decodes nearly anything, so with a warning


def read(path: str | Path, *, names: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table with a header, separated by commas, semicolons, tabs or bars.

    Parameters
    ----------
    names : sequence of str
        More columns whose values are text, whatever they look like.

    Returns
    -------
    DataFrame
        Text without blanks at its ends; only empty cells are missing ("NA" can be a speaker). Columns of numbers are
        converted to numbers, except those that hold names.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such table, it cannot be read, or two of its columns have the same name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such table: {path}")
    text = _text(path)
    if not text.strip():
        raise ValueError(f"{path} cannot be read as a table: it is empty")
    rows = _rows(path, text)
    if not rows:
        raise ValueError(f"{path} cannot be read as a table: it is empty")
    table = pd.DataFrame(rows[1:], columns=rows[0], dtype=object)
    duplicates = table.columns[table.columns.duplicated() & (table.columns != "")]
    if len(duplicates):
        raise ValueError(f"{path} has two columns named {duplicates[0]!r}: rename one of them")
    if "" in table:  # row numbers, as written by pandas
        if not _holds_row_numbers(table[[""]].iloc[:, 0]):
            raise ValueError(f"{path} has a column without a name that does not hold row numbers: name it")
        table = table.drop(columns="")
    for name in {"path", "label"} & set(table):
        _require_single_lines(path, table[name])

    for name in table:
        values = table[name].astype(object).where(table[name] != "", None)
        is_text = name in NAMES or name in names
        table[name] = values if is_text else _to_numbers(values)
    return table.dropna(how="all").reset_index(drop=True)


def _require_single_lines(path, values: pd.Series):
    """Raise ValueError where a cell of a column holds several lines."""
    multiline = values[values.str.contains("\n")]
    if len(multiline):
        raise ValueError(
            f"{path}: a {values.name} spans several lines, {multiline.iloc[0][:60]!r}: is a closing quote missing?"
        )


def _holds_row_numbers(values: pd.Series) -> bool:
    """Return whether a column is empty, or holds row numbers."""
    present = values[values != ""]
    return present.str.fullmatch(r"\d+").all() and present.is_unique


def _rows(path, text) -> list[list[str]]:
    """Return the header and the rows, with as many cells as the header has and without blanks at their ends."""
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    try:
        for line in lines:
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            if not rows and any("\n" in cell for cell in cells):
                raise ValueError(f"{path}: the name of a column spans several lines: is a closing quote missing?")

            width = len(rows[0]) if rows else len(cells)
            if any(cells[width:]):
                raise ValueError(
                    f"{path}, line {lines.line_num}: {len(cells)} cells, but the header has {width}; the first extra "
                    f"cell is {cells[width]!r}: put quotes around values that contain {separator!r}"
                )
            padding = [""] * (width - len(cells))
            rows.append(cells[:width] + padding)
    except csv.Error as error:
        hint = ""
        if "quote" in str(error) or "end of data" in str(error):
            hint = ": is a closing quote missing?"
        raise ValueError(f"{path} cannot be read as a table, line {lines.line_num}: {error}{hint}") from error
    return rows


def _text(path) -> str:
    """Return the text of a file, decoded as UTF-16 where it begins with a byte order mark, as written by Excel."""
    content = path.read_bytes()
    if b"\0" in content and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} cannot be read as a table: it is not text; save it as CSV")
    encodings = ("utf-16",) if b"\0" in content else ENCODINGS
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            warnings.warn(
                f"{path} is not UTF-8: decoded as cp1252 (western Europe); if letters are wrong, save it as UTF-8",
                stacklevel=4,
            )
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # line ends of Windows, and of Excel for Mac
        first_line, _, remainder = text.partition("\n")
        # Excel may name the separator in a first line.
        return remainder if first_line.strip().lower().startswith("sep=") else text
    raise ValueError(f"{path} cannot be read as a table: its encoding is not known; save it as CSV in UTF-8")


def _separator(text) -> str:
    """Return the separator that divides the header into the most columns."""
    header = next(line for line in text.splitlines() if line.strip())
    n_columns = {}
    for separator in SEPARATORS:
        n_columns[separator] = len(next(csv.reader([header], delimiter=separator)))
    return max(n_columns, key=n_columns.get)


def _to_numbers(values: pd.Series) -> pd.Series:
    """Convert a column to numbers or booleans, where all values can be, and none has leading zeros like "007"."""
    present = values.dropna()
    present = present[~present.isin(MISSING)]
    if present.empty:
        return values
    if set(present) <= {"True", "False"}:
        booleans = values.map({"True": True, "False": False})
        return booleans.astype(bool) if booleans.notna().all() else booleans
    if present.str.match(r"[+-]?0\d").any():
        return values
    try:
        return pd.to_numeric(values.where(values.notna() & ~values.isin(MISSING), None))
    except (ValueError, TypeError):
        return values
