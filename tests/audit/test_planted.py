"""The planted truth's sentences follow its board."""

from __future__ import annotations

import numpy as np
import pytest
from audit_toys import around, rows_of

from xaibench.audit.planted import METRICS, planted_section
from xaibench.leaderboard.table import board

#: rank accuracy, fall of the score.
GOOD = {
    "oracle": (1.0, 0.9), "moved-truth": (0.04, 0.05), "energy-matched": (0.0, 0.02), "random": (0.05, 0.01),
    "energy": (0.10, 0.02), "lrp": (0.80, 0.9), "saliency": (0.62, 0.5), "grad-cam": (0.40, 0.5), "occlusion": (0.12, 0.1),
}  # fmt: skip


def board_of(scores: dict, *, utterances: int = 8, **fixed: object):
    made = {
        name: {
            metric: np.full((utterances, 2), rank) if rank == 1 and metric == "rank-accuracy"
            else around(fall if metric == "drop-twin" else rank, utterances=utterances, spread=0.005)
            for metric in METRICS
        }
        for name, (rank, fall) in scores.items()
    }  # fmt: skip
    return board(rows_of(made, **fixed), metrics=METRICS, sort="rank-accuracy")


def test_good_and_poor_methods_and_controls_are_told_apart():
    section = planted_section(board_of(GOOD))
    assert section.answer[0] == (
        "cm has an equal error rate of 10.0% on these recordings. The truth itself scores 1.00 in rank accuracy, the best "
        "control, energy, 0.100, chance 0.05."
    )
    assert section.answer[1].startswith("4 of 4 methods exceed the best control")
    assert section.answer[2] == "Find the artefact (skill above 50 %): 2 of 4. lrp 78 %, saliency 58 %."
    assert section.answer[3] == "Miss it (below 10 %): 1 of 4. occlusion 2 %."
    assert section.answer[4] == (
        "Replacing the truth's cells by the twin's takes away 90 % of the gap, those of moved-truth 5 %, those of "
        "energy-matched 2 %: that the countermeasure listens where the artefact was planted is certain beyond the intervals."
    )
    assert list(section.table["attributor"][:2]) == ["oracle", "lrp"]
    names = [t.get_text() for t in section.draw().axes[0].get_yticklabels()]
    assert names[-1] == "oracle" and set(names) == set(GOOD)


@pytest.mark.parametrize("falls", [{"oracle": 0.04}, {"moved-truth": 0.95}, {"oracle": -0.2, "moved-truth": -0.5}])
def test_a_countermeasure_that_does_not_listen_there_is_not_said_to(falls):
    scores = {name: (rank, falls.get(name, fall)) for name, (rank, fall) in GOOD.items()}
    assert planted_section(board_of(scores)).answer[-1].endswith("planted is not beyond doubt.")


def test_no_method_finds_it():
    scores = {name: (min(rank, 0.05) if name in ("lrp", "saliency", "grad-cam", "occlusion") else rank, fall)
              for name, (rank, fall) in GOOD.items()}  # fmt: skip
    answer = planted_section(board_of(scores)).answer
    assert answer[1].startswith("0 of 4") and answer[2] == "Find the artefact (skill above 50 %): 0 of 4. None."
    assert answer[3].startswith("Miss it (below 10 %): 4 of 4.")


def test_what_is_missing_is_unknown():
    bare = {name: GOOD[name] for name in ("random", "lrp", "saliency")}
    answer = planted_section(board_of(bare, eer=np.nan)).answer
    assert "an unknown equal error rate" in answer[0] and "The truth itself scores nothing" in answer[0]
    assert len(answer) == 4 and answer[2] == "Find the artefact (skill above 50 %): 0 of 0. None."
    one = planted_section(board_of(GOOD, utterances=1)).answer
    assert "not beyond doubt" in one[4] or "certain" in one[4]
    assert not any("nan" in sentence for sentence in [*answer, *one])
