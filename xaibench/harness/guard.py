"""What a plugin's code may not touch while it runs in our process: shared tensors, torch's settings, the surroundings.

Whatever a method or a foreign metric does, the next one finds the process as it was. Changing a setting of torch is an
error, as numbers of others hang on it; the rest (environment, working directory, module path, numpy's error settings,
numpy's and Python's generators) is put back and noted, because importing a library late changes it as well. What is
printed and warned is caught and goes into the record. torch's own generator is left to the preflight, whose check it is.

None of this helps against code that hangs or ends the process: that needs a process of its own (`xaibench.harness.isolate`),
which learns from `watched` whose code runs.
"""

from __future__ import annotations

import copy
import io
import os
import random
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaibench.errors import XaibenchError, first_line
from xaibench.settings import restore, settings
from xaibench.view import View

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: Most sentences of warnings that are kept of a call, most that are told apart, and most characters of what it prints.
MOST_WARNINGS, MOST_COUNTED, MOST_PRINTED = 20, 10_000, 500


def private_tensors(view: View) -> View:
    """The same view with copies of every tensor, so that writing into one changes nobody else's numbers."""

    def own(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.clone()

    truth = view.truth and replace(
        view.truth,
        values=view.truth.values.clone(),
        region=view.truth.region.clone(),
        valid=view.truth.valid.clone(),
        added=own(view.truth.added),
    )
    return replace(
        view, inputs=view.inputs.clone(), fills={n: t.clone() for n, t in view.fills.items()},
        references=view.references.clone(), energy=own(view.energy), prior=own(view.prior), truth=truth,
        recordings=own(view.recordings),
    )  # fmt: skip


def private_evidence(evidence: Evidence) -> Evidence:
    """The same evidence with copies of all that was measured, for a metric that is not ours; the model is shared."""
    view = evidence.probe.view
    shared = [*view.model.modules(), view.passes, evidence.again]
    return copy.deepcopy(evidence, {id(thing): thing for thing in shared})


def surroundings() -> dict[str, Any]:
    """What else everybody in the process shares, by name."""
    return {
        "working directory": _folder(),
        "environment variables": dict(os.environ),
        "sys.path": list(sys.path),
        "numpy's error settings": np.geterr(),
        "recursion limit": sys.getrecursionlimit(),
        "signal handlers": {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)},
    }


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it
        return ""


def put_back(surroundings: Mapping[str, Any]) -> None:
    """Make them again what `surroundings()` found."""
    with suppress(OSError):  # a folder that is gone
        os.chdir(surroundings["working directory"] or os.curdir)
    wanted = surroundings["environment variables"]
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in wanted.items() if os.environ.get(name) != value})
    sys.path[:] = surroundings["sys.path"]
    np.seterr(**surroundings["numpy's error settings"])
    sys.setrecursionlimit(surroundings["recursion limit"])
    with suppress(ValueError):  # only the main thread may, and only it could change them
        for number, handler in surroundings["signal handlers"].items():
            if handler is not None:  # else it is not Python's
                signal.signal(number, handler)


#: Variables that torch and scikit-learn set when their parts are first imported, by whichever method happens to be first.
AT_IMPORT = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}


def _at_import(before: object, after: object) -> bool:
    """Whether two sets of environment variables differ by these only: put back like the rest, and nobody's to be noted."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    return {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} <= AT_IMPORT


class _Paper(io.TextIOBase):
    """Takes what is printed, keeps its beginning, counts the rest.

    Of a line that is written over, as progress bars are, only the last form counts: how often one is drawn is the clock's.
    """

    def __init__(self) -> None:
        self._whole, self._line, self._past, self._over = "", "", 0, False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for piece in re.split(r"([\r\n])", text):
            if piece == "\n":
                self._keep()
            elif piece == "\r":
                self._over = True
            elif piece:
                self._line = piece if self._over else self._line + piece
                self._over = False
            if len(self._line) > 100 * MOST_PRINTED:  # no line that anybody reads
                self._keep("")
        return len(text)

    def _keep(self, end: str = "\n") -> None:
        line = lasting(self._line) + end
        self._whole += line[: max(MOST_PRINTED - len(self._whole), 0)]
        self._past += len(line)
        self._line, self._over = "", False

    def read_off(self) -> tuple[str, int]:
        """The beginning, and how many characters there were."""
        if self._line:
            self._keep("")
        return _visible(self._whole).strip(), self._past


@dataclass
class Noise:
    """What a plugin said and moved while it ran, in sentences for the record; complete when its block is left."""

    sentences: tuple[str, ...] = ()
    _warned: _Warned = field(default_factory=lambda: _Warned())
    _paper: _Paper = field(default_factory=_Paper)

    def settle(self, moved: list[str]) -> None:
        """Take stock."""
        lines = self._warned.sentences()
        text, size = self._paper.read_off()
        if text:
            more = f" ... ({size} characters)" if size > MOST_PRINTED else ""
            lines.append(f"printed: {text}{more}")
        lines += [f"changed the process' {name}; it was put back" for name in moved]
        self.sentences = tuple(lines)


class _Warned:
    """Every different warning once, however often it comes: a loop may warn a million times."""

    def __init__(self) -> None:
        self.said: dict[str, None] = {}

    def __call__(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """In the place of `warnings.showwarning`."""
        if len(self.said) < MOST_COUNTED:
            self.said[lasting(f"{category.__name__}: {first_line(message)}")] = None

    def sentences(self) -> list[str]:
        """The first of them, and how many more there were."""
        lines = list(self.said)[:MOST_WARNINGS]
        if len(self.said) > len(lines):
            least = "at least " if len(self.said) == MOST_COUNTED else ""
            lines.append(f"and {least}{len(self.said) - len(lines)} more warnings")
        return lines


#: What differs between two runs that say the same: addresses in memory, clocks and speeds of progress bars.
_PASSING = ((re.compile(r"\b0x[0-9a-fA-F]{4,}\b"), "0x..."), (re.compile(r"\[\d+:\d\d[^\]\n]*\]"), "[...]"))


def lasting(text: str) -> str:
    """A sentence without what differs each time.

    >>> lasting("<Net object at 0x7f21a4c0d2b0> 100%|##| 10/10 [00:01<00:00, 8.31it/s]")
    '<Net object at 0x...> 100%|##| 10/10 [...]'
    """
    for pattern, instead in _PASSING:
        text = pattern.sub(instead, text)
    return text


#: Who listens, innermost last: see `listening`.
_ears: list[dict[tuple[str, str], None]] = []


@contextmanager
def listening(otherwise: str) -> Iterator[dict[tuple[str, str], None]]:
    """Within the block whatever is said is noted, each once: pairs of speaker and sentence, complete when the block is left.

    The speaker is the name given to `guarded`, or `otherwise` where no plugin's block is open. torch's own warnings that
    come once a process come each time here: else they would be in the record of the cell that happened to be first.
    """
    ear: dict[tuple[str, str], None] = {}
    stray, always = _Warned(), torch.is_warn_always_enabled()
    _ears.append(ear)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = stray  # type: ignore[assignment]
            yield ear
    finally:
        torch.set_warn_always(always)
        _ears.pop()
        ear.update(dict.fromkeys((otherwise, said) for said in stray.sentences()))


def _visible(text: str) -> str:
    """Without what would move a cursor, or is no character."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


#: Whose code runs, innermost last: its name and how many utterances it was given.
_running: list[tuple[str, int]] = []
_tell: Callable[[str, int], None] | None = None


@contextmanager
def watched(tell: Callable[[str, int], None]) -> Iterator[None]:
    """Within the block `tell(name, utterances)` is called when a plugin's code begins, and `tell("", 0)` when it ends."""
    global _tell
    before, _tell = _tell, tell
    try:
        yield
    finally:
        _tell = before


def _say() -> None:
    if _tell is not None:
        _tell(*(_running[-1] if _running else ("", 0)))


@contextmanager
def contained(name: str, instead: str) -> Iterator[None]:
    """Within the block what would end the process becomes an XaibenchError that says what to do instead; Ctrl-C passes."""
    try:
        yield
    except SystemExit as error:
        raise XaibenchError(f"{name} called sys.exit({first_line(error.code)}); {instead}") from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        what = first_line(error)
        raise XaibenchError(f"{name} raised {type(error).__name__}, which is meant to end the process: {what}") from error


@contextmanager
def guarded(name: str, *, utterances: int = 1) -> Iterator[Noise]:
    """Within the block a plugin's code runs, on so many utterances. Gives what it says, once the block is left.

    Raises XaibenchError when it changed a process-wide setting of torch (after restoring it), called `sys.exit`, or raised
    something else that is meant to end the process.
    """
    noise, before, around, process = Noise(), settings(), surroundings(), os.getpid()
    generators = random.getstate(), np.random.get_state()
    _running.append((name, utterances))
    _say()
    try:
        with (
            contained(name, "a method returns a map or raises"),
            warnings.catch_warnings(),
            redirect_stdout(noise._paper),
            redirect_stderr(noise._paper),
        ):
            warnings.simplefilter("always")
            warnings.showwarning = noise._warned  # type: ignore[assignment]
            yield noise
    finally:
        if os.getpid() != process:
            os.kill(os.getpid(), signal.SIGKILL)  # a child that the plugin forked: two would write into one folder
        _running.pop()
        _say()
        after, there = settings(), surroundings()
        changed = [k for k, v in before.items() if after[k] != v]
        moved = [k for k, v in around.items() if there[k] != v]
        if changed:
            restore(before)
        if moved:
            put_back(around)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        noise.settle([k for k in moved if not _at_import(around[k], there[k])])
        if _ears:
            _ears[-1].update(dict.fromkeys((name, said) for said in noise.sentences))
    if changed:
        raise XaibenchError(f"{name} changed torch's {' and '.join(changed)} for the whole process; it was restored")
