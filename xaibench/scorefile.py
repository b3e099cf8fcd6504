"""The score files of the ASVspoof challenges, read and written a line at a time.

    2019 countermeasure scores   UTTERANCE ATTACK KEY SCORE      LA_E_1234567 A07 spoof -3.2   (ATTACK "-" for bona fide)
    2021 countermeasure scores   UTTERANCE SCORE                 LA_E_1234567 -3.2             (keys apart)
    2021 keys                    trial_metadata.txt of a track: LA has 8 columns, PA 12, DF 13
    2019 keys                    the protocol: SPEAKER UTTERANCE - ATTACK KEY
    2019 ASV scores              SOURCE KEY SCORE                A07 spoof 1.9   (KEY target, nontarget or spoof)
    2021 ASV scores              SPEAKER TRIAL SCORE, line by line as the ASV folder's trial_metadata.txt

Columns are separated by white space; empty lines are skipped. Higher countermeasure scores are more bona fide, higher ASV
scores more the claimed speaker. Every error names file and line. Readers hold one line, and the names they have seen where
a name may come once only. Source: ASVspoof 2019 (`evaluate_tDCF_asvspoof19.py`, README of the LA set) and 2021
(`eval-package`: config.py, LA and DF `evaluate.py`).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from xaibench import reading
from xaibench.errors import XaibenchError
from xaibench.reading import shown

#: Columns of a file with keys: how many it has -> where (name, attack, key, subset) stand; None where it has none.
_KEY_COLUMNS = {
    5: (1, 3, 4, None),  # 2019 protocol
    8: (1, 4, 5, 7),  # 2021 LA
    12: (1, None, 9, 11),  # 2021 PA: replay has rooms and microphones, no attack names
    13: (1, 4, 5, 7),  # 2021 DF
}
_DF_VOCODER = 8  # the column by which the 2021 DF track is broken down


@dataclass(frozen=True, slots=True)
class Trial:
    """One utterance and its countermeasure score. `attack` is "bonafide" for bona fide speech, as `Utterance.vocoder`."""

    utterance: str
    attack: str
    score: float

    @property
    def bonafide(self) -> bool:
        return self.attack == "bonafide"


@dataclass(frozen=True, slots=True)
class Key:
    """What a keys file says of an utterance; `subset` is progress, eval or hidden in 2021, "" in 2019."""

    attack: str
    subset: str = ""


@dataclass(frozen=True, slots=True)
class AsvTrial:
    """One ASV score. `key` is target, nontarget or spoof; `attack` the attack of a spoof, "" where the file names none."""

    attack: str
    key: str
    score: float


def read_trials(path: Path, *, keys: Mapping[str, Key] | None = None, subset: str | None = None) -> Iterator[Trial]:
    """Stream a countermeasure's score file, 2019 or 2021, told apart by the columns of its first line.

    keys: of a 2021 file, by `read_keys`. subset: only trials of that subset (as progress, eval, hidden); others are passed
    over. With keys, every trial of the subset must have a score: a rate over some of the trials is not the set's.

    Raises XaibenchError, naming file and line: a missing or further column, a score that is no finite number, a name that
    came before, a key other than bonafide or spoof, a name the keys do not hold, trials without a score (at the end), an
    empty file, a 2021 file without keys.
    """
    seen: dict[str, int] = {}
    columns = 0
    for line, cells in _lines(path):
        columns = columns or len(cells)
        if columns not in (2, 4):
            raise _wrong(
                path, line, f"{len(cells)} columns ({shown(' '.join(cells), 60)})",
                "4 (UTTERANCE ATTACK KEY SCORE) or 2 (UTTERANCE SCORE), divided by white space, not by commas",
            )  # fmt: skip
        if columns == 2 and keys is None:
            raise _wrong(
                path, line, "2 columns, so no keys", "the keys beside it (--keys: trial_metadata.txt or the protocol)"
            )
        _check_columns(path, line, cells, columns)
        name, score = cells[0], _number(path, line, cells[-1])
        if name in seen:
            raise _wrong(path, line, f"a second score of {shown(name)}", f"one for each; the first is on line {seen[name]}")
        seen[name] = line
        attack = _attack(path, line, cells[1], cells[2]) if columns == 4 else ""
        if keys is not None:
            key = keys.get(name)
            if key is None:
                raise _wrong(
                    path, line, f"utterance {shown(name)}, which the keys do not hold", "keys of the same track and split"
                )
            if columns == 4 and (key.attack == "bonafide") != (attack == "bonafide"):
                raise _wrong(path, line, f"{shown(name)} as {cells[2]}", f"what the keys say, {shown(key.attack)}")
            if subset is not None and key.subset != subset:
                continue
            attack = key.attack
        yield Trial(name, attack, score)
    if not seen:
        raise XaibenchError(f"{path}: no scores in it; was the run that wrote it stopped?")
    _check_complete(path, seen, keys, subset)


def _check_complete(path: Path, seen: Mapping[str, int], keys: Mapping[str, Key] | None, subset: str | None) -> None:
    wanted = [n for n, k in (keys or {}).items() if subset is None or k.subset == subset]
    if keys is not None and not wanted:
        known = ", ".join(sorted({k.subset for k in keys.values()} - {""}))[:200] or "none"
        raise XaibenchError(f"{path}: the keys have no trial of subset {subset!r}; their subsets: {known}")
    missing = [n for n in wanted if n not in seen]
    if missing:
        raise XaibenchError(
            f"{path}: no score for {len(missing)} of {len(wanted)} trials of the keys, the first {shown(missing[0])}; score "
            f"them all, or choose the subset that was scored"
        )


def read_keys(path: Path, *, by: str = "attack") -> dict[str, Key]:
    """Name -> key, from a 2021 `trial_metadata.txt` (LA, PA, DF) or a 2019 protocol, told apart by their columns.

    by: "attack", or "vocoder" for the kinds of vocoder by which the 2021 DF track is broken down.
    Raises XaibenchError, naming file and line: another number of columns, an unknown key, a name that came before.
    """
    if by not in ("attack", "vocoder"):
        raise XaibenchError(f"keys by {by!r}, expected 'attack' or 'vocoder'")
    keys: dict[str, Key] = {}
    columns = 0
    for line, cells in _lines(path):
        columns = columns or len(cells)
        if columns not in _KEY_COLUMNS:
            raise _wrong(path, line, f"{columns} columns", "5 (2019 protocol), 8 (2021 LA), 12 (2021 PA) or 13 (2021 DF)")
        if by == "vocoder" and columns != 13:
            raise _wrong(path, line, f"{columns} columns", "13, the DF track of 2021: only its keys name kinds of vocoder")
        _check_columns(path, line, cells, columns)
        name, attack, key, subset = (cells[i] if i is not None else "" for i in _KEY_COLUMNS[columns])
        if by == "vocoder":
            attack = cells[_DF_VOCODER]
        if name in keys:
            raise _wrong(path, line, f"a second key of {shown(name)}", "one an utterance")
        keys[name] = Key(sys.intern(_attack(path, line, attack or "replay", key)), sys.intern(subset))
    if not keys:
        raise XaibenchError(f"{path}: no keys in it; is it the right file?")
    return keys


def format_trial(trial: Trial, *, layout: str = "2019") -> str:
    """One line of a score file, with its line end; the score as Python's shortest number that reads back the same.

    Raises XaibenchError for a name that is empty or holds white space, a score that is not finite, another layout.

    >>> format_trial(Trial("LA_E_1234567", "A07", -3.2))
    'LA_E_1234567 A07 spoof -3.2\\n'
    >>> format_trial(Trial("LA_E_7654321", "bonafide", 4.0), layout="2021")
    'LA_E_7654321 4.0\\n'
    """
    for name in (trial.utterance, trial.attack):
        if not name or name.split() != [name]:
            raise XaibenchError(
                f"utterance {trial.utterance!r} of {trial.attack!r}: names in a score file are not empty and hold no white "
                f"space"
            )
    if not math.isfinite(trial.score):
        raise XaibenchError(f"utterance {trial.utterance!r}: score {trial.score!r}, expected a finite number")
    score = repr(float(trial.score))
    if layout == "2021":
        return f"{trial.utterance} {score}\n"
    if layout != "2019":
        raise XaibenchError(f"score file layout {layout!r}, expected '2019' or '2021'")
    system, key = ("-", "bonafide") if trial.bonafide else (trial.attack, "spoof")
    return f"{trial.utterance} {system} {key} {score}\n"


def write_trials(path: Path, trials: Iterable[Trial], *, layout: str = "2019") -> Path:
    """Write a score file, atomically, a trial at a time. Raises as `format_trial`, and where it cannot be written."""
    path = Path(path)
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        with scratch.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(format_trial(trial, layout=layout) for trial in trials)
        os.replace(scratch, path)
    except OSError as error:
        raise XaibenchError(f"{path}: cannot be written ({error.strerror}); does its folder exist?") from error
    finally:
        scratch.unlink(missing_ok=True)
    return path


def read_asv(path: Path) -> Iterator[AsvTrial]:
    """Stream the organisers' ASV scores of 2019: SOURCE KEY SCORE, SOURCE an attack (A07), "bonafide" or just "spoof".

    Raises XaibenchError, naming file and line: another number of columns, an unknown key, a score that is no finite number.
    """
    for line, cells in _lines(path):
        _check_columns(path, line, cells, 3, "SOURCE KEY SCORE")
        yield _asv_trial(path, line, cells[0], cells[1], cells[2])


def read_asv_2021(path: Path, keys: Path, *, subset: str | None = "eval") -> Iterator[AsvTrial]:
    """Stream the ASV scores of 2021: SPEAKER TRIAL SCORE, beside the `trial_metadata.txt` of the ASV folder.

    The two go line by line, as in the evaluation package, and here their first two columns must agree. subset: only trials
    of it; None takes all. Raises as `read_asv`, and where the files disagree.
    """
    for scored, known in zip_longest(_lines(path), _lines(keys)):
        if scored is None or known is None:
            shorter, longer, line = (path, keys, known[0]) if scored is None else (keys, path, scored[0])
            raise XaibenchError(f"{shorter}: ends before line {line} of {longer}; both have one line a trial")
        line, cells = scored
        at, facts = known
        _check_columns(path, line, cells, 3, "SPEAKER TRIAL SCORE")
        if len(facts) not in (8, 12):
            raise _wrong(keys, at, f"{len(facts)} columns", "8 (LA) or 12 (PA)")
        if cells[:2] != facts[:2]:
            found, wanted = (shown(" ".join(both[:2])) for both in (cells, facts))
            raise _wrong(path, line, f"the trial {found}", f"{wanted}, line {at} of {keys}")
        _, attack, key, where = _KEY_COLUMNS[len(facts)]
        if subset is None or (where is not None and facts[where] == subset):
            yield _asv_trial(path, line, facts[attack] if attack is not None else "spoof", facts[key], cells[2])


def _asv_trial(path: Path, line: int, source: str, key: str, score: str) -> AsvTrial:
    if key not in ("target", "nontarget", "spoof"):
        raise _wrong(path, line, f"key {shown(key)}", "target, nontarget or spoof; is this a file of ASV scores?")
    attack = sys.intern(source) if key == "spoof" and source not in ("spoof", "-") else ""
    return AsvTrial(attack, sys.intern(key), _number(path, line, score))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of every line that is not empty."""
    for line, text in reading.lines(path, XaibenchError, what="text file"):
        if cells := text.split():
            yield line, cells


def _check_columns(path: Path, line: int, cells: list[str], wanted: int, names: str = "") -> None:
    if len(cells) != wanted:
        expected = f"{wanted} ({names})" if names else f"{wanted}, as on the first line"
        raise _wrong(path, line, f"{len(cells)} columns ({shown(' '.join(cells), 60)})", expected)


def _attack(path: Path, line: int, attack: str, key: str) -> str:
    if key not in ("bonafide", "spoof"):
        raise _wrong(path, line, f"key {shown(key)}", "bonafide or spoof; is there a header, or another order of columns?")
    if key == "bonafide":
        return "bonafide"
    if attack == "bonafide":
        raise _wrong(path, line, "attack 'bonafide' with key 'spoof'", "the two to agree")
    return "spoof" if attack == "-" else attack


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = reading.number(text)
    except ValueError:
        expected = "a number; is there a header, or another order of columns?"
        raise _wrong(path, line, f"score {shown(text)}", expected) from None
    if not math.isfinite(value):
        raise _wrong(path, line, f"score {text!r}", "a finite number; the model that made it diverged on this recording")
    return value


def _wrong(path: Path, line: int, found: str, expected: str) -> XaibenchError:
    return XaibenchError(f"{path}:{line}: {found}, expected {expected}")
