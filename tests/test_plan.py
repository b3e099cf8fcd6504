"""The fingerprint of a cell: what is written out once for many pairs says the same as all of it for each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
import toybench

from xaibench.harness import plan
from xaibench.harness.spec import RunSpec
from xaibench.registry import open_corpus


def literally(spec: RunSpec, pair, facts) -> str:
    """All that a pair's numbers depend on, in one JSON text of sorted keys; the first 16 digits of its sha256."""
    content = {
        "pair": [*(u.sha256 for u in pair.halves), *pair.spoof.segments], "truth": asdict(spec.truth),
        "grid": asdict(spec.grid), "fractions": spec.fractions, "seed": spec.seed, "precision": spec.precision,
        "code": plan.source_hash("xaibench"), **facts,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


FACTS = [{}, {"attributor": ["zebra", {"pair": "pair"}], "z": [1.5, None]}, {"a": {"b": "\\0pair"}}]


@pytest.mark.parametrize("facts", FACTS)
def test_many_fingerprints_are_those_of_each(tmp_path, monkeypatch, facts):
    toybench.write_corpus(tmp_path)
    toybench.install(monkeypatch)
    spec = toybench.spec(tmp_path, "random")
    chosen = plan.ordered_pairs(open_corpus("toy", tmp_path), "eval")
    of = plan.fingerprints(spec, facts)
    found = [of(pair) for pair in chosen]
    assert found == [literally(spec, pair, facts) for pair in chosen] == [plan.fingerprint(spec, p, facts) for p in chosen]
    assert len(set(found)) == len(chosen) == 6
