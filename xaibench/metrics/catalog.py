"""Read this first: every metric of the benchmark, one entry each, with when to distrust it.

    METRICS["deletion-twin"].function(evidence)  ->  (B,) float64, NaN where undefined

localisation   does the attribution find the cells the vocoder changed? Needs the truth and no forward pass. Names that
               end in `-time`, and `frame-eer`, ask for the frames only: of maps that resolve time but not frequency, and
               of truths that are segments of partially spoofed speech. `-frequency` asks for the frequencies only,
               `-added` and `-missing` for one sign of the difference; `@5` cuts at 5 % of the valid cells.
faithfulness   does the countermeasure use the cells the attribution names? Needs forward passes and no truth.
stability      does the map stay when the recording changes inaudibly, or through a codec? Explains again.
complexity     over how many cells does it spread? Needs neither truth nor countermeasure.
sanity         does it depend on the learned parameters, and on the class it explains? Explains again.
axioms         does it keep promises: a sum that is complete, no change where nothing changes?

A method can be good at one and bad at the other: a faithful map of a countermeasure that looks elsewhere misses the
vocoder's traces, and a perfect map of the vocoder's traces says nothing about the countermeasure. Report both, beside
the controls (`random`, `energy`, `inverse-energy`, `oracle` ...).

Names end in what stands where cells were removed: `-silence` (zero energy), `-mean` (the training mean of that
frequency), `-twin` (the bona fide half of the pair: takes away the artefact and leaves speech). Log-odds unless the name
says `-probability`; `average-*` and `fid-in-*` are of the probability or the decision only. `chance` is the expected value
of a random map where the truth's region is 5 % of the valid cells.

Importing this module does not import torch; the functions are looked up when first called.
"""

from __future__ import annotations

from xaibench.metrics.entries.axioms import AXIOMS
from xaibench.metrics.entries.complexity import COMPLEXITY
from xaibench.metrics.entries.faithfulness import FAITHFULNESS
from xaibench.metrics.entries.localisation import LOCALISATION
from xaibench.metrics.entries.sanity import SANITY
from xaibench.metrics.entries.sources import FILLS as FILLS
from xaibench.metrics.entries.stability import STABILITY
from xaibench.metrics.entries.temporal import TEMPORAL
from xaibench.protocols import Metric

#: Interior points of deletion and insertion curves, as shares of the valid cells. Denser towards both ends, where deletion
#: and insertion fall and rise; both hold 0.05, so that `drop-*` costs no forward pass beside a deletion curve. Against 200
#: equal steps (four countermeasures, seven maps, two fills, two utterances) the area is off by 1.4 % and 0.5 % of the
#: curve's range on average, 6.6 % and 4.6 % at most; as many equal steps by 2.0 % and 0.6 %. `quick` is the best of four
#: candidates on these curves, `full` was chosen on other utterances.
FRACTIONS = {
    "quick": (0.05, 0.2, 0.4, 0.6, 0.8, 0.95),
    "full": (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98),
}

#: Every metric by its name, in the order of reports.
METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*LOCALISATION, *TEMPORAL, *FAITHFULNESS, *STABILITY, *COMPLEXITY, *SANITY, *AXIOMS)
}

#: The presets of the command line. `quick` asks 3 fills one question each, and only the twin for whole curves; `full` leaves
#: out what explains every utterance again and again (stability, sanity, input invariance): `--metrics all` has it.
QUICK = (
    "rank-accuracy", "iou@5", "mass-accuracy", "roc-auc", "average-precision", "pointing-game", "spearman", "sparseness",
    "rank-accuracy-time", "roc-auc-time",
    "drop-twin", "drop-mean", "drop-silence",
    "deletion-twin", "insertion-twin", "deletion-twin-probability", "insertion-twin-probability",
)  # fmt: skip
FULL = tuple(name for name, metric in METRICS.items() if "explain" not in metric.needs)
