"""The one place that reads tables: CSV as spreadsheets, scripts and people leave it.

Blanks around names and values are taken off, numbers that are names stay text, and what parts the columns is found out.
"""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

# Columns whose values are names, also where they look like numbers: a fold "1" and a speaker "007".
NAMES = {"path", "file", "filename", "label", "emotion", "split", "corpus", "fold", "source", "recording", "sex"}
NAMES |= {"speaker", "speaker_id", "client_id", "actor_id", "subject", "participant", "person", "id"}
MISSING = {"NA", "N/A", "NaN", "nan", "NULL", "null", "None"}  # of numbers: "NA" may be a name
SEPARATORS = ",;\t|"
ENCODINGS = ("utf-8-sig", "cp1252")  # Windows' own in western Europe, with a warning: it reads nearly anything


def read(path, *, names=()) -> pd.DataFrame:
    """Read a table with a header: separated by commas, semicolons, tabs or bars.

    Parameters
    ----------
    names : sequence of str
        More columns whose values are text, whatever they look like.

    Returns
    -------
    DataFrame
        Text without blanks at its ends; empty cells are missing, and nothing else is ("NA" can be a speaker). Columns
        of numbers are numbers, but for those that hold names.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such table, it cannot be read, or two of its columns have one name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no such table: {path}")
    text = _text(path)
    if not text.strip():
        raise ValueError(f"{path} cannot be read as a table of clips: it is empty")
    rows = _rows(path, text)
    if not rows:
        raise ValueError(f"{path} cannot be read as a table of clips: it is empty")
    table = pd.DataFrame(rows[1:], columns=rows[0], dtype=object)
    twice = table.columns[table.columns.duplicated() & (table.columns != "")]
    if len(twice):
        raise ValueError(f"{path} has two columns of the name {twice[0]!r}: rename one of them")
    if "" in table:  # numbers of rows, as pandas writes them
        if not _counts_rows(table[[""]].iloc[:, 0]):
            raise ValueError(f"{path} has a column without a name that holds more than numbers of rows: name it")
        table = table.drop(columns="")
    for name in {"path", "label"} & set(table):
        broken = table[name][table[name].str.contains("\n")]
        if len(broken):
            raise ValueError(
                f"{path}: a {name} goes over several lines, {broken.iloc[0][:60]!r}: is a quote left open?"
            )
    for name in table:
        values = table[name].astype(object).where(table[name] != "", None)
        table[name] = values if name in NAMES or name in names else _numbers(values)
    return table.dropna(how="all").reset_index(drop=True)


def _counts_rows(values: pd.Series) -> bool:
    """Whether a column is empty, or numbers rows."""
    present = values[values != ""]
    return present.str.fullmatch(r"\d+").all() and present.is_unique


def _rows(path, text) -> list[list[str]]:
    """The header and the rows, of as many cells as the header has; blanks at their ends are taken off."""
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    try:
        for row in lines:
            row = [cell.strip() for cell in row]
            if not any(row):
                continue
            if not rows and any("\n" in cell for cell in row):
                raise ValueError(f"{path}: the name of a column goes over several lines: is a quote left open?")
            width = len(rows[0]) if rows else len(row)
            if any(row[width:]):
                raise ValueError(
                    f"{path}, line {lines.line_num}: {len(row)} cells, and the header has {width}; the one too many is "
                    f"{row[width]!r}: put quotes around values that hold {separator!r}"
                )
            rows.append((row + [""] * width)[:width])
    except csv.Error as error:
        quote = ": is a quote left open?" if "quote" in str(error) or "end of data" in str(error) else ""
        raise ValueError(f"{path} cannot be read as a table of clips, line {lines.line_num}: {error}{quote}") from error
    return rows


def _text(path) -> str:
    """What is in a file; UTF-16 where it begins as Excel begins it."""
    content = path.read_bytes()
    if b"\0" in content and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} cannot be read as a table of clips: it is not text; save it as CSV")
    encodings = ("utf-16",) if b"\0" in content else ENCODINGS
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "cp1252":
            warnings.warn(
                f"{path} is not UTF-8: letters beyond ASCII were read as those of western Europe", stacklevel=4
            )
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # of Windows, and of Excel for Mac
        first, _, rest = text.partition("\n")
        return rest if first.strip().lower().startswith("sep=") else text  # Excel says so how columns are parted
    raise ValueError(f"{path} cannot be read as a table of clips: save it as CSV in UTF-8")


def _separator(text) -> str:
    """What parts the columns, going by the header."""
    header = next(line for line in text.splitlines() if line.strip())
    counts = {sign: len(next(csv.reader([header], delimiter=sign))) for sign in SEPARATORS}
    return max(SEPARATORS, key=counts.get)


def _numbers(values: pd.Series) -> pd.Series:
    """A column as numbers, or truth values, where all of it can be read so, and "007" is not among them."""
    present = values.dropna()
    present = present[~present.isin(MISSING)]
    if present.empty:
        return values
    if set(present) <= {"True", "False"}:
        truth = values.map({"True": True, "False": False})
        return truth.astype(bool) if truth.notna().all() else truth
    if present.str.match(r"[+-]?0\d").any():
        return values
    try:
        return pd.to_numeric(values.where(values.notna() & ~values.isin(MISSING), None))
    except (ValueError, TypeError):
        return values
