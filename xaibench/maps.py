"""Attribution maps on disk, as `xaibench run --keep-maps` leaves them; safetensors, never pickles.

    RUN/maps/<countermeasure>/<route>/<attributor>/<source>__<vocoder>.safetensors
                                                      values (F, T) float32; curve:fractions, curve:deletion-twin ... (S,)
    RUN/maps/truth/<truth>/<frames>/<source>__<vocoder>.safetensors
                                                      values (F, T) float32, region, valid (F, T) uint8, 0 or 1

Countermeasures may look at different lengths, so there is a truth for each number of frames. All are on the run's grid:
frequency first, positive = evidence for spoof. A curve is the spoof log-odds of the utterance while the map's largest cells
are deleted or inserted, at `fractions` of the valid cells, as the run's metrics asked for them. Every name becomes one safe
path component; the ids as they were stand in the file's metadata, with a SHA-256 of every tensor (and of the metadata) that
reading holds it against: there can be a million maps, too many for a list of checksums. Files of before have none and are
read as they are. numpy only: no torch is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xaibench import reading
from xaibench.errors import RunError, XaibenchError
from xaibench.files import in_order, whole

SUFFIX = ".safetensors"
CURVE = "curve:"
DIGEST = "sha256:"
#: Bytes of the largest file that is opened. Half an hour of speech on the default grid is 0.2 GB, its truth 0.3.
MOST_BYTES = 2**30
TRUTH = "truth"  # the folder of truths beside those of countermeasures, so no countermeasure may be called so


@dataclass(frozen=True, eq=False)
class StoredMap:
    """One file: `values` `(F, T)` float32.

    curves: `fractions` and by name (`deletion-twin`) the spoof log-odds at them, `(S,)` float64; empty where none were kept.
    """

    values: np.ndarray
    metadata: Mapping[str, str]
    curves: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredTruth(StoredMap):
    """The file of a truth: also `region` and `valid`, `(F, T)` bool."""

    region: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Kept:
    """A file of `RUN/maps` and whose map it is; pair: `source/vocoder`."""

    countermeasure: str
    route: str
    attributor: str
    pair: str
    path: Path


def component(name: str) -> str:
    """A name as one path component, reversible by `urllib.parse.unquote`. Raises XaibenchError for a path.

    >>> component("ig:steps=50"), component("grad-cam++")
    ('ig%3Asteps=50', 'grad-cam++')
    """
    if not name or name in (".", "..") or any(c in name for c in "/\\\0"):
        raise XaibenchError(f"{name!r} cannot name a file: it is empty, '..' or holds a path separator; rename the id")
    encoded = quote(name, safe="+=@, ")
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def split_pair(pair: str) -> tuple[str, str]:
    """Source and vocoder of a pair's id `source/vocoder`.

    >>> split_pair("june_fr_003/hifigan")
    ('june_fr_003', 'hifigan')
    """
    source, slash, vocoder = pair.partition("/")
    if not (source and slash and vocoder) or "/" in vocoder:
        raise XaibenchError(f"{pair!r} is not a pair's id; expected source/vocoder, like june_fr_003/hifigan")
    return source, vocoder


def map_path(run: Path, countermeasure: str, route: str, attributor: str, pair: str) -> Path:
    """Where a map is kept. Raises XaibenchError for names that are paths."""
    if countermeasure == TRUTH:
        raise XaibenchError(f"a countermeasure cannot be called {TRUTH!r}: the truth's maps stand there")
    folder = Path(run) / "maps" / component(countermeasure) / component(route) / component(attributor)
    return folder / _file(pair)


def truth_path(run: Path, truth: str, frames: int, pair: str) -> Path:
    """Where a truth of so many frames is kept. Raises XaibenchError for names that are paths."""
    return Path(run) / "maps" / TRUTH / component(truth) / str(frames) / _file(pair)


def truth_paths(run: Path, truth: str, pair: str) -> list[Path]:
    """The kept truths of a pair, one a number of frames. Raises XaibenchError for names that are paths."""
    folder = Path(run) / "maps" / TRUTH / component(truth)
    return sorted(p for p in (f / _file(pair) for f in folder.glob("*") if f.is_dir()) if os.path.exists(p))


def write_map(
    path: Path, values: object, *, metadata: Mapping[str, object], curves: Mapping[str, object] | None = None
) -> None:
    """Write a map `(F, T)` and its curves, atomically: readers see the whole file or none.

    Curves of a file that is replaced stay, where the map and the fractions are the same: a run that is continued asks for
    what it lacks only. Raises XaibenchError for values that are not a finite `(F, T)` or a curve that is not as long as its
    fractions, RunError when the file cannot be written.
    """
    path, tensors = Path(path), _checked(path, values)
    found = {name: np.ascontiguousarray(curve, dtype=np.float64) for name, curve in (curves or {}).items()}
    bad = [name for name, curve in found.items() if curve.ndim != 1 or len(curve) != len(found.get("fractions", ()))]
    if bad:
        raise XaibenchError(f"{path.name}: the curve {bad[0]} is not as long as its fractions")
    old = read_map(path) if os.path.isfile(path) else None
    if old is not None and np.array_equal(old.values, tensors["values"]):
        same = np.array_equal(old.curves.get("fractions", ()), found.get("fractions", old.curves.get("fractions", ())))
        found = {**(old.curves if same else {}), **found}
    _write(path, {**tensors, **{CURVE + name: curve for name, curve in found.items()}}, metadata)


def write_truth(path: Path, values: object, region: object, valid: object, *, metadata: Mapping[str, object]) -> None:
    """Write a truth: `values`, `region` and `valid`, each `(F, T)`. As `write_map`; masks must have the map's shape."""
    tensors = _checked(path, values)
    for name, mask in (("region", region), ("valid", valid)):
        tensors[name] = np.ascontiguousarray(np.asarray(mask).astype(bool).astype(np.uint8))
        if tensors[name].shape != tensors["values"].shape:
            raise XaibenchError(f"{Path(path).name}: {name} is {tensors[name].shape}, the map {tensors['values'].shape}")
    _write(Path(path), tensors, metadata)


def read_map(path: Path) -> StoredMap:
    """A map, or the values of a truth. Raises RunError, naming the file: missing, damaged, or not a map."""
    path = Path(path)
    tensors, metadata = _with_values(path)
    curves = {name.removeprefix(CURVE): tensors[name] for name in tensors if name.startswith(CURVE)}
    return StoredMap(values=tensors["values"], metadata=metadata, curves=_checked_curves(path, curves))


def read_truth(path: Path) -> StoredTruth:
    """A truth. Raises RunError as `read_map`, and for a map that is no truth."""
    path = Path(path)
    tensors, metadata = _with_values(path)
    if not {"region", "valid"} <= set(tensors):
        raise RunError(f"{path}: not a truth, it has no region; remove it and run again with --keep-maps")
    for name in ("region", "valid"):
        mask = tensors[name]
        if mask.dtype != np.uint8 or mask.shape != tensors["values"].shape or (mask > 1).any():
            raise RunError(
                f"{path}: {name} is {mask.dtype} {mask.shape}, expected 0 and 1 as uint8 in the shape of the truth's "
                f"values, {tensors['values'].shape}; remove it and run again with --keep-maps"
            )
    region, valid = (tensors[name].astype(bool) for name in ("region", "valid"))
    return StoredTruth(values=tensors["values"], metadata=metadata, region=region, valid=valid)


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """The curves of a kept map, without reading its cells: as `StoredMap.curves`. Raises RunError as `read_map`."""
    return _checked_curves(Path(path), _read(Path(path), CURVE)[0])


def kept(run: Path, pair: str | None = None) -> Iterator[Kept]:
    """The maps that a run kept, sorted by file: all, or those of one pair. No truths; nothing where none were kept."""
    name = f"*{SUFFIX}" if pair is None else _escape(_file(pair))
    for path in sorted((Path(run) / "maps").glob(f"*/*/*/{name}")):
        attributor, route, countermeasure = (unquote(folder.name) for folder in list(path.parents)[:3])
        if countermeasure != TRUTH:
            whose = "/".join(unquote(part) for part in path.name.removesuffix(SUFFIX).rsplit("__", 1))
            yield Kept(countermeasure, route, attributor, whose, path)


def grid_of(metadata: Mapping[str, str]) -> tuple[int, int, int, str]:
    """The grid of a stored map or truth: sample rate in Hz, n_fft and hop in samples, window.

    Raises RunError for what is not that.

    >>> grid_of({"grid": "8000/256/80/hann"})
    (8000, 256, 80, 'hann')
    """
    said = metadata.get("grid", "16000/512/160/hann")
    try:
        rate, n_fft, hop, window = said.split("/")
        return int(rate), int(n_fft), int(hop), window
    except ValueError as error:
        raise RunError(
            f"the grid of a kept map is {said[:80]!r}, expected rate/n_fft/hop/window, as 16000/512/160/hann"
        ) from error


def kept_maps(run: Path, pair: str) -> dict[tuple[str, str], dict[str, Path]]:
    """The maps of one pair: `(countermeasure, route)` -> attributor -> file, sorted by name."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for one in kept(run, pair):
        found.setdefault((one.countermeasure, one.route), {})[one.attributor] = one.path
    return found


def kept_pairs(run: Path, utterance: str) -> list[str]:
    """Ids of the pairs whose maps were kept: one for `source/vocoder`, one a vocoder for a bare `source`.

    Raises RunError when there is none, with those that there are.
    """
    run = Path(run)
    if not run.is_dir():
        raise RunError(f"{run}: no such folder; expected the --out of `xaibench run --keep-maps`")
    pairs = sorted({one.pair for one in kept(run)})
    if not pairs:
        raise RunError(f"{run}: no maps were kept; run again with --keep-maps")
    chosen = [p for p in pairs if p == utterance or p.rsplit("/", 1)[0] == utterance]
    if not chosen:
        some = ", ".join(pairs[:5]) + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")
        raise RunError(f"{run}: no map of {utterance!r} was kept; there are {some}")
    return chosen


def _with_values(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors, metadata = _read(path)
    if "values" not in tensors or tensors["values"].ndim != 2:
        raise RunError(f"{path}: holds {', '.join(sorted(tensors)) or 'nothing'}, expected a map `values` (F, T)")
    values = tensors["values"]
    if values.dtype != np.float32 or not values.size or not np.isfinite(values).all():
        raise RunError(
            f"{path}: its `values` are {values.dtype} {values.shape}, expected finite float32 (F, T) with a cell or more; "
            f"remove it and run again with --keep-maps"
        )
    return tensors, metadata


def _checked_curves(path: Path, curves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The curves of a file. Raises RunError for what `write_map` does not write."""
    steps = curves.get("fractions", np.zeros(0))
    for name, curve in curves.items():
        if curve.dtype != np.float64 or curve.ndim != 1 or curve.shape != steps.shape or not np.isfinite(curve).all():
            raise RunError(
                f"{path}: the curve {name} is {curve.dtype} {curve.shape}, expected finite float64, as many as its "
                f"fractions; remove it and run again with --keep-maps"
            )
    return dict(curves)


def _read(path: Path, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file whose names begin so, by the rest of their names, and its metadata. Raises RunError."""
    if not os.path.isfile(path):
        raise RunError(f"{path}: no such map; run again with --keep-maps")
    _check_place(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RunError(
                f"{path}: {path.stat().st_size} bytes, more than the {MOST_BYTES} of the largest map; is it a map?"
            )
        with safe_open(path, framework="numpy") as file:
            names = sorted(name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118 - not a mapping
            tensors, said = {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    # Of a type that numpy has no name for, safetensors raises whatever it meets.
    except (SafetensorError, OSError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it and run again with --keep-maps") from error
    digests = {key: said.pop(key) for key in [key for key in said if key.startswith(DIGEST)]}
    wrong = [
        name for name, tensor in tensors.items() if digests and digests.get(DIGEST + name) != _digest(name, tensor, said)
    ]
    if wrong:
        raise RunError(
            f"{path}: damaged ({wrong[0]} is not as it was written: its SHA-256 differs); "
            "remove it and run again with --keep-maps"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, said


def _check_place(path: Path) -> None:
    """Raise RunError for a file of RUN/maps that a link puts out of the run: it is not the run's, and nobody named it."""
    top = Path(*path.parts[:-5])
    if path.parts[-5:-4] == ("maps",):
        try:
            reading.Root(top)(path.relative_to(top).as_posix())
        except ValueError as error:
            raise RunError(f"{path}: a link that leads out of the run folder; put the map itself there") from error


def _checked(path: Path, values: object) -> dict[str, np.ndarray]:
    array = np.ascontiguousarray(np.asarray(values, dtype=np.float32))
    if array.ndim != 2 or array.size == 0:
        raise XaibenchError(f"{Path(path).name}: a map is (F, T), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise XaibenchError(f"{Path(path).name}: {np.count_nonzero(~np.isfinite(array))} cells are NaN or infinite")
    return {"values": array}


def _write(path: Path, tensors: dict[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    said = {k: str(v) for k, v in metadata.items()}
    digests = {DIGEST + name: _digest(name, tensor, said) for name, tensor in tensors.items()}
    with whole(path, hint="is the disk full?", flush=True) as scratch:
        scratch.write_bytes(in_order(save(tensors, metadata={**said, **digests})))


def _digest(name: str, tensor: np.ndarray, metadata: Mapping[str, str]) -> str:
    """Of one tensor, its name, type and shape, and all of the metadata."""
    head = json.dumps([name, tensor.dtype.str, tensor.shape, sorted(metadata.items())])
    return hashlib.sha256(head.encode() + np.ascontiguousarray(tensor).tobytes()).hexdigest()


def _file(pair: str) -> str:
    source, vocoder = split_pair(pair)
    if "__" in vocoder:
        raise XaibenchError(f"vocoder {vocoder!r} must not hold '__', which separates source and vocoder in file names")
    return f"{component(source)}__{component(vocoder)}{SUFFIX}"


def _escape(name: str) -> str:
    """A file name as a literal glob pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
