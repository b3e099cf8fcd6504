"""The board is a pure function of result files: what it refuses, what it computes, what it says, how it looks."""

import copy
import io
import json
import re
import subprocess
import sys

import fake_run
import numpy as np
import pandas as pd
import pytest

from xaibench.errors import PluginError, RunError, XaibenchError
from xaibench.leaderboard import render, table
from xaibench.leaderboard.verdict import verdict
from xaibench.protocols import Attributor


def board_of(tmp_path, rows, record=None, **options):
    run = fake_run.write_run(tmp_path / "run", rows, record)
    return table.board(table.read_rows([run]), **options)


def said(board):
    return "\n".join(verdict(board))


@pytest.fixture
def rows():
    return fake_run.rows(fake_run.SCORES)


@pytest.fixture
def board(tmp_path, rows):
    return board_of(tmp_path, rows)


# --- reading -----------------------------------------------------------------------------------------------------------


def test_rows_come_back_with_the_facts_of_their_run(tmp_path, rows):
    run = fake_run.write_run(tmp_path / "run", rows, fake_run.run_record(eer=0.07, dirty=True))
    read = table.read_rows([run])
    assert len(read) == len(rows)
    assert read["eer"].eq(0.07).all() and read["pairs"].eq(12).all() and read["dirty"].all()


@pytest.mark.parametrize("damage", ["missing", "no run.json", "broken run.json", "no rows", "broken rows", "foreign rows"])
def test_what_is_not_a_run_folder_is_refused_by_name(tmp_path, rows, damage):
    run = tmp_path / "run"
    if damage != "missing":
        fake_run.write_run(run, rows if damage != "no rows" else rows[:0])
    file = next(iter(sorted(run.rglob("*.parquet"))), None)
    if damage == "no run.json":
        (run / "run.json").unlink()
    elif damage == "broken run.json":
        (run / "run.json").write_text("{")
    elif damage == "broken rows":
        file.write_bytes(file.read_bytes()[:50])
    elif damage == "foreign rows":
        pd.DataFrame({"a": [1]}).to_parquet(file)
    with pytest.raises(RunError, match="run"):
        table.read_rows([run])


def test_no_folder_at_all():
    with pytest.raises(RunError, match="no run folder given"):
        table.read_rows([])


def test_a_value_that_is_not_ok_is_refused(tmp_path, rows):
    rows.loc[0, "status"] = "failed"  # and keeps its value
    with pytest.raises(RunError, match="if and only if it is ok"):
        table.read_rows([fake_run.write_run(tmp_path / "run", rows)])


def test_two_runs_make_one_table(tmp_path, rows):
    first = fake_run.write_run(tmp_path / "a", rows[rows["attributor"].eq("lime")])
    second = fake_run.write_run(tmp_path / "b", rows[~rows["attributor"].eq("lime")])
    assert len(table.read_rows([first, second])) == len(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["dataset"].update(hash="other"), "dataset.hash"),
        (lambda r: r["dataset"].update(pairs=40), "dataset.pairs"),
        (lambda r: r["spec"].update(truth={"name": "eq1"}), "truth"),
        (lambda r: r["spec"].update(preset="full"), "preset"),
        (lambda r: r["countermeasures"]["lcnn"].update(weights="xyz"), "weights abc and xyz"),
    ],
)
def test_runs_of_different_benchmarks_are_not_mixed(tmp_path, rows, change, message):
    other = copy.deepcopy(fake_run.run_record())
    change(other)
    first = fake_run.write_run(tmp_path / "a", rows[rows["attributor"].eq("lime")])
    second = fake_run.write_run(tmp_path / "b", rows[~rows["attributor"].eq("lime")], other)
    with pytest.raises(RunError, match=f"cannot share a table.*{message}"):
        table.read_rows([first, second])


def test_a_cell_in_two_runs_counts_once_if_it_is_the_same_cell(tmp_path, rows):
    failed = fake_run.fail(rows, rows["attributor"].eq("lime"))
    runs = [fake_run.write_run(tmp_path / "a", failed), fake_run.write_run(tmp_path / "b", rows)]
    merged = table.read_rows(runs)
    assert len(merged) == len(rows)
    assert merged["status"].eq("ok").all()  # the retry that succeeded stands, not the failure
    changed = rows.assign(fingerprint=rows["fingerprint"] + "-new")
    with pytest.raises(RunError, match="different fingerprints"):
        table.read_rows([runs[0], fake_run.write_run(tmp_path / "c", changed)])


# --- computing ---------------------------------------------------------------------------------------------------------


def test_floors_and_ceilings_are_flagged_and_stand_apart(board):
    assert board["kind"].tolist() == ["ceiling", "method", "method", "method", "floor", "floor"]
    assert board["attributor"].tolist() == ["oracle", "grad-cam", "lime", "saliency", "inverse-energy", "random"]


def test_the_names_of_the_controls_are_those_of_the_controls():
    from xaibench import controls, extremal

    things = [*vars(controls).values(), *vars(extremal).values()]
    names = {thing.name for thing in things if isinstance(thing, Attributor) and thing.control}
    assert names == {*table.FLOORS, *table.SHAMS, *table.CEILINGS}


def test_means_intervals_and_counts(board, rows):
    line = board.set_index("attributor").loc["lime"]
    values = rows[rows["attributor"].eq("lime") & rows["metric"].eq("rank-accuracy")]["value"]
    assert line["rank-accuracy"] == pytest.approx(values.mean())
    assert line["rank-accuracy_low"] < values.mean() < line["rank-accuracy_high"]
    assert (line["rank-accuracy_n"], line["utterances"], line["vocoders"], line["pairs"]) == (12, 6, 2, 12)
    assert line["seconds"] == 0.5 and line["coverage"] == 1 and line["eer"] == 0.05 and line["gaps"] == ""


def test_failed_and_missing_cells_lower_the_coverage_and_never_the_mean(tmp_path, rows):
    lime = rows["attributor"].eq("lime")
    gone = lime & rows["utterance"].isin(["u0", "u1"])
    failed = board_of(tmp_path / "failed", fake_run.fail(rows, gone)).set_index("attributor").loc["lime"]
    missing = board_of(tmp_path / "missing", rows[~gone]).set_index("attributor").loc["lime"]
    kept = rows[lime & ~gone & rows["metric"].eq("rank-accuracy")]["value"]
    for line in (failed, missing):
        assert line["coverage"] == pytest.approx(4 / 6)
        assert line["rank-accuracy"] == pytest.approx(kept.mean())
        assert line["rank-accuracy_n"] == 8
    assert failed["failed"] == 8 and failed["missing"] == 0
    assert failed["gaps"] == "failed 8 (every metric): out of memory"
    assert missing["failed"] == 0 and missing["missing"] == 8
    assert missing["gaps"] == "missing 8: planned, not computed"


def test_the_plan_counts_even_where_no_method_reached_it(tmp_path, rows):
    board = board_of(tmp_path, rows, fake_run.run_record(pairs=24))
    assert board["coverage"].eq(0.5).all() and board["pairs"].eq(24).all()


def test_a_method_without_any_value_is_last_of_its_kind_and_unknown(tmp_path, rows):
    note = "needs gradients"
    board = board_of(tmp_path, fake_run.fail(rows, rows["attributor"].eq("grad-cam"), status="unsupported", note=note))
    assert board["attributor"].tolist()[:4] == ["oracle", "lime", "saliency", "grad-cam"]
    line = board.set_index("attributor").loc["grad-cam"]
    assert np.isnan(line["rank-accuracy"]) and line["rank-accuracy_n"] == 0 and line["coverage"] == 0
    assert line["unsupported"] == 24 and note in line["gaps"]


def test_reasons_are_counted_and_the_rare_ones_summed(tmp_path, rows):
    odd = rows.copy()
    for i, utterance in enumerate(["u0", "u1", "u2", "u3", "u4"]):
        where = odd["attributor"].eq("lime") & odd["utterance"].eq(utterance) & odd["metric"].eq("drop-twin")
        odd = fake_run.fail(odd, where, status="undefined", note=f"reason {max(i, 1)}")
    gaps = board_of(tmp_path, odd).set_index("attributor").loc["lime", "gaps"].split(" | ")
    assert gaps[0] == "undefined 4 (drop-twin): reason 1"
    assert gaps[-1] == "1 other reasons" and len(gaps) == 4


def test_routes_truths_and_countermeasures_are_never_mixed(tmp_path, rows):
    grid = rows.assign(route="grid", value=rows["value"] / 2)
    other = rows.assign(countermeasure="rawnet", value=rows["value"] / 4)
    runs = [fake_run.write_run(tmp_path / name, part) for name, part in (("n", rows), ("g", grid), ("o", other))]
    board = table.board(table.read_rows(runs))
    lime = board[board["attributor"].eq("lime")].set_index(["countermeasure", "route"])["rank-accuracy"]
    native = rows[rows["attributor"].eq("lime") & rows["metric"].eq("rank-accuracy")]["value"].mean()
    assert lime["lcnn", "native"] == pytest.approx(native)
    assert lime["lcnn", "grid"] == pytest.approx(native / 2)
    assert lime["rawnet", "native"] == pytest.approx(native / 4)
    assert len(board) == 18
    assert render.text(board).count("floors]") == 3
    assert np.isnan(board.loc[board["countermeasure"].eq("rawnet"), "eer"]).all()  # run.json knows nothing of it


def test_lower_is_better_where_the_metric_says_so(tmp_path):
    scores = {"good": -2.0, "bad": 3.0, "random": 1.0, "energy": 2.0}
    rows = fake_run.rows({name: {"deletion-twin": mean} for name, mean in scores.items()})
    board = board_of(tmp_path, rows)
    assert board["attributor"].tolist() == ["good", "bad", "random", "energy"]
    margin = board.set_index("attributor")["deletion-twin_margin"]
    assert margin["good"] == pytest.approx(3, abs=0.1) and margin["bad"] == pytest.approx(-2, abs=0.1)
    assert np.isnan(margin["random"])
    assert "random (1) scores above 1 of 2 methods and energy (2) above 1" in said(board)


def test_choosing_and_sorting_columns(tmp_path, rows):
    board = board_of(tmp_path, rows, metrics=["drop-twin", "rank-accuracy"])
    assert table.metrics_of(board) == ["drop-twin", "rank-accuracy"]
    assert board["attributor"].tolist()[1] == "saliency"
    board = board_of(tmp_path, rows, metrics=["drop-twin", "rank-accuracy"], sort="rank-accuracy")
    assert board["attributor"].tolist()[1] == "grad-cam"


def test_an_unknown_metric_is_refused_with_the_nearest_names(tmp_path, rows):
    with pytest.raises(PluginError, match="'rank-acuracy'; did you mean 'rank-accuracy'"):
        board_of(tmp_path, rows, metrics=["rank-acuracy"])
    with pytest.raises(PluginError, match="did you mean 'drop-twin'"):
        board_of(tmp_path, rows, sort="drop-twins")
    with pytest.raises(XaibenchError, match="at least one metric"):
        board_of(tmp_path, rows, metrics=[])
    with pytest.raises(XaibenchError, match="no rows"):
        table.board(rows[:0])


def test_the_same_files_give_the_same_board(tmp_path, rows):
    first = board_of(tmp_path / "a", rows)
    second = board_of(tmp_path / "b", rows.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(first, second)


# --- skill and shams -----------------------------------------------------------------------------------------------------


def scored(tmp_path, name="skill", spread=0.004, **means):
    scores = {n.replace("_", "-"): {"rank-accuracy": r, "drop-twin": d} for n, (r, d) in means.items()}
    return board_of(tmp_path / name, fake_run.rows(scores, spread=spread), metrics=["rank-accuracy", "drop-twin"])


def test_skill_is_the_way_from_the_best_floor_to_the_ceiling(tmp_path):
    board = scored(
        tmp_path, oracle=(1.0, 0.3), random=(0.05, 0.02), energy=(0.25, 0.1), lime=(0.4, 0.2), saliency=(0.1, 0.1)
    )
    rows = board.set_index("attributor")
    assert rows["rank-accuracy_floor"].eq("energy").all() and rows["rank-accuracy_ceiling"].eq("oracle").all()
    exact = (rows.at["lime", "rank-accuracy"] - rows.at["energy", "rank-accuracy"]) / (
        1 - rows.at["energy", "rank-accuracy"]
    )
    assert rows.at["lime", "rank-accuracy_skill"] == pytest.approx(exact, abs=1e-12)
    assert rows.at["lime", "rank-accuracy_skill"] == pytest.approx(0.2, abs=0.01)
    assert rows.at["oracle", "rank-accuracy_skill"] == 1 and rows.at["energy", "rank-accuracy_skill"] == 0
    assert rows.at["saliency", "rank-accuracy_skill"] < -0.1 < 0
    low, high = rows.loc["lime", ["rank-accuracy_skill_low", "rank-accuracy_skill_high"]]
    assert low < exact < high < 0.3
    assert "from energy (.2" in render.text(board).replace("\n", " ") and "to oracle (1.00)" in render.text(board).replace(
        "\n", " "
    )


def test_the_ceiling_of_faithfulness_is_the_better_of_truth_and_optimum_that_of_localisation_the_truth(tmp_path):
    board = scored(tmp_path, oracle=(1.0, 0.3), extremal_twin=(0.1, 2.0), random=(0.05, 0.0), lime=(0.4, 1.0))
    assert board["rank-accuracy_ceiling"].eq("oracle").all() and board["drop-twin_ceiling"].eq("extremal-twin").all()
    assert board.set_index("attributor").at["lime", "drop-twin_skill"] == pytest.approx(0.5, abs=0.02)
    without = scored(tmp_path, "without", oracle=(1.0, 0.3), random=(0.05, 0.0), lime=(0.4, 1.0))
    assert without["drop-twin_ceiling"].eq("oracle").all()
    assert without.set_index("attributor").at["lime", "drop-twin_skill"] > 3


def test_no_skill_without_a_ceiling_above_the_floor_or_where_the_family_has_none(tmp_path):
    low = scored(tmp_path, oracle=(1.0, 0.1), energy=(0.05, 0.2), lime=(0.4, 0.3))
    assert low["drop-twin_skill"].isna().all() and low["rank-accuracy_skill"].notna().all()
    rows = fake_run.rows({"oracle": {"sparseness": 0.9}, "random": {"sparseness": 0.3}, "lime": {"sparseness": 0.5}})
    board = board_of(tmp_path / "complexity", rows, metrics=["sparseness"])
    assert board["sparseness_skill"].isna().all() and board["sparseness_ceiling"].isna().all()
    assert "skill" not in render.text(board).splitlines()[2]


def test_floor_and_ceiling_are_chosen_among_rows_with_every_pair(tmp_path):
    scores = {"oracle": 1.0, "energy": 0.9, "random": 0.5, "lime": 0.6}
    rows = fake_run.rows({n: {"rank-accuracy": v} for n, v in scores.items()})
    few = fake_run.fail(rows, rows["attributor"].eq("energy") & rows["utterance"].ne("u0"))
    board = board_of(tmp_path, few, metrics=["rank-accuracy"]).set_index("attributor")
    assert board["rank-accuracy_floor"].eq("random").all()
    assert board.at["lime", "rank-accuracy_skill"] == pytest.approx(0.2, abs=0.02)


def test_a_section_without_the_metric_asked_for_is_left_out(tmp_path, rows):
    other = fake_run.rows({"lime": {"sparseness": 0.5}}, route="grid")
    board = board_of(tmp_path, pd.concat([rows, other]), metrics=["sparseness"])
    assert set(board["route"]) == {"grid"}


def test_skill_of_a_lower_is_better_metric(tmp_path):
    rows = fake_run.rows(
        {n: {"deletion-twin": v} for n, v in {"oracle": -3.0, "extremal-twin": -11.0, "random": -1.0, "lime": -6.0}.items()}
    )
    board = board_of(tmp_path, rows, metrics=["deletion-twin"]).set_index("attributor")
    assert board.at["lime", "deletion-twin_skill"] == pytest.approx(0.5, abs=0.01)
    assert board.at["oracle", "deletion-twin_skill"] == pytest.approx(0.2, abs=0.01)


def test_the_verdict_says_whether_the_countermeasure_uses_the_truth(tmp_path):
    base = {"oracle": (1.0, 0.3), "random": (0.05, 0.0), "lime": (0.4, 0.2), "energy_matched": (0.0, 0.01)}
    uses = said(scored(tmp_path, "uses", **base, moved_truth=(0.04, 0.02)))
    assert "takes away 30 % of the score's gap" in uses and "lcnn does use it." in uses and "Warning" not in uses
    same = said(scored(tmp_path, "same", **base, moved_truth=(0.04, 0.31)))
    assert "Warning: deleting the truth's region" in same and "say nothing about faithfulness" in same
    assert "uses the truth" not in said(scored(tmp_path, "none", oracle=(1.0, 0.3), random=(0.05, 0.0), lime=(0.4, 0.2)))


def test_intervals_by_speaker_are_of_speakers(tmp_path):
    rows = fake_run.rows(fake_run.SCORES, spread=0.02)
    run = fake_run.write_run(tmp_path / "run", rows)
    table_rows = table.read_rows([run])
    by = {c: table.board(table_rows, cluster=c).set_index("attributor") for c in ("utterance", "speaker")}
    width = {c: (b["rank-accuracy_high"] - b["rank-accuracy_low"]).loc["lime"] for c, b in by.items()}
    assert by["utterance"].at["lime", "rank-accuracy"] == by["speaker"].at["lime", "rank-accuracy"]
    assert width["speaker"] != width["utterance"]  # two speakers, six utterances
    with pytest.raises(PluginError, match="unknown cluster"):
        table.board(table_rows, cluster="vocoder")
    with pytest.raises(XaibenchError, match="have no speaker"):
        table.board(table_rows.assign(speaker=""), cluster="speaker")


# --- the verdict -------------------------------------------------------------------------------------------------------


def test_the_verdict_names_the_control_that_beats_methods(board):
    text = said(board)
    assert "In rank-accuracy, inverse-energy (0.25) scores above 2 of 3 methods." in text
    assert (
        "1 of 3 methods exceeds the best control, inverse-energy, in rank-accuracy" in text
        and ": grad-cam (not corrected" in text
    )
    assert "In drop-twin, no control scores above any of 3 methods; the best control is inverse-energy" in text
    assert "3 of 3 methods exceed the best control, inverse-energy, in drop-twin" in text


def test_the_verdict_follows_the_data(tmp_path):
    scores = copy.deepcopy(fake_run.SCORES)
    scores["inverse-energy"]["rank-accuracy"] = 0.02
    text = said(board_of(tmp_path, fake_run.rows(scores)))
    assert "no control scores above any of 3 methods; the best control is random" in text
    assert "3 of 3 methods exceed the best control, random, in rank-accuracy" in text


def test_the_two_orders_are_compared(tmp_path):
    def tau(flip):
        names = [f"m{i}" for i in range(8)]
        scores = {
            n: {"rank-accuracy": 0.1 + 0.05 * i, "drop-twin": 0.1 * (7 - i if flip else i)} for i, n in enumerate(names)
        }
        return said(board_of(tmp_path / str(flip), fake_run.rows(scores, spread=0.001)))

    assert "Kendall tau 1.00" in tau(False) and "they largely agree" in tau(False)
    assert "Kendall tau -1.00" in tau(True) and "name worst what the score uses" in tau(True)


def test_orders_of_three_methods_prove_nothing(board):
    assert "Kendall tau -1.00 (p = 0.33); too few methods to say" in said(board)


def test_the_checks_of_ceiling_and_chance(tmp_path, board):
    assert "Check: the oracle scores 1 in rank-accuracy, as it must." in said(board)
    assert "Check: the random map's rank-accuracy is 0.0" in said(board)
    scores = copy.deepcopy(fake_run.SCORES)
    scores["oracle"]["rank-accuracy"], scores["random"]["rank-accuracy"] = 0.9, 0.2
    text = said(board_of(tmp_path / "wrong", fake_run.rows(scores)))
    assert re.search(r"Check: the oracle, the truth averaged onto the cells of lcnn, scores 0\.[0-9]+ in rank-acc", text)
    assert "Check failed: the random map's rank-accuracy is 0.2" in text and "does not contain chance, 0.05" in text
    text = said(board_of(tmp_path / "grid", fake_run.rows(scores).assign(route="grid")))
    assert re.search(r"Check failed: the oracle scores 0\.[0-9]+ in rank-accuracy and must score 1", text)


@pytest.mark.parametrize(("eer", "words"), [(0.05, None), (0.31, "errs on 31.0%"), (None, "is unknown")])
def test_a_poor_countermeasure_is_called_so(tmp_path, rows, eer, words):
    board = board_of(tmp_path, rows, fake_run.run_record(eer=eer))
    sentence = verdict(board)[0]
    assert words in sentence if words else "error rate" not in said(board)
    assert ("explains little" in render.text(board).splitlines()[0]) == (eer == 0.31)


def test_missing_rows_are_left_out_of_the_verdict_not_guessed(tmp_path, rows):
    only = board_of(tmp_path / "a", rows[rows["attributor"].isin(["lime", "saliency"])], metrics=["rank-accuracy"])
    assert verdict(only) == []
    floors = board_of(tmp_path / "b", rows[rows["attributor"].eq("random")])
    assert [s[:6] for s in verdict(floors)] == ["Check:"]
    alone = board_of(tmp_path / "c", rows[rows["utterance"].eq("u0")], fake_run.run_record(pairs=2))
    assert "an interval needs two utterances or more" in said(alone)


def test_gaps_are_said(tmp_path, rows):
    text = said(board_of(tmp_path, fake_run.fail(rows, rows["attributor"].eq("lime") & rows["utterance"].eq("u0"))))
    assert "Not all cells are ok for lime (83%)" in text and "No cell has" not in text
    both = fake_run.fail(rows, rows["attributor"].isin(["lime", "random"]), status="void", note="one reason")
    board = board_of(tmp_path / "void", both)
    assert "No cell has a value for lime and random." in said(board) and "Not all cells" not in said(board)
    assert "- lime, random: void 24 (every metric): one reason" in render.text(board)


# --- where nothing tells frequencies apart -----------------------------------------------------------------------------

TEMPORAL = {"rank-accuracy-time": 0.3, "roc-auc-time": 0.6, "drop-twin": 0.5}


def two_sections() -> pd.DataFrame:
    """`lcnn` with both kinds of columns; `rawnet2`, whose maps tell only time apart."""
    names = ("saliency", "random", "oracle")
    both = fake_run.rows({name: {"rank-accuracy": 0.2, "roc-auc": 0.7, **TEMPORAL} for name in names})
    flat = both.assign(countermeasure="rawnet2")
    needs_frequency = flat["metric"].isin(("rank-accuracy", "roc-auc"))
    note = "rank-accuracy needs resolution in frequency, the map has none of its own"
    return pd.concat([both, fake_run.fail(flat, needs_frequency, status="unsupported", note=note)])


def test_temporal_columns_stand_only_where_no_alignment_metric_has_a_value(tmp_path):
    board = board_of(tmp_path, two_sections())
    found = {cm: table.metrics_of(part) for cm, part in board.groupby("countermeasure")}
    assert found == {
        "lcnn": ["rank-accuracy", "roc-auc", "drop-twin"],
        "rawnet2": ["rank-accuracy-time", "roc-auc-time", "drop-twin"],
    }
    assert set(table.metrics_of(board)) == {*found["lcnn"], *found["rawnet2"]}
    assert board["coverage"].eq(1).all() and board["gaps"].eq("").all(), "what is not shown is no gap"
    for text in (render.text(board), render.markdown(board)):
        assert "rawnet2" in text and "time" in text
    sections = {s["countermeasure"]: s for s in json.loads(render.as_json(board))["sections"]}
    first = sections["rawnet2"]["rows"][0]
    assert first["rank-accuracy"] is None and first["rank-accuracy-time"] == pytest.approx(0.3, abs=0.1)
    assert any("rank-accuracy-time" in sentence for sentence in sections["rawnet2"]["verdict"])


def test_one_alignment_value_keeps_the_alignment_columns_and_shows_the_gap(tmp_path):
    rows = two_sections()
    flat = rows["countermeasure"].eq("rawnet2") & rows["metric"].eq("roc-auc") & rows["attributor"].eq("saliency")
    rows.loc[flat, ["status", "value", "note"]] = ["ok", 0.6, ""]
    board = board_of(tmp_path, rows)
    part = board[board["countermeasure"].eq("rawnet2")]
    assert table.metrics_of(part) == ["rank-accuracy", "roc-auc", "drop-twin"]
    assert part["coverage"].lt(1).all()


def test_without_temporal_values_the_columns_stay_those_of_alignment(tmp_path):
    nothing = fake_run.rows({name: {"rank-accuracy": 0.2, "drop-twin": 0.5} for name in ("saliency", "random")})
    board = board_of(tmp_path, fake_run.fail(nothing, nothing["metric"].eq("rank-accuracy"), status="unsupported"))
    assert table.metrics_of(board) == ["rank-accuracy", "drop-twin"]


def test_metrics_asked_for_are_shown_in_every_section_whatever_has_a_value(tmp_path):
    board = board_of(tmp_path, two_sections(), metrics=["roc-auc-time", "rank-accuracy"])
    for _, part in board.groupby("countermeasure"):
        assert table.metrics_of(part) == ["roc-auc-time", "rank-accuracy"]
    assert board[board["countermeasure"].eq("rawnet2")]["rank-accuracy"].isna().all()
    assert board[board["countermeasure"].eq("lcnn")]["rank-accuracy"].notna().all()


def test_sections_are_sorted_by_their_own_first_column(tmp_path):
    scores = {
        "lime": {"rank-accuracy": 0.4, "rank-accuracy-time": 0.1},
        "saliency": {"rank-accuracy": 0.2, "rank-accuracy-time": 0.3},
    }  # fmt: skip
    both = fake_run.rows(scores)
    flat = both.assign(countermeasure="rawnet2")
    flat = fake_run.fail(flat, flat["metric"].eq("rank-accuracy"), status="unsupported")
    board = board_of(tmp_path, pd.concat([both, flat]))
    order = {cm: part["attributor"].tolist() for cm, part in board.groupby("countermeasure")}
    assert order == {"lcnn": ["lime", "saliency"], "rawnet2": ["saliency", "lime"]}


# --- on paper ----------------------------------------------------------------------------------------------------------


def test_the_terminal_table_fits_its_width_and_says_what_it_is(tmp_path):
    means = dict(zip(table.DEFAULT_METRICS, (0.1, 0.6, -0.9, -12.3, 14.5), strict=True))
    names = ("guided-backpropagation", "lrp-alpha2-beta1", "random", "moved-truth", "frequency-prior")
    best = dict(zip(table.DEFAULT_METRICS, (1.0, 1.0, 0.9, -62.3, 64.5), strict=True))
    rows = fake_run.rows({**{name: means for name in names}, "oracle": best})
    text = render.text(board_of(tmp_path, rows, fake_run.run_record(dirty=True)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= render.WIDTH
    assert lines[0].startswith("lcnn (EER 5.0%), native route, truth eq2, toy: 6 utterances x 2 vocoders; from")
    assert "uncommitted" in lines[0] + lines[1]
    order = [
        text.index(mark)
        for mark in ("[ceilings]", "oracle", "[methods]", "lrp-alpha2", "[shams]", "moved-truth", "[floors]", "random")
    ]
    assert order == sorted(order)
    assert sum(line.startswith("guided-backpropagation ") for line in lines) == 1  # on one line
    for column in ("rank- ↑", "accuracy", "auc ↑", "drop-", "twin ↑", "-twin ↓", "skill", "100%"):
        assert column in text


def test_csv_round_trip(tmp_path, board):
    (path,) = render.write(board, tmp_path / "out", ["csv"])
    back = pd.read_csv(path)
    back["gaps"] = back["gaps"].astype(object).fillna("")  # csv has no empty text
    pd.testing.assert_frame_equal(back, board, check_dtype=False)


def test_json_round_trip(tmp_path, rows):
    board = board_of(tmp_path, fake_run.fail(rows, rows["attributor"].eq("grad-cam")))
    (path,) = render.write(board, tmp_path / "out", ["json"])
    (section,) = json.loads(path.read_text())["sections"]
    assert (section["countermeasure"], section["eer"], section["utterances"]) == ("lcnn", 0.05, 6)
    assert section["verdict"] == verdict(board)
    back = pd.DataFrame(section["rows"])
    for column in back.columns:
        expected = board[column]
        if expected.dtype.kind == "f":
            np.testing.assert_array_equal(back[column].astype(float), expected)
        else:
            assert back[column].tolist() == expected.tolist()
    assert next(r for r in section["rows"] if r["attributor"] == "grad-cam")["rank-accuracy"] is None


def test_markdown_is_one_table_whatever_the_names(tmp_path, rows):
    odd = rows.assign(attributor=rows["attributor"].replace("lime", "li|me"))
    odd["note"] = odd["note"].where(odd["status"].eq("ok"), "")
    odd = fake_run.fail(odd, odd["attributor"].eq("saliency"), note="a | b\n<script>")
    text = render.markdown(board_of(tmp_path, odd))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    cells = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(cells)) == 1
    parsed = pd.read_csv(io.StringIO("\n".join(lines[:1] + lines[2:]).replace("\\|", "/")), sep="|").iloc[:, 1:-1]
    assert parsed.iloc[:, 0].str.strip().tolist() == ["oracle", "grad-cam", "li/me", "saliency", "inverse-energy", "random"]
    assert "a \\| b &lt;script>" in text and "<script>" not in text


def test_writing_every_format_twice_gives_the_same_bytes(tmp_path, board):
    first = {p.name: p.read_bytes() for p in render.write(board, tmp_path / "out", list(render.FORMATS))}
    second = {p.name: p.read_bytes() for p in render.write(board, tmp_path / "out", list(render.FORMATS))}
    assert first == second and sorted(first) == [f"leaderboard.{f}" for f in ("csv", "json", "md", "txt")]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(first)


def test_png_draws_the_bars(tmp_path, board):
    (path,) = render.write(board, tmp_path / "out", ["png"])
    assert path.name == "board__toy__eq2__lcnn__native.png" and path.read_bytes().startswith(b"\x89PNG")


def test_pairs_are_counted_where_not_every_vocoder_spoke_every_utterance(tmp_path, rows):
    half = rows[~(rows["utterance"].eq("u0") & rows["vocoder"].eq("world"))]
    first = render.text(board_of(tmp_path, half, fake_run.run_record(pairs=11))).splitlines()[0]
    assert first.endswith("6 utterances x 2 vocoders, 11 pairs of them")


def test_an_unknown_format_and_a_bad_folder_are_refused(tmp_path, board):
    with pytest.raises(XaibenchError, match="'cvs'; did you mean 'csv'"):
        render.write(board, tmp_path, ["cvs"])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        render.write(board, tmp_path / "file", ["csv"])


def test_no_torch(tmp_path, rows):
    run = fake_run.write_run(tmp_path / "run", rows)
    code = (
        "import sys; from pathlib import Path; from xaibench.leaderboard import render, table, verdict;"
        f"b = table.board(table.read_rows([Path({str(run)!r})])); render.text(b); verdict.verdict(b);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rows_of_a_metric_that_is_no_more_are_named_not_dropped_in_silence(tmp_path, rows, capsys):
    from xaibench.cli.output import print_board

    old = rows[rows["metric"].eq("rank-accuracy")].assign(metric="iou")
    run = fake_run.write_run(tmp_path / "run", pd.concat([rows, old]))
    assert table.unknown_metrics(table.read_rows([run])) == ["iou"] and not table.unknown_metrics(rows)
    print_board([run], None)
    assert "metrics that this version does not have are left out: iou" in capsys.readouterr().err


def test_the_precision_of_scores_is_on_the_board_and_never_mixed(tmp_path, rows):
    rounded = fake_run.run_record()
    rounded["spec"]["precision"] = "bf16"
    one = fake_run.write_run(tmp_path / "one", rows, rounded)
    board = table.board(table.read_rows([one]))
    assert "; scores in bf16" in render.text(board) and '"precision": "bf16"' in render.as_json(board)
    other = fake_run.write_run(tmp_path / "other", rows, fake_run.run_record())
    assert "scores in" not in render.text(table.board(table.read_rows([other])))
    with pytest.raises(RunError, match="cannot share a table: precision is 'bf16' and 'fp32'"):
        table.read_rows([one, other])
