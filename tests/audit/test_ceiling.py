"""The ceiling of faithfulness: places between floor and optimum, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from audit_toys import around, rows_of

from xaibench.audit.ceiling import ceiling_section, ceiling_table


def flat(value: float) -> np.ndarray:
    return np.full((4, 2), value)


def places(scores: dict) -> dict:
    return ceiling_table(rows_of(scores)).set_index("attributor")["place"].to_dict()


def test_higher_is_better():
    scores = {
        "random": 0.0,
        "energy": 0.1,
        "constant": -0.5,
        "oracle": 0.2,
        "saliency": 0.6,
        "lrp": 0.05,
        "extremal-twin": 1.1,
    }
    found = ceiling_table(rows_of({name: {"drop-twin": flat(v)} for name, v in scores.items()}))
    assert set(found["floor"]) == {"energy"} and set(found["metric"]) == {"drop-twin"}
    expected = {name: (v - 0.1) / (1.1 - 0.1) for name, v in scores.items()}
    assert found.set_index("attributor")["place"].to_dict() == pytest.approx(expected)
    assert found.set_index("attributor")["mean"].to_dict() == pytest.approx(scores)


def test_lower_is_better():
    scores = {"random": -1.0, "energy": -3.0, "saliency": -5.0, "lrp": 1.0, "extremal-silence": -11.0}
    found = places({name: {"deletion-silence": flat(v)} for name, v in scores.items()})
    assert found == pytest.approx({"random": -0.25, "energy": 0, "saliency": 0.25, "lrp": -0.5, "extremal-silence": 1})


@pytest.mark.parametrize("optimum", [0.1, 0.05])
def test_an_optimum_that_is_not_above_the_floor_places_nothing(optimum):
    scores = {name: {"drop-twin": flat(v)} for name, v in {"random": 0.1, "saliency": 0.3, "extremal-twin": optimum}.items()}
    assert np.isnan(list(places(scores).values())).all()
    section = ceiling_section(rows_of(scores), "cm")
    assert section.answer == (
        "drop-twin: the optimum found is not above the best control, random, so nothing can be placed.",
    )
    assert section.draw is None


def test_places_compare_the_same_pairs():
    floor, best = around(0.1, utterances=4), around(1.0, utterances=4, seed=1)
    saliency = around(0.5, utterances=4, seed=2)
    best[2:] += 5  # where the method has no score, the optimum is far away
    saliency[2:] = np.nan
    scores = {"random": floor, "extremal-twin": best, "saliency": saliency}
    found = places({name: {"drop-twin": values} for name, values in scores.items()})
    expected = (saliency[:2].mean() - floor[:2].mean()) / (best[:2].mean() - floor[:2].mean())
    assert found["saliency"] == pytest.approx(expected)


def test_sentences_and_the_table_of_the_page():
    scores = {"random": 0.1, "oracle": 0.19, "saliency": 1.0, "lrp": 0.4, "grad-cam": 0.1, "extremal-twin": 1.1}
    section = ceiling_section(rows_of({name: {"drop-twin": flat(v)} for name, v in scores.items()}), "cm")
    assert section.answer[0] == (
        "drop-twin: between the best control, random (0 %), and the optimum (100 %) the best method, saliency, stands at "
        "90 %, the median of 3 at 30 %, the truth itself at 9 %."
    )
    assert list(section.table["attributor"]) == ["oracle", "extremal-twin", "grad-cam", "lrp", "saliency", "random"]
    assert list(section.table.columns) == ["attributor", "kind", "drop-twin", "drop-twin place"]
    assert section.table.set_index("attributor").at["lrp", "drop-twin place"] == pytest.approx(0.3)
    assert section.draw().axes[0].get_ylim() == (0.55, -0.55)


def test_a_method_above_the_optimum_is_said_to_be():
    scores = {"random": 0.0, "saliency": 1.5, "extremal-twin": 1.0}
    (answer,) = ceiling_section(rows_of({name: {"drop-twin": flat(v)} for name, v in scores.items()}), "cm").answer
    assert "stands at 150 %" in answer and "the truth itself at unknown" in answer and "stopped short" in answer


WHERE = {
    "most": (0.8, "more than random cells do (0.05", "are for the most part those that the vocoder changed most."),
    "half": (0.5, "more than random cells do (0.05", None),
    "more": (0.3, "more than random cells do (0.05", "lie for the most part outside what the vocoder changed most."),
    "less": (0.01, "less than random cells do (0.05", "for the most part outside what"),
    "equal": (0.05, "not told apart from random cells (0.05", "for the most part outside what"),
}


@pytest.mark.parametrize("case", WHERE)
def test_where_the_optimum_lies(case):
    mean, words, where = WHERE[case]
    scores = {
        "extremal-twin": {"rank-accuracy": around(mean, spread=0.01, seed=5), "drop-twin": flat(1.0).repeat(2, 0)},
        "random": {"rank-accuracy": around(0.05, spread=0.01), "drop-twin": flat(0.0).repeat(2, 0)},
    }
    answer = ceiling_section(rows_of(scores), "cm").answer
    assert answer[0] == "drop-twin: no method can be placed between the best control, random, and the optimum."
    assert words in answer[1] and answer[1].startswith("The top 5 % of the optimum towards twin hold 0.")
    assert where in answer[1] if where else "most part" not in answer[1]


def test_one_utterance_no_controls_no_optimum():
    one = {name: {"rank-accuracy": np.array([[v, v]])} for name, v in {"extremal-twin": 0.3, "random": 0.05}.items()}
    assert ceiling_section(rows_of(one), "cm").answer == (
        "The top 5 % of the optimum towards twin hold 0.300 of the truth's region, random cells hold 0.050, and whether "
        "that is less is unknown.",
    )
    for scores in ({"saliency": 1.0, "extremal-twin": 2.0}, {"saliency": 1.0, "random": 0.0}):
        section = ceiling_section(rows_of({name: {"drop-twin": flat(v)} for name, v in scores.items()}), "cm")
        assert section.answer == ("Nothing can be placed: the optimised orders have no score here.",)
        assert section.table.empty and section.draw is None
