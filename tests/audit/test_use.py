"""Does the countermeasure use the truth? Invented falls of the score, and the sentences they must give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from audit_toys import VOCODERS, around, rows_of

from xaibench.audit.use import use_section, use_table, used
from xaibench.stats import cluster_bootstrap, paired_difference


def falls(oracle: float, moved: float, loud: float, *, random: float = 0.0, fill: str = "twin", **options: object) -> dict:
    means = {"oracle": oracle, "moved-truth": moved, "energy-matched": loud, "random": random}
    return {name: {f"drop-{fill}": around(mean, seed=i, **options)} for i, (name, mean) in enumerate(means.items())}


def line_of(table: pd.DataFrame, vocoder: str = "all", fill: str = "twin", truth: str = "eq2") -> dict:
    (line,) = table[table.truth.eq(truth) & table.fill.eq(fill) & table.vocoder.eq(vocoder)].to_dict("records")
    return line


CASES = {
    "both": ((0.5, 0.1, 0.05), True),
    "not the moved one": ((0.3, 0.5, 0.05), False),
    "not cells as loud": ((0.3, 0.1, 0.6), False),
    "neither": ((0.05, 0.3, 0.4), False),
    "both, but the score rises": ((-0.1, -0.5, -0.4), False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_and_the_warning_follow_the_numbers(case):
    means, expected = CASES[case]
    section = use_section(rows_of(falls(*means)), "cm")
    assert used(line_of(section.table)) is expected
    first = section.answer[0]
    assert ("cm uses the region." in first) is expected
    assert first.startswith("Warning: truth eq2: cm is not shown to use the region") is not expected
    assert ("say nothing about faithfulness" in first) is not expected


def test_a_truth_that_wins_by_luck_alone_is_not_used():
    draw = np.random.default_rng(3)
    scores = {
        "oracle": 0.12 + draw.normal(0, 0.5, (8, 2)), "moved-truth": 0.1 + draw.normal(0, 0.5, (8, 2)),
        "energy-matched": np.zeros((8, 2)), "random": np.zeros((8, 2)),
    }  # fmt: skip
    section = use_section(rows_of({name: {"drop-twin": v} for name, v in scores.items()}), "cm")
    assert section.answer[0].startswith("Warning")


def test_the_numbers_are_those_of_the_statistics_and_pairs_without_a_score_are_left_out():
    scores = falls(0.5, 0.1, 0.05)
    scores["oracle"]["drop-twin"][0, 1] = np.nan  # u0/world: the scores hardly differ
    scores["moved-truth"]["drop-twin"][2, 0] = np.nan
    line = line_of(use_table(rows_of(scores)))
    oracle, moved = (scores[name]["drop-twin"].ravel() for name in ("oracle", "moved-truth"))
    names = np.repeat([f"u{u}" for u in range(8)], 2)
    there = ~np.isnan(oracle)
    assert line["pairs"] == 15
    assert (line["oracle"], line["oracle low"], line["oracle high"]) == cluster_bootstrap(oracle[there], names[there])
    assert line["oracle"] == pytest.approx(np.nanmean(oracle), abs=1e-15)
    both = there & ~np.isnan(moved)
    expected = paired_difference(oracle[both], moved[both], names[both])
    assert (line["over moved-truth"], line["over moved-truth low"], line["over moved-truth high"]) == expected
    assert line["over moved-truth"] == pytest.approx((oracle - moved)[both].mean(), abs=1e-15)
    world = line_of(use_table(rows_of(scores)), "world")
    assert world["pairs"] == 7 and world["oracle"] == pytest.approx(np.nanmean(scores["oracle"]["drop-twin"][:, 1]))


def test_every_truth_and_fill_has_its_own_line_a_vocoder():
    rows = pd.concat(
        [rows_of({**falls(0.5, 0.1, 0.0)}), rows_of(falls(0.9, 0.1, 0.0, fill="silence")),
         rows_of(falls(0.0, 0.1, 0.2), truth="eq1")]
    )  # fmt: skip
    table = use_table(rows)
    assert list(table[["truth", "fill", "vocoder"]].itertuples(index=False, name=None)) == [
        (truth, fill, vocoder)
        for truth, fill in (("eq2", "twin"), ("eq2", "silence"), ("eq1", "twin"))
        for vocoder in ("all", *VOCODERS)
    ]
    answer = use_section(rows, "cm").answer
    assert answer[0].startswith("Truth eq2: cm uses") and answer[2].startswith("Warning: truth eq1")
    assert not any("log-difference" in sentence for sentence in answer)


def test_vocoders_are_told_apart():
    scores = falls(0.5, 0.1, 0.05)
    scores["oracle"]["drop-twin"][:, 1] = scores["moved-truth"]["drop-twin"][:, 1]  # world: no better than the sham
    answer = use_section(rows_of(scores), "cm").answer[1]
    yes, no = answer.split("; ")
    assert "used beyond doubt: griffinlim 5" in yes and "world" not in yes
    assert no.startswith("not beyond doubt: world ")


def test_one_vocoder():
    section = use_section(rows_of(falls(0.5, 0.1, 0.05, vocoders=1), vocoders=("world",)), "cm")
    assert list(section.table.vocoder) == ["all", "world"]
    assert "uses the region." in section.answer[0] and "used beyond doubt: world" in section.answer[1]


def test_one_utterance_has_no_interval_and_gives_no_verdict():
    section = use_section(rows_of(falls(0.5, 0.1, 0.05, utterances=1)), "cm")
    line = line_of(section.table)
    assert np.isnan([line["oracle low"], line["over moved-truth high"]]).all() and line["pairs"] == 2
    assert used(line) is None
    assert section.answer[0].startswith("Truth eq2: whether cm uses the region is unknown")
    assert "Warning" not in section.answer[0] and "nan" not in " ".join(section.answer)
    assert "unknown: griffinlim 5" in section.answer[1]
    assert section.draw() is not None


def test_a_sham_without_scores_leaves_the_verdict_open():
    scores = falls(0.5, 0.1, 0.05)
    scores["energy-matched"]["drop-twin"][:] = np.nan
    section = use_section(rows_of(scores), "cm")
    line = line_of(section.table)
    assert np.isnan(line["energy-matched"]) and not np.isnan(line["oracle low"])
    assert "is unknown" in section.answer[0] and "cells as loud unknown" in section.answer[0]


def test_a_score_that_ignores_the_input_is_unknown_not_an_error():
    nothing = {name: {"drop-twin": np.full((4, 2), np.nan)} for name in falls(0, 0, 0)}
    section = use_section(rows_of(nothing), "cm")
    assert line_of(section.table)["pairs"] == 0 and section.draw is None
    assert section.answer == ("Truth eq2: whether cm uses the region is unknown: no pair has a score.",)
    nothing_at_all = use_section(rows_of({"oracle": {"rank-accuracy": np.ones((2, 2))}}), "cm")
    assert "nothing was measured" in nothing_at_all.answer[0] and nothing_at_all.table.empty


def test_the_figure_shows_every_point_and_cuts_what_two_utterances_cannot_say():
    draw = np.random.default_rng(0)
    scores = falls(0.5, 0.1, 0.05)
    scores["oracle"]["drop-twin"][:, 0] = draw.normal(0.5, 0.02, 8)
    wild = falls(0.5, 0.1, 0.05, utterances=8)
    for name in wild:
        wild[name]["drop-twin"][2:, 1] = np.nan  # world has two utterances
    wild["oracle"]["drop-twin"][:2, 1] = [0.2, 0.9]
    section = use_section(rows_of(wild), "cm")
    axes = section.draw().axes[0]
    low, high = axes.get_xlim()
    line = line_of(section.table, "world")
    assert line["oracle high"] > high and low < line["oracle"] < high
    for name in ("oracle", "moved-truth", "energy-matched", "random"):
        assert low < line_of(section.table)[f"{name} low"] and line_of(section.table)[f"{name} high"] < high
    assert [t.get_text() for t in axes.get_yticklabels()] == ["all (10)", "griffinlim (8)", "world (2)"]
