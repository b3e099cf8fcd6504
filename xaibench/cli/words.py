"""What is typed after an option: names, assignments, folders, weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench import reading
from xaibench.errors import RunError, XaibenchError

if TYPE_CHECKING:
    from xaibench.harness.engine import Engine


#: `--cm-set`, and the form of its values.
CM_SET = ("--cm-set", 'CM.OPTION=VALUE, as in tca.kinds=["tts","vc"]')


def split_names(names: str) -> list[str]:
    """
    >>> split_names("a, b,")
    ['a', 'b']
    """
    return [n.strip() for n in names.split(",") if n.strip()]


def checkpoints_of(assignments: list[str], cms: list[str]) -> dict[str, str]:
    """`lcnn=FILE` -> {"lcnn": "FILE"}; a bare FILE belongs to the only countermeasure."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, mark, file = assignment.partition("=")
        if not mark or "/" in name:
            if len(cms) != 1 or cms == ["all"]:
                raise XaibenchError(f"--checkpoint {assignment!r}: with several countermeasures expected NAME=FILE")
            name, file = cms[0], assignment
        found[name] = file
    return found


def cm_options(cms: Sequence[str], assignments: list[str], ssl: Path | None) -> dict[str, dict[str, Any]]:
    """Options of countermeasures: `tca.kinds=[...]`, and `--ssl` for every one of `cms` that takes it."""
    options = options_of(assignments, *CM_SET)
    stray = sorted(set(options) - set(cms))
    if stray:
        raise XaibenchError(f"--cm-set names {', '.join(stray)}; this command has {', '.join(cms)}")
    if ssl is None:
        return options
    from xaibench.harness.request import with_encoder

    return with_encoder(options, cms, ssl)


def options_of(
    assignments: list[str], flag: str = "--set", form: str = "METHOD.OPTION=VALUE, as in integrated-gradients.steps=50"
) -> dict[str, dict[str, Any]]:
    """`grad-cam.layer=backend.mfm_15` -> {"grad-cam": {"layer": ...}}; values are JSON where they parse, else text."""
    options: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        place, mark, text = assignment.partition("=")
        method, dot, option = place.rpartition(".")
        if not mark or not dot:
            raise XaibenchError(f"{flag} {assignment!r}: expected {form}")
        try:
            value = reading.parsed(os.fsencode(text))
        except ValueError:  # text; a number of 5,000 digits, brackets without end
            value = text
        options.setdefault(method, {})[option] = value
    return options


def weight_of(text: str, flag: str, example: str) -> tuple[str, float]:
    """`NAME=WEIGHT` with a positive number. Raises XaibenchError that names the flag."""
    name, mark, number = text.partition("=")
    try:
        weight = float(number) if mark else -1.0
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise XaibenchError(f"{flag} {text!r}: expected NAME=WEIGHT with a positive number, as in {example}")
    return name, weight


def roots_of(folders: list[str], data: str) -> str | dict[str, str] | None:
    """`--root DIR`, `--root main=DIR --root bonafide=DIR`, or `--root minivoc-train=DIR`, as `train` writes it."""
    found: dict[str, str] = {}
    for folder in folders:
        name, mark, path = folder.partition("=")
        if not mark or "/" in name:
            name, path = "main", folder
        found["main" if name == Path(data).stem else name] = path
    return (found.get("main") if set(found) == {"main"} else found) or None


def roots_of_each(folders: list[str], data: list[str]) -> dict[str, str | dict[str, str]]:
    """`--root minivoc-train=DIR`, and `--root vocv4=DIR --root vocv4/bonafide=DIR` where a data set has further roots."""
    found: dict[str, dict[str, str]] = {}
    for text in folders:
        place, mark, folder = text.partition("=")
        name, _, part = place.partition("/")
        if not mark or name not in data:
            raise XaibenchError(
                f"--root {text!r}: expected NAME=FOLDER, or NAME/ROOT=FOLDER for a further root, with NAME one of "
                f"{', '.join(data)}"
            )
        found.setdefault(name, {})[part or "main"] = folder
    return {name: roots["main"] if set(roots) == {"main"} else roots for name, roots in found.items()}


def batch_size_of(text: str) -> int | None:
    """`--batch-size`: a whole number, of utterances a chunk and of inputs at a time; None for `auto`, which measures the
    second and takes a constant of the device for the first. Raises XaibenchError.

    >>> batch_size_of("8"), batch_size_of("auto")
    (8, None)
    """
    if text != "auto" and not (text.isdigit() and int(text) > 0):
        raise XaibenchError(f"--batch-size {text!r}: expected `auto` or a whole number of at least 1")
    return None if text == "auto" else int(text)


def engine_of(name: str, scheduler: str | None, workers: int | None, apart: dict[str, Any] | None = None) -> Engine:
    """The engine of `--engine`, with its own options. Raises RunError for options of another engine.

    apart: the options of `--isolate`; None without it.
    """
    from xaibench.harness.engine import Engine

    if apart is not None:
        from xaibench.harness.isolate import Isolated

        if name != "local" or scheduler is not None:
            raise RunError("--isolate and --cell-timeout start processes here; they do not go with --engine dask")
        return Isolated(workers=workers or 1, **apart)
    if name == "dask":
        from xaibench.cli.output import note
        from xaibench.harness.cluster import PATIENCE, DaskEngine

        if scheduler is not None and workers is not None:
            raise RunError("--workers starts processes here, --scheduler uses those of a cluster; give one of them")
        if scheduler is not None:
            note(f"asking {scheduler} for its workers (for up to {PATIENCE:.0f} s)")
        return DaskEngine(scheduler, workers=workers)
    if name != "local":
        raise RunError(f"unknown engine {name!r}; expected local or dask")
    if scheduler is not None or workers is not None:
        given, engines = ("scheduler", "dask") if scheduler is not None else ("workers", "dask or --isolate")
        raise RunError(f"--{given} is for --engine {engines}; add it")
    return Engine()
