"""What methods, metrics and libraries said while cells were computed: one small file beside the rows of each chunk.

RUN/rows/CM/ROUTE-TRUTH/ATTRIBUTOR/CHUNK.parquet       the rows
RUN/warnings/CM/ROUTE-TRUTH/ATTRIBUTOR/CHUNK.json      what was said over them; there is none where nothing was

So a row is followed to its warnings by its file's name, no table has a column that is empty in nearly every row, and a run
of any length writes no more a chunk than before. The file is written before the rows; one whose rows are not there is not
read. Each sentence stands there once, with the utterances `source/vocoder` that were at work: those of the batch, or the
single one where the batch was taken apart. No torch is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import RunError
from xaibench.files import below

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
FOLDER = "warnings"
#: By whom what neither a method nor a metric said: the countermeasure, torch, code of ours.
SCORING = "scoring"
#: Most sentences kept of a chunk.
MOST = 40
#: Methods that a sentence names before it counts.
NAMED = 5
COLUMNS = ("countermeasure", "route", "truth", "attributor", "by", "said", "utterances", "example")


@dataclass(frozen=True)
class Said:
    """A sentence, by whom (a method, `metric NAME`, or `SCORING`), and over which utterances `source/vocoder`."""

    by: str
    said: str
    utterances: tuple[str, ...]


def merged(said: Iterable[Said]) -> tuple[Said, ...]:
    """Each sentence of each speaker once, in order of appearance, with all its utterances; at most `MOST`.

    >>> merged([Said("lime", "slow", ("a/x",)), Said("lime", "slow", ("b/x", "a/x"))])
    (Said(by='lime', said='slow', utterances=('a/x', 'b/x')),)
    """
    over: dict[tuple[str, str], dict[str, None]] = {}
    for one in said:
        over.setdefault((one.by, one.said), {}).update(dict.fromkeys(one.utterances))
    every = [Said(by, text, tuple(of)) for (by, text), of in over.items()]
    if len(every) > MOST:
        rest = every[MOST - 1 :]
        of = dict.fromkeys(u for one in rest for u in one.utterances)
        every = [*every[: MOST - 1], Said(SCORING, f"and {len(rest)} more sentences", tuple(of))]
    return tuple(every)


def beside(rows: str) -> str:
    """The warnings' file of a row file, both relative to the run folder.

    >>> beside("rows/lcnn/native-eq2/lime/00000-0123456789ab.parquet")
    'warnings/lcnn/native-eq2/lime/00000-0123456789ab.json'
    """
    return str(Path(FOLDER, *Path(rows).parts[1:]).with_suffix(".json"))


def document(said: Sequence[Said], **cell: str) -> dict[str, Any]:
    """What the file says. `cell`: countermeasure, route, truth, attributor."""
    lines = [{"by": one.by, "said": one.said, "utterances": list(one.utterances)} for one in merged(said)]
    return {"schema": SCHEMA, **cell, "warnings": lines}


def read_warnings(runs: Sequence[Path]) -> pd.DataFrame:
    """What was said in some runs, one line for each cell of `COLUMNS` up to `said`; `utterances` counts them, `example` is
    one. Methods in order of name. Raises RunError naming a damaged file.
    """
    import pandas as pd

    found: dict[tuple[str, ...], dict[str, None]] = {}
    for cell, one in _every(runs):
        found.setdefault((*cell, one.by, one.said), {}).update(dict.fromkeys(one.utterances))
    lines = [(*key, len(of), min(of, default="")) for key, of in sorted(found.items())]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def said_over(run: Path, utterance: str) -> list[str]:
    """A sentence for each thing that was said over an utterance, or over one of its twins `source/vocoder`."""
    found: dict[str, None] = {}
    for (countermeasure, _, _, attributor), one in _every([run]):
        if any(utterance in (pair, pair.partition("/")[0]) for pair in one.utterances):
            found[f"{attributor} on {countermeasure}: {one.said}" + (f" ({one.by})" if one.by != attributor else "")] = None
    return sorted(found)


def _every(runs: Sequence[Path]) -> Iterator[tuple[tuple[str, str, str, str], Said]]:
    for run in map(Path, runs):
        for file in below(run / FOLDER, ".json"):
            rows = run / "rows" / file.relative_to(run / FOLDER).with_suffix(".parquet")
            if os.path.exists(rows):  # else the run was killed between the two, and its cells are computed again
                yield from _lines(file)


def _lines(file: Path) -> Iterable[tuple[tuple[str, str, str, str], Said]]:
    from xaibench.harness.results import read_object

    known = read_object(file) or {}
    try:
        if known["schema"] != SCHEMA:
            raise RunError(f"{file}: of version {known['schema']!r} of these files, expected {SCHEMA}; use its xaibench")
        a, b, c, d = (str(known[k]) for k in COLUMNS[:4])
        return [
            ((a, b, c, d), Said(str(w["by"]), str(w["said"]), tuple(map(str, w["utterances"])))) for w in known["warnings"]
        ]
    except (KeyError, TypeError) as error:
        raise RunError(f"{file}: damaged ({type(error).__name__}: {error}); remove it, nothing hangs on it") from error


def sentence(table: pd.DataFrame) -> str:
    """Who warned, of what `read_warnings` gives, in one sentence; "" where nobody did."""
    return who(table.groupby("attributor")["utterances"].max().to_dict()) if len(table) else ""


def who(methods: Mapping[str, int]) -> str:
    """The same of methods and over how many utterances each did.

    >>> who({"lime": 3, "kernel-shap": 1}), who({})
    ('2 methods warned: kernel-shap (1 utterance), lime (3 utterances).', '')
    """
    names = [f"{name} ({n} utterance{'' if n == 1 else 's'})" for name, n in sorted(methods.items())]
    rest = len(names) - NAMED
    listed = ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{len(names)} method{'' if len(names) == 1 else 's'} warned: {listed}." if names else ""
