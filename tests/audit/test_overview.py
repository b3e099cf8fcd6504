"""What 5 % of the cells do, and whether the twin path is resolved: tables and sentences from invented rows."""

from __future__ import annotations

import numpy as np
import pytest
from audit_toys import around, rows_of

from xaibench.audit.overview import overview_section
from xaibench.audit.twinpath import twinpath_section

SCORES = {
    "oracle": (1.0, 0.1, 0.9),
    "moved-truth": (0.04, 0.05, 1.2),
    "saliency": (0.03, 0.2, 0.4),
    "twin-ig": (0.12, 2.0, -1.5),
    "grad-cam": (0.06, 0.01, 1.3),
    "random": (0.05, 0.02, -0.1),
}


def rows(scores=SCORES, **changes):
    metrics = ("rank-accuracy", "drop-twin", "drop-silence")
    made = {
        name: {metric: around(mean, spread=0.001) for metric, mean in zip(metrics, means, strict=True)}
        for name, means in scores.items()
    }
    for name, values in changes.items():
        made[name.replace("_", "-")] |= values
    return rows_of(made)


def test_one_line_a_row_of_the_board_in_its_order_with_means_and_intervals():
    table = overview_section(rows()).table
    assert list(table["cells chosen by"]) == ["oracle", "moved-truth", "grad-cam", "saliency", "twin-ig", "random"]
    assert list(table["kind"]) == ["ceiling", "sham", *["method"] * 3, "floor"]
    line = table.set_index("cells chosen by").loc["saliency"]
    assert line["fall, twin fill"] == pytest.approx(around(0.2, spread=0.001).mean())
    assert line["fall, twin fill low"] < line["fall, twin fill"] < line["fall, twin fill high"]


def test_the_sentences_name_the_ends_and_count_falls_of_either_sign_beyond_the_gap():
    first, second, third = overview_section(rows()).answer
    assert first == "In rank accuracy the 3 methods lie between 0.030 (saliency) and 0.120 (twin-ig); chance is 0.05."
    assert second.endswith("the 3 methods lie between 1 % (grad-cam) and 200 % (twin-ig).")
    assert third.startswith("Silencing the cells of 2 of 3 methods moves the score by more than the whole gap: with")
    assert third.endswith("Silencing random cells takes away -10 % of it.")


def test_a_fill_that_moves_nothing_beyond_the_gap_is_not_blamed():
    scores = {name: (a, b, 0.3) for name, (a, b, _) in SCORES.items()}
    third = overview_section(rows(scores)).answer[2]
    assert third.startswith("Silencing the cells of 0 of 3 methods") and "strange" not in third


def test_what_is_undefined_is_left_out_and_not_a_number_in_no_sentence():
    holes = {"drop-twin": np.full((8, 2), np.nan), "rank-accuracy": around(0.03)}
    section = overview_section(rows(saliency=holes, random={"drop-silence": np.full((8, 2), np.nan)}))
    assert "the 2 methods lie between 1 % (grad-cam)" in section.answer[1]
    assert "takes away an unknown share of it" in section.answer[2]
    assert "nan" not in " ".join(section.answer)
    assert section.draw() is not None


def test_one_method_none_and_no_row_at_all():
    one = overview_section(rows({name: SCORES[name] for name in ("oracle", "saliency", "random")}))
    assert one.answer[0] == "In rank accuracy the only method with a value has 0.030 (saliency); chance is 0.05."
    none = overview_section(rows({name: SCORES[name] for name in ("oracle", "random")}))
    assert none.answer[0] == "In rank accuracy no method has a value; chance is 0.05."
    assert "0 of 0 methods" in none.answer[2]
    nothing = overview_section(rows().iloc[:0])
    assert nothing.table.empty and nothing.draw is None and "an unknown share of it" in nothing.answer[2]


def test_every_row_is_named_on_the_axis_of_the_figure():
    section = overview_section(rows())
    left, right = section.draw().axes
    assert [t.get_text() for t in left.get_yticklabels()] == list(section.table["cells chosen by"])
    assert right.get_xscale() == "symlog"


def test_the_twin_path_is_resolved_or_not():
    gaps = {
        "twin-ig": {"completeness-twin": np.array([[0.001, 0.002], [0.003, np.nan]])},
        "integrated-gradients": {"completeness-twin": np.full((2, 2), 0.8)},
        "saliency": {"completeness-twin": np.ones((2, 2))},
    }
    section = twinpath_section(rows_of(gaps))
    assert list(section.table.itertuples(index=False, name=None)) == [
        ("twin-ig", 0.002, 0.003, 3), ("integrated-gradients", 0.8, 0.8, 4)
    ]  # fmt: skip
    assert section.answer[0] == (
        "Over 3 pairs the sum of twin-ig misses the difference of the scores by 0.20 % (median) and 0.3 % at most: the twin "
        "path is resolved."
    )
    gaps["twin-ig"]["completeness-twin"][0, 0] = 0.2
    assert "20.0 % at most: the twin path is not resolved for every pair" in twinpath_section(rows_of(gaps)).answer[0]


def test_no_twin_path_without_the_method_or_a_pair():
    other = {"saliency": {"completeness-twin": np.ones((2, 2))}}
    assert twinpath_section(rows_of(other)) is None
    assert twinpath_section(rows_of({**other, "twin-ig": {"completeness-twin": np.full((2, 2), np.nan)}})) is None
