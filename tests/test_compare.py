"""A comparison of run folders: what is tested against what, in which direction, over which clusters, and how it reads."""

import json
import re
import subprocess
import sys

import fake_run
import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from xaibench import comparisons
from xaibench.errors import PluginError, RunError, XaibenchError
from xaibench.leaderboard import compare, table

SCORES = {
    "saliency": {"rank-accuracy": 0.10, "deletion-twin": -0.9},
    "lime": {"rank-accuracy": 0.253, "deletion-twin": -0.6},
    "grad-cam": {"rank-accuracy": 0.40, "deletion-twin": -0.3},
    "inverse-energy": {"rank-accuracy": 0.25, "deletion-twin": -0.2},
    "random": {"rank-accuracy": 0.05, "deletion-twin": -0.1},
    "oracle": {"rank-accuracy": 1.0, "deletion-twin": -0.95},
}


@pytest.fixture
def rows():
    return fake_run.rows(SCORES, utterances=10)


def one(rows, **options):
    return compare.compare(rows, **options).comparisons[0]


def said(comparison):
    return "\n".join(compare.sentences(comparison))


# --- against one reference ---------------------------------------------------------------------------------------------


def test_methods_are_tested_against_the_best_control_and_controls_never(rows):
    found = compare.paired_table(rows, "rank-accuracy")
    assert found["attributor"].tolist() == ["grad-cam", "lime", "saliency"]
    assert found["against"].eq("inverse-energy").all() and found["n"].eq(10).all()
    assert found["difference"].iloc[0] == pytest.approx(0.15, abs=0.005)
    assert (np.sign(found["effect"]) == np.sign(found["difference"])).all()


def test_positive_is_better_whatever_the_direction(rows):
    # deletion: lower is better, and inverse-energy, at -0.2, is the best control
    found = compare.paired_table(rows, "deletion-twin").set_index("attributor")
    assert list(found.index) == ["saliency", "lime", "grad-cam"]
    assert found["mean"].iloc[0] == pytest.approx(-0.9, abs=0.01)
    assert found["difference"].iloc[0] == pytest.approx(0.7, abs=0.01) and found["effect"].eq(1).all()


def test_the_numbers_are_the_boards_and_those_of_wilcoxon_over_utterances(rows):
    found = compare.paired_table(rows, "rank-accuracy").set_index("attributor")
    board = table.board(rows.assign(eer=0.05, pairs=20, dirty=False, precision="fp32")).set_index("attributor")
    for column, of_board in (("difference", ""), ("low", "_low"), ("high", "_high")):
        assert found[column].to_dict() == pytest.approx(board.loc[found.index, f"rank-accuracy_margin{of_board}"].to_dict())
    wide = rows[rows["metric"].eq("rank-accuracy")].pivot_table(index="utterance", columns="attributor", values="value")
    expected = scipy_stats.wilcoxon(wide["lime"] - wide["inverse-energy"], method="exact").pvalue
    assert found.at["lime", "p"] == pytest.approx(expected)
    assert found["p_holm"].to_dict() == pytest.approx(dict(zip(found.index, comparisons.holm(found["p"]), strict=True)))


def test_a_named_reference_may_be_a_method(rows):
    found = compare.paired_table(rows, "rank-accuracy", against="lime")
    assert found["attributor"].tolist() == ["grad-cam", "saliency"] and found["against"].eq("lime").all()
    with pytest.raises(PluginError, match=r"'limey'.*lime"):
        compare.paired_table(rows, "rank-accuracy", against="limey")


def test_speakers_as_clusters(rows):
    rows["speaker"] = rows["utterance"].map(lambda u: f"s{int(u[1:]) % 5}")
    by_speaker = compare.paired_table(rows, "rank-accuracy", cluster="speaker").set_index("attributor")
    by_utterance = compare.paired_table(rows, "rank-accuracy").set_index("attributor")
    assert by_speaker["n"].eq(5).all()
    assert by_speaker["difference"].to_dict() == pytest.approx(by_utterance["difference"].to_dict())
    assert (by_speaker["low"] != by_utterance["low"]).all()
    assert "With 5 speakers no method can" in said(one(rows, metrics=["rank-accuracy"], cluster="speaker"))
    with pytest.raises(XaibenchError, match="2 utterances have no speaker"):
        compare.paired_table(rows.assign(speaker=rows["speaker"].replace("s1", "")), "rank-accuracy", cluster="speaker")
    with pytest.raises(XaibenchError, match=r"cluster 'speakers'.*speaker"):
        compare.paired_table(rows, "rank-accuracy", cluster="speakers")


def test_missing_cells_leave_pairs_and_blocks_out(rows):
    gone = rows["attributor"].eq("lime") & rows["utterance"].isin(["u0", "u1", "u2"])
    half = rows["attributor"].eq("saliency") & rows["utterance"].eq("u9") & rows["vocoder"].eq("world")
    found = one(fake_run.fail(rows, gone | half), metrics=["rank-accuracy"])
    line = found.table.set_index("attributor")
    assert line["n"].to_dict() == {"grad-cam": 10, "lime": 7, "saliency": 10}
    assert (found.complete, found.clusters, found.scarce, found.friedman.n) == (7, 10, "lime", 7)
    assert "3 left out, most for want of lime" in said(found)


def test_a_block_compares_methods_on_the_same_vocoders():
    rows = fake_run.rows({name: {"rank-accuracy": 0.1} for name in ("lrp", "lime", "cam", "random")}, spread=0)
    easy = rows["vocoder"].eq("world")
    rows.loc[easy, "value"] = 0.9
    rows.loc[easy & rows["attributor"].eq("lime"), "value"] = np.nan
    rows.loc[rows["value"].isna(), "status"] = "failed"
    assert one(rows).friedman.ranks.tolist() == [2.0, 2.0, 2.0]  # on what all have, they tie
    assert one(rows).table["difference"].eq(0).all()


def test_methods_without_a_common_pair_are_untested_and_not_counted_by_holm(rows):
    never = rows["attributor"].eq("lime") & rows["vocoder"].eq("world")
    rows = fake_run.fail(rows, never | (rows["attributor"].eq("inverse-energy") & rows["vocoder"].eq("griffinlim")))
    rows = rows[~(rows["attributor"].eq("random"))]
    found = one(rows, metrics=["rank-accuracy"])
    line = found.table.set_index("attributor").loc["lime"]
    assert np.isnan(line["p_holm"]) and line["n"] == 0
    assert found.table["p_holm"].dropna().tolist() == pytest.approx([4 / 1024, 4 / 1024])
    assert "Of 2 methods" in said(found) and np.isnan(line["needed"])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: r, {"metrics": ["rank-acuracy"]}, "rank-accuracy"),
        (lambda r: r[~r["attributor"].isin(["inverse-energy", "random"])], {}, "no control.*--against"),
        (lambda r: r[~r["attributor"].isin(["lime", "saliency", "grad-cam"])], {}, "nothing to compare"),
        (lambda r: fake_run.fail(r, r["metric"].eq("rank-accuracy")), {"metrics": ["rank-accuracy"]}, "no cell has a value"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(rows, change, options, message):
    with pytest.raises(XaibenchError, match=message):
        compare.compare(change(rows), **options)


# --- every two methods, ranks, Bayes -----------------------------------------------------------------------------------


def test_every_two_methods(rows):
    found = compare.pair_table(rows, "rank-accuracy")
    assert list(zip(found["first"], found["second"], strict=True)) == [
        ("grad-cam", "lime"), ("grad-cam", "saliency"), ("lime", "saliency"),
    ]  # fmt: skip
    assert (found["difference"] > 0).all() and found["p_holm"].tolist() == pytest.approx([6 / 1024] * 3)


def test_ranks_stand_in_the_table(rows):
    found = one(rows, metrics=["deletion-twin"])
    assert found.table.set_index("attributor")["rank"].to_dict() == {"saliency": 1.0, "lime": 2.0, "grad-cam": 3.0}


def test_two_methods_have_no_ranks(rows):
    found = one(rows[~rows["attributor"].eq("lime")])
    assert found.friedman is None and found.table["rank"].isna().all() and "Friedman" not in said(found)


def test_the_bayesian_columns_are_there_when_asked_for(rows):
    assert "p_better" not in one(rows).table
    found = one(rows, rope="auto")  # 1 % of a range of one
    assert found.rope == pytest.approx(0.01)
    line = found.table.set_index("attributor")
    assert line.at["grad-cam", "p_better"] > 0.99 and line.at["saliency", "p_worse"] > 0.99
    assert line.at["lime", "p_same"] > 0.9
    assert one(rows, rope=0.5).table["p_same"].eq(1).all()
    assert compare.region(pd.DataFrame({"a": [0.0, 2.0], "b": [0.0, 2.0]}), "drop-twin") == pytest.approx(0.1 * np.sqrt(2))


def test_few_blocks_have_no_ranks(rows):
    found = one(rows[rows["utterance"].isin([f"u{i}" for i in range(5)])], metrics=["rank-accuracy"])
    assert found.friedman is None and "No ranks: 5 utterances" in said(found) and "ranks need 6" in said(found)


# --- sentences ---------------------------------------------------------------------------------------------------------


def test_what_it_says(rows):
    text = said(one(rows, metrics=["rank-accuracy"]))
    assert re.search(r"Of 3 methods, [23] differ from inverse-energy after Holm's correction \(better: .*grad-cam", text)
    assert "worse: saliency" in text and "Of 3 pairs of methods, 3 differ" in text
    assert "Friedman's test over 10 utterances (none left out) and 3 methods" in text and "the average ranks differ" in text
    assert "To tell grad-cam from inverse-energy with a power of 80 % takes about 6 utterances (10 here)" in text


def test_equal_methods_need_no_number_of_utterances():
    rows = fake_run.rows({n: {"rank-accuracy": 0.05} for n in ("lime", "lrp", "cam", "constant")}, spread=0)
    text = said(one(rows))
    assert "Of 3 methods, none differ from constant" in text and "no number of utterances" in text
    assert "not shown to differ" in text


# --- orders ------------------------------------------------------------------------------------------------------------


def test_metrics_order_the_methods_and_controls_do_not_count(rows):
    orders = next(iter(compare.agreements(rows, ["rank-accuracy", "deletion-twin"])))
    # better by rank accuracy: grad-cam, lime, saliency; by deletion (lower is better): the other way round
    assert orders.labels == ("rank-accuracy", "deletion-twin") and orders.tau.tolist() == [[1, -1], [-1, 1]]
    assert orders.methods.tolist() == [[3, 3], [3, 3]]
    assert orders.frame().to_dict("records") == [
        {"first": "rank-accuracy", "second": "deletion-twin", "tau": -1.0, "low": -1.0, "high": -1.0, "methods": 3}
    ]


def test_routes_and_countermeasures_are_orders_of_their_own(rows):
    other = rows.assign(route="common", value=rows["value"] + 1)
    third = rows[~rows["attributor"].eq("lime")].assign(countermeasure="aasist")
    report = compare.compare(pd.concat([rows, other, third]), metrics=["rank-accuracy"])
    assert len(report.comparisons) == 3
    (orders,) = report.orders
    assert orders.labels == ("aasist native", "lcnn common", "lcnn native")
    assert orders.tau[1, 2] == 1 and orders.methods[0].tolist() == [2, 2, 2] and np.isnan(orders.tau[0, 1])


def test_runs_that_cannot_share_a_table_are_read_apart_and_named(tmp_path, rows):
    first = fake_run.write_run(tmp_path / "seed0", rows)
    swapped = rows.assign(attributor=rows["attributor"].replace({"lime": "grad-cam", "grad-cam": "lime"}))
    second = fake_run.write_run(tmp_path / "seed1", swapped, fake_run.run_record(weights="xyz"))
    read, notes = compare.read_sources([first, second])
    assert len(read) == 2 * len(rows) and "weights abc and xyz" in notes[0]
    report = compare.compare(read, metrics=["rank-accuracy"], notes=notes)
    assert [c.facts["source"] for c in report.comparisons] == ["seed0", "seed1"]
    assert report.orders[0].labels == ("seed0", "seed1") and report.orders[0].tau[0, 1] == pytest.approx(1 / 3)
    same, none = compare.read_sources([first, first])
    assert len(same) == len(rows) and none == () and same["source"].eq("").all()
    with pytest.raises(RunError, match="not a run folder"):
        compare.read_sources([first, tmp_path / "nowhere"])


# --- on paper ----------------------------------------------------------------------------------------------------------


def test_files_hold_every_number_and_pictures_are_pictures(tmp_path, rows):
    report = compare.compare(rows, metrics=["rank-accuracy", "deletion-twin"], rope="auto")
    paths = compare.write(report, tmp_path / "out")
    assert [p.name for p in paths] == [
        "compare.md", "compare.csv", "compare.json", "agreement-metrics.csv", "cd-rank-accuracy.png", "cd-rank-accuracy.svg",
        "cd-deletion-twin.png", "cd-deletion-twin.svg", "agreement-metrics.png", "agreement-metrics.svg",
    ]  # fmt: skip
    by_name = {p.name: p for p in paths}
    assert len(pd.read_csv(by_name["compare.csv"])) == 6
    content = json.loads(by_name["compare.json"].read_text(encoding="utf-8"))
    first = content["comparisons"][0]
    assert first["against"] == "inverse-energy" and len(first["rows"]) == 3 and len(first["pairs"]) == 3
    assert first["friedman"]["ranks"]["grad-cam"] == 1 and np.shape(first["friedman"]["nemenyi"]) == (3, 3)
    text = by_name["compare.md"].read_text(encoding="utf-8")
    assert all(sentence in text for sentence in compare.sentences(report.comparisons[0]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 2 * (2 + 3)
    for name, path in by_name.items():
        if name.endswith("png"):
            assert path.read_bytes().startswith(b"\x89PNG")
        elif name.endswith("svg"):
            assert "<svg" in path.read_text(encoding="utf-8")[:2000]
    before = {p.name: p.read_bytes() for p in paths}
    compare.write(report, tmp_path / "again")
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == before


def test_sections_have_pictures_of_their_own(tmp_path, rows):
    rows = pd.concat([rows, rows.assign(route="common")])
    names = [p.name for p in compare.write(compare.compare(rows, metrics=["rank-accuracy"]), tmp_path)]
    assert "cd-rank-accuracy__common.png" in names and "cd-rank-accuracy__native.svg" in names
    assert "agreement-rank-accuracy.png" in names


def test_forty_methods_fit_without_touching(tmp_path):
    from xaibench import diagrams

    rng = np.random.default_rng(0)
    found = comparisons.friedman(rng.normal(size=(60, 40)) + np.linspace(0, 1.5, 40))
    names = [f"integrated-gradients-{i}" for i in range(40)]
    figure = diagrams._ranks(found, names, "forty", "utterance")
    canvas = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(canvas) for text in figure.axes[0].texts]
    assert all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(b.x0 >= 0 and b.x1 <= figure.bbox.x1 and b.y0 >= 0 and b.y1 <= figure.bbox.y1 for b in boxes)
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert all(any(name in text.split() for text in shown) for name in names)
    with pytest.raises(XaibenchError, match="39 names for 40"):
        diagrams.critical_difference(found, names[:39], tmp_path / "cd")
    with pytest.raises(XaibenchError, match="2 labels"):
        diagrams.agreement(np.eye(3), ["a", "b"], tmp_path / "a")


def test_a_folder_that_cannot_be_written(tmp_path, rows):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        compare.write(compare.compare(rows), tmp_path / "file")


def test_the_command_prints_and_writes(tmp_path, rows):
    from typer.testing import CliRunner

    from xaibench.cli import app

    run = fake_run.write_run(tmp_path / "run", rows)
    arguments = ["compare", str(run), "--metric", "rank-accuracy", "--bayes", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "after Holm's correction" in done.output and "P b/s/w" in done.output
    assert (tmp_path / "out" / "compare.md").is_file()


def test_boards_load_none_of_the_libraries_of_tests():
    modules = "xaibench.cli, xaibench.leaderboard.compare, xaibench.leaderboard.render"
    code = f"import sys, {modules}\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "xaibench" in loaded and not loaded & {"torch", "statsmodels", "scikit_posthocs", "matplotlib", "seaborn"}
