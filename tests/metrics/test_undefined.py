"""Why a metric has no value: every reason word for word, on a map or truth that has it, beside a neighbour that has none."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from xaibench.metrics import undefined
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence
from xaibench.metrics.undefined import why_undefined
from xaibench.types import Attribution, Axis, Truth

# Two utterances of 3 frequencies x 4 frames; the first frequency is outside the band.
VALID = torch.tensor([[False] * 4, [True] * 4, [True] * 4])
REGION = torch.tensor([[[0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]] * 2, dtype=torch.bool)
MAP = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, -1.0, 3.0], [4.0, 1.0, 0.5, 2.0]]] * 2)
TRUTH = Truth(values=REGION.float(), region=REGION, valid=VALID, name="eq2", added=REGION)
NOTHING_FOR_SPOOF = "the map has no evidence for spoof on the valid band, only against it"
SAME = "the twins do not differ, so there is no truth to find"
UNKNOWN = "the metric has no value for this map, and does not say why"


def evidence(values=MAP, truth=TRUTH, on_view=None):
    """Of the first utterance as given, of the second without fault."""
    values = torch.cat([values[:1], MAP[1:]])
    attribution = Attribution(values, Axis("frequency", range(4)), Axis("time", range(5)))
    return Evidence(attribution, values if on_view is None else on_view, truth, SimpleNamespace(valid=VALID))


def truth(**parts):
    return replace(TRUTH, **{name: torch.cat([part[:1], getattr(TRUTH, name)[1:]]) for name, part in parts.items()})


def cells(rows):
    return torch.tensor([[[0, 0, 0, 0], *rows]], dtype=torch.bool)


NO_CELL, EVERY_CELL = cells([[0] * 4, [0] * 4]), cells([[1] * 4, [1] * 4])
OUTSIDE = torch.tensor([[[1.0, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0]]])
CANCELS_IN_FRAMES = torch.tensor([[[0.0, 0, 0, 0], [1, 2, -1, 3], [-1, -2, 1, -3]]])
CANCELS_IN_BANDS = torch.tensor([[[0.0, 0, 0, 0], [1, 2, -1, -2], [3, -3, 0, 0]]])
AGAINST = -MAP.abs()

REASONS = [
    ("roc-auc", {"values": 0 * MAP}, "the map is zero everywhere"),
    ("sparseness", {"values": 0 * MAP}, "the map is zero everywhere"),
    ("deletion-twin", {"on_view": 0 * MAP}, "the map is zero everywhere"),
    ("completeness-mean", {"on_view": 0 * MAP}, "the map is zero everywhere"),
    ("roc-auc", {"values": OUTSIDE}, "the map is zero on every cell of the valid band"),
    ("entropy", {"values": OUTSIDE}, "the map is zero on every cell of the valid band"),
    ("max-sensitivity", {"on_view": OUTSIDE}, "the map is zero on every cell of the valid band"),
    (
        "completeness-mean", {"on_view": OUTSIDE},
        "the scores of the utterance and of the fill hardly differ, so a sum has nothing to miss",
    ),
    ("roc-auc", {"truth": truth(region=NO_CELL)}, SAME),
    ("roc-auc-time", {"truth": truth(region=NO_CELL)}, SAME),
    ("mass-accuracy", {"truth": truth(region=NO_CELL)}, SAME),
    ("rank-accuracy", {"truth": truth(region=cells([[0] * 4, [0] * 4]) | ~VALID)}, SAME),
    (
        "roc-auc-time", {"truth": replace(truth(region=NO_CELL), name="segments")},
        "no frame is spoofed, so there is no truth to find",
    ),
    (
        "roc-auc", {"truth": replace(truth(region=EVERY_CELL), resolves=frozenset({"time"}))},
        "every frame is spoofed, so there is nothing to tell apart",
    ),
    (
        "roc-auc", {"truth": truth(region=EVERY_CELL)},
        "every valid cell lies in the truth's region, so there is nothing to tell apart",
    ),
    ("roc-auc-missing", {}, "the truth's region has no cell where energy is missing"),
    ("rank-accuracy-added", {"truth": truth(added=NO_CELL)}, "the truth's region has no cell where energy was added"),
    (
        "roc-auc-added", {"truth": truth(region=EVERY_CELL, added=EVERY_CELL)},
        "every valid cell lies in the truth's region, so there is nothing to tell apart",
    ),
    ("roc-auc-time", {"values": CANCELS_IN_FRAMES}, "the map cancels: its sum over every frame is zero"),
    ("rank-accuracy-frequency", {"values": CANCELS_IN_BANDS}, "the map cancels: its sum over every frequency is zero"),
    (
        "roc-auc-time", {"truth": truth(region=cells([[1, 0, 0, 0], [0] * 4]))},
        "the truth's region does not fill half a frame",
    ),
    (
        "roc-auc-frequency", {"truth": truth(region=cells([[1, 0, 0, 0], [0] * 4]))},
        "the truth's region does not fill half a frequency",
    ),
    (
        "spearman-time", {"truth": truth(region=cells([[1, 1, 1, 1], [0] * 4]))},
        "every frame holds as much of the truth's region as the others, so there is no order to find",
    ),
    (
        "spearman-frequency", {"truth": truth(region=cells([[1, 1, 1, 0], [0, 1, 1, 1]]))},
        "every frequency holds as much of the truth's region as the others, so there is no order to find",
    ),
    (
        "frame-eer", {"truth": truth(region=EVERY_CELL)}, "every frame is spoofed, so there is nothing to tell apart",
    ),
    (
        "roc-auc-frequency", {"truth": truth(region=EVERY_CELL)},
        "every frequency is in the truth's region, so there is nothing to tell apart",
    ),
    ("mass-accuracy", {"values": AGAINST}, NOTHING_FOR_SPOOF),
    ("mass-accuracy", {"values": AGAINST, "truth": truth(region=EVERY_CELL)}, NOTHING_FOR_SPOOF),
    ("rcq", {"values": AGAINST}, NOTHING_FOR_SPOOF),
    ("average-drop-mean", {"on_view": AGAINST}, NOTHING_FOR_SPOOF),
    ("average-increase-twin", {"on_view": AGAINST}, NOTHING_FOR_SPOOF),
    ("average-gain-silence", {"on_view": AGAINST}, NOTHING_FOR_SPOOF),
    ("fid-in-mean", {"on_view": AGAINST}, NOTHING_FOR_SPOOF),
    ("faithfulness-on-spectra-mean", {"on_view": AGAINST}, NOTHING_FOR_SPOOF),
    ("ndcg", {"truth": truth(values=0 * MAP)}, "the truth has no difference to find on the valid band"),
    (
        "ndcg", {"truth": truth(values=0 * MAP, region=EVERY_CELL)},
        "the truth has no difference to find on the valid band",
    ),
    (
        "spearman", {"truth": truth(values=0 * MAP + 1, region=EVERY_CELL)},
        "the truth's values are all equal, so there is no order to find",
    ),
    (
        "drop-mean", {},
        "the countermeasure's scores of the spoof and its bona fide twin hardly differ, or are the wrong way round",
    ),
    (
        "faithfulness-correlation-mean", {},
        "the random subsets all have one relevance, or the score falls alike without any of them",
    ),
    ("infidelity-mean-probability", {}, "no random subset has any relevance, or the score never falls without one"),
    ("local-lipschitz", {}, "what the countermeasure hears did not change, or is silent"),
    ("smooth-mprt", {}, "the maps of the noisy recordings are zero on the valid band, or cancel"),
    ("efficient-mprt", {}, "all valid cells of the map are of one size, so its complexity is zero"),
    ("completeness-twin", {}, "the scores of the utterance and of the fill hardly differ, so a sum has nothing to miss"),
    ("mprt", {}, UNKNOWN),
    ("roc-auc", {}, UNKNOWN),
    ("roc-auc-time", {}, UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parts", "why"), REASONS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(REASONS)])
def test_the_reason(name, parts, why):
    asked = evidence(**parts)
    assert why_undefined(METRICS[name], asked, 0) == why
    kept = why_undefined(METRICS[name], evidence(), 1)
    if "truth" in METRICS[name].needs and parts and "resolves" not in str(parts):
        assert why_undefined(METRICS[name], asked, 1) == kept
    assert kept == UNKNOWN or kept in undefined.REST.values() or "missing" in kept


@pytest.mark.parametrize(
    "name", [n for n, m in METRICS.items() if "truth" in m.needs and not m.needs & {"forward", "explain"}]
)
def test_where_a_reason_is_known_there_is_no_value(name):
    for other, parts, why in REASONS:
        if other == name and parts and why != UNKNOWN:
            assert METRICS[name].function(evidence(**parts))[0].isnan(), why


def test_of_a_metric_that_is_not_ours_only_map_and_truth_are_known():
    metric = replace(METRICS["roc-auc-time"], name="mine")
    assert why_undefined(metric, evidence(CANCELS_IN_FRAMES), 0) == UNKNOWN
    assert why_undefined(metric, evidence(truth=truth(region=NO_CELL)), 0) == SAME
    assert why_undefined(replace(METRICS["mprt"], name="drop-mine"), evidence(), 0) == UNKNOWN


def test_it_is_looked_for_where_the_metric_looked():
    asked = evidence(OUTSIDE)
    elsewhere = replace(asked, probe=SimpleNamespace(valid=~VALID))
    silent = "the map is zero on every cell of the valid band"
    assert why_undefined(METRICS["roc-auc"], elsewhere, 0) == why_undefined(METRICS["entropy"], elsewhere, 0) == silent
    assert why_undefined(METRICS["mprt"], elsewhere, 0) == UNKNOWN and why_undefined(METRICS["mprt"], asked, 0) == silent
    mine = replace(METRICS["roc-auc"], name="mine", family="faithfulness")
    assert why_undefined(mine, elsewhere, 0) == silent
    seen = evidence(on_view=0 * MAP)
    assert (
        why_undefined(mine, seen, 0) == UNKNOWN and why_undefined(METRICS["mprt"], seen, 0) == "the map is zero everywhere"
    )
