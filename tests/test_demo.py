"""The main job itself, on real speech with every method (heavy: run by `make check-all`)."""

from __future__ import annotations

import pandas as pd
import pytest

from xaibench.harness.known import known_metrics, known_names
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec


@pytest.mark.heavy
def test_every_method_scores_on_lcnn_and_none_is_void(tmp_path):
    spec = RunSpec(
        countermeasures=("lcnn",),
        attributors=tuple(n for n in known_names("attributors", ["all"])[0] if n != "tca"),  # the map of another CM
        metrics=known_metrics(["preset"], "quick"),
        limit=2,
    )
    summary = run(spec, tmp_path)
    table = pd.read_parquet(tmp_path / "rows")
    assert set(table.status) <= {"ok", "undefined"} and not summary.problems
    ranks = table[table.metric == "rank-accuracy"].groupby("attributor").value.mean()
    assert ranks["oracle"] == 1.0 and abs(ranks["constant"] - 0.05) < 1e-3
    assert run(spec, tmp_path).computed == 0


@pytest.mark.heavy
def test_the_grid_route_gives_the_rule_based_methods_an_honest_no(tmp_path):
    spec = RunSpec(
        countermeasures=("lcnn",), attributors=("deeplift", "lrp", "saliency", "epsilon-plus", "oracle"),
        metrics=("rank-accuracy", "drop-twin"), limit=2, route="grid",
    )  # fmt: skip
    run(spec, tmp_path)
    table = pd.read_parquet(tmp_path / "rows")
    statuses = table.groupby("attributor").status.unique().map(list).to_dict()
    no, yes = ["unsupported"], ["ok"]
    assert {n: s for n, s in statuses.items() if s == no}.keys() == {"deeplift", "lrp", "epsilon-plus"}
    assert {n: s for n, s in statuses.items() if s == yes}.keys() == {"saliency", "oracle"}
    assert table[table.attributor == "lrp"].note.str.contains("modules").all()
