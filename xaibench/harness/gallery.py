"""The pictures of a run: opens the recordings behind kept maps and hands them to `xaibench.figures`."""

from __future__ import annotations

from pathlib import Path

from xaibench import audio, figures, maps, registry
from xaibench.errors import RunError
from xaibench.harness.results import Store
from xaibench.manifest import pairs


def draw(run: Path, utterance: str, out: Path) -> list[Path]:
    """One PNG for each kept twin of `utterance` ("source" or "source/vocoder"). Returns the paths.

    Raises RunError for a folder that is no run or kept no map of that utterance, and what reading its audio raises.
    """
    stamp = Store(run).read_json("run.json")
    if stamp is None:
        raise RunError(f"{run}: not a run folder (no run.json)")
    spec = stamp["spec"]
    corpus = registry.load("datasets", spec["data"]).open(Path(spec["root"]) if spec["root"] else None)
    by_id = {p.id: p for p in pairs(corpus)}
    lengths = {facts["card"].get("n_samples") for facts in stamp["countermeasures"].values()}
    written: list[Path] = []
    for name in maps.kept_pairs(run, utterance):
        if name not in by_id:
            raise RunError(f"{run}: holds maps of {name!r}, which {corpus.name} does not have; was the data set changed?")
        halves = [
            audio.read(u.path, sample_rate=corpus.sample_rate) for u in (by_id[name].bonafide, by_id[name].spoof)
        ]  # fmt: skip
        if len(lengths) == 1 and None not in lengths:
            halves = [audio.fit(half, int(next(iter(lengths)))) for half in halves]
        written += figures.show(run, name, *halves, corpus.sample_rate, out=out)
    return written
