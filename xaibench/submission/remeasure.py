"""A section of a pack on the verifier's own code, weights and data: do its fingerprints follow, and cells computed again.

A *section* is one truth x countermeasure x route. Nothing is written: cells are computed by the harness' own worker, in
memory, whole maps of the utterances drawn, each method judged before its first cell as in any run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from xaibench import registry
from xaibench.errors import PluginError, SubmissionError, XaibenchError
from xaibench.harness.device import choose_device, default_batch_size
from xaibench.harness.plan import Chunk, cell_fingerprint, fingerprint, ordered_pairs, reference_pairs
from xaibench.harness.tasks import Task
from xaibench.harness.workbench import PRIOR_PAIRS, Workbench
from xaibench.harness.worker import compute
from xaibench.manifest import verify
from xaibench.metrics.catalog import METRICS
from xaibench.submission.pack import shown
from xaibench.submission.stated import Stated
from xaibench.types import Pair, Row

SECTION = ("truth", "countermeasure", "route")


@dataclass(frozen=True)
class Own:
    """What the verifier brings: never taken from a pack. `data` is a manifest of theirs, for data that is no plugin's."""

    root: Any = None
    data: str | None = None
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    cm_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Section:
    """What can be computed again of a section. `blocked` says why a method or metric cannot, "" is the whole section.

    facts: attributor -> what its fingerprints depend on. pairs: those that the run's plan has, by `source/vocoder`.
    """

    key: tuple[str, str, str]
    bench: Workbench | None
    pairs: Mapping[str, Pair]
    facts: Mapping[str, Mapping[str, Any]]
    blocked: Mapping[str, str]

    @property
    def opened(self) -> Workbench:
        """The bench. Raises SubmissionError for a section that could not be opened, where nothing is computed."""
        if self.bench is None:
            raise SubmissionError(f"the section {' '.join(self.key)} could not be opened: {self.blocked.get('')}")
        return self.bench

    def why_not(self, attributor: str, metric: str) -> str:
        """Why a cell cannot be computed here, or ""."""
        return self.blocked.get("") or self.blocked.get(attributor) or self.blocked.get(metric, "")


def open_section(stated: Stated, key: tuple[str, str, str], rows: pd.DataFrame, own: Own) -> Section:
    """A section opened with the installed plugins, the weights and the data here. What is missing becomes `blocked`."""
    _, countermeasure, route = key
    methods, metrics = (sorted(rows[c].unique()) for c in ("attributor", "metric"))
    blocked = {name: why for name in metrics if name not in METRICS and (why := missing(stated, "metrics", name))}
    blocked |= {name: why for name in methods if (why := missing(stated, "attributors", name))}
    data = stated.identity["data"]
    lost = missing(stated, "countermeasures", countermeasure)
    if own.data is None and not lost:
        lost = missing(stated, "datasets", data)
        if data.endswith(".toml"):
            lost = f"the data set {data} is a manifest of the author's: give yours of the same files with --data FILE.toml"
    if lost:
        return Section(key, None, {}, {}, {**blocked, "": lost})
    try:
        bench = _bench(stated, key, methods, metrics, own)
        loaded = bench.countermeasure(countermeasure)
        corpus, weights = bench.corpus, stated.record["countermeasures"][countermeasure]["weights"]
        if corpus.hash != stated.identity["dataset_hash"]:
            there = shown(stated.identity["dataset_hash"], 12)
            lost = f"other data: {corpus.name} here is {corpus.hash[:12]}, the pack's {there}"
        elif loaded.weights != weights:
            lost = (
                f"other weights: those of {countermeasure} here are {loaded.weights[:12]}, the pack's {weights[:12]}; give "
                f"the author's with --checkpoint {countermeasure}=FILE"
            )
        elif bench.route(countermeasure) != route:
            lost = f"{countermeasure} has no route {route} here"
        pairs = {p.id: p for p in ordered_pairs(corpus, bench.spec.split)[: stated.pairs]}
        bench.check_truth(list(pairs.values()))
        verify({u.path: u for p in reference_pairs(corpus, most=PRIOR_PAIRS) for u in p.halves}.values())
    except XaibenchError as error:
        return Section(key, None, {}, {}, {**blocked, "": str(error)})
    except Exception as error:  # noqa: BLE001 - what a plugin makes of a stranger's options costs this section only
        return Section(key, None, {}, {}, {**blocked, "": f"{type(error).__name__}: {error}"})
    facts = {}
    for name in [] if lost else methods:
        if name not in blocked:
            try:
                facts[name] = bench.facts(countermeasure, route, name)
            except Exception as error:  # noqa: BLE001 - options that the method installed here does not take
                blocked[name] = f"{type(error).__name__}: {error}"
    return Section(key, bench, pairs, facts, {**blocked, **({"": lost} if lost else {})})


def _bench(stated: Stated, key: tuple[str, str, str], methods: list[str], metrics: list[str], own: Own) -> Workbench:
    truth, countermeasure, route = key
    options = {**stated.cm_options.get(countermeasure, {}), **own.cm_options.get(countermeasure, {})}
    given = {"data": own.data} if own.data is not None else {}
    spec = stated.spec(
        truth, countermeasure, route, attributors=methods, metrics=metrics, root=own.root,
        checkpoints={n: f for n, f in own.checkpoints.items() if n == countermeasure},
        cm_options={countermeasure: options} if options else {}, **given,
    )  # fmt: skip
    device = choose_device(own.device)
    return Workbench(spec, device=device, batch_size=default_batch_size(device))


def missing(stated: Stated, group: str, name: str) -> str:
    """Why a plugin cannot be used here, with how to get it; "" where it loads."""
    kind = group.removesuffix("s").replace("dataset", "data set")
    if name in registry.plugins(group):
        try:
            registry.load(group, name)
        except PluginError as error:
            return str(error)
        return ""
    distribution, version = stated.origin(group, name)
    if not distribution:
        return f"the {kind} {name} is not installed, and the pack does not say which package has it"
    return (
        f"the {kind} {name} is not installed: pip install {distribution}=={version} (a package is code of its author: look "
        f"at it first)"
    )


def fingerprints(section: Section, rows: pd.DataFrame) -> pd.Series:
    """What of every row of a section follows here: "follows", "other" (another code, option, version), "" (not known
    here), or the name of the method whose fingerprint it carries instead of its own. Index: that of `rows`.
    """
    expected = {
        (name, pair.id): fingerprint(section.opened.spec, pair, facts)
        for name, facts in section.facts.items()
        for pair in section.pairs.values()
    }
    owner = {print_: name for (name, _), print_ in expected.items()}
    own = {m for m in rows["metric"].unique() if m in METRICS}

    def judged(row: Any) -> str:
        mine = expected.get((row.attributor, f"{row.utterance}/{row.vocoder}"))
        if mine is None or section.why_not(row.attributor, row.metric):
            return ""
        if row.fingerprint == (mine if row.metric in own else cell_fingerprint(mine, row.metric)):
            return "follows"
        return owner.get(row.fingerprint, "other")

    once: dict[tuple[str, ...], str] = {}  # the metrics of the catalogue share the fingerprint of their pair
    found = []
    for row in rows.itertuples(index=False):
        metric = "" if row.metric in own else row.metric
        key = (row.attributor, row.utterance, row.vocoder, metric, row.fingerprint)
        if key not in once:
            once[key] = judged(row)
        found.append(once[key])
    return pd.Series(found, index=rows.index, dtype=object)


def compute_again(
    section: Section, attributor: str, pair: Pair, metrics: tuple[str, ...], judged: dict[str, str]
) -> list[Row]:
    """Rows of one method on one utterance, computed here. `judged` keeps the verdicts: attributor -> why it is void, or "".

    Raises XaibenchError where the recordings are not those of the manifest, or the device is lost.
    """
    _, countermeasure, route = section.key
    verify(pair.halves)
    facts = section.facts[attributor]
    chunk = Chunk(
        countermeasure, route, attributor, 0, (pair,), metrics, (fingerprint(section.opened.spec, pair, facts),)
    )  # fmt: skip
    new = attributor not in judged
    done = compute(section.opened, "", Task((chunk,), ("" if new else judged[attributor],), judge=new))
    if done.verdict is not None:
        judged[attributor] = done.verdict.void
    return list(done.outcomes[0].rows)
