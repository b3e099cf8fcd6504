"""What the pages show is what the board says: every number, the order, the marks; nothing is made up on the way."""

import fake_run
import numpy as np
import pandas as pd
import pytest

from xaibench.leaderboard import render, table, verdict
from xaibench.site import content
from xaibench.site.source import read, section


@pytest.fixture
def rows():
    scores = fake_run.SCORES | {"moved-truth": {"rank-accuracy": 0.06, "drop-twin": 0.15}}
    some = fake_run.rows({name: means | {"iou@5": means["rank-accuracy"] / 2} for name, means in scores.items()})
    return fake_run.fail(some, some["attributor"].eq("lime") & some["utterance"].eq("u3") & some["metric"].eq("drop-twin"))


@pytest.fixture
def run(tmp_path, rows):
    return fake_run.write_run(tmp_path / "run", rows)


@pytest.fixture
def board(run):
    (found,) = read([run]).boards
    return found


def test_every_number_is_the_board_s(run, board):
    expected = table.board(table.read_rows([run]), metrics=["rank-accuracy", "drop-twin", "iou@5"]).set_index("attributor")
    assert [c.metric for c in board.columns] == ["rank-accuracy", "drop-twin", "iou@5"]
    assert [c.usual for c in board.columns] == [True, True, False]
    assert {line.name for line in board.lines} == set(expected.index)
    for line in board.lines:
        row = expected.loc[line.name]
        assert (line.seconds, line.coverage) == (row["seconds"], row["coverage"])
        for reading in line.readings:
            for field, end in (("value", ""), ("low", "_low"), ("high", "_high"), ("skill", "_skill")):
                found, wanted = getattr(reading, field), row[f"{reading.metric}{end}"]
                assert (found is None and np.isnan(wanted)) or found == wanted, (line.name, reading.metric, field)


def test_order_and_blocks_are_the_terminal_s(run, board):
    usual = table.board(table.read_rows([run]))
    assert [line.name for line in board.lines] == usual["attributor"].tolist()
    assert [b.kind for b in board.blocks] == list(render.BLOCKS)
    assert board.said == tuple(verdict.verdict(usual))


def test_what_is_missing_is_named_with_its_reason(board):
    ((names, why),) = board.missing
    assert names == "lime" and "out of memory" in why and "drop-twin" in why
    line = next(line for line in board.lines if line.name == "lime")
    assert line.coverage == pytest.approx(1 - 2 / 36) and line.share == "94%"


def test_ceilings_have_no_whisker_and_methods_do(board):
    at = {line.name: line.readings[0] for line in board.lines}
    assert at["oracle"].skill == 1 and not at["oracle"].whisker
    assert at["grad-cam"].whisker and at["grad-cam"].skill_low < at["grad-cam"].skill < at["grad-cam"].skill_high


def test_headlines_name_the_best_method_and_control(board):
    first, second = board.headlines
    assert (first.metric, first.method, first.control) == ("rank-accuracy", "grad-cam", "inverse-energy")
    assert (second.metric, second.method, second.control) == ("drop-twin", "saliency", "inverse-energy")


@pytest.mark.parametrize(
    ("skill", "drawn"),
    [(0.0, ("M16.7 5H16.7", "")), (-3.0, ("M16.7 5H0", "")), (1.0, ("M16.7 5H100", "")), (None, ("", ""))],
)
def test_bars_stay_in_their_box(skill, drawn):
    assert content.bar(skill) == drawn


def test_an_end_outside_the_box_is_cut_and_has_no_cap():
    assert content.bar(0.1, -4.0, 7.0) == ("M16.7 5H25", "M0 5H100")


# --- marks ---------------------------------------------------------------------------------------------------------------

CARD = {"card": {"trained_on": {"data": {}}}, "weights": "abc", "eer": 0.05}


def record(**changes):
    ours = {"countermeasures": {"lcnn": CARD}, "origins": {"attributors/lrp": "xaibench-zennit 0.1.0"}}
    return fake_run.run_record() | ours | changes


def stamp_of(tmp_path, rows, given):
    return read([fake_run.write_run(tmp_path / "run", rows, given)]).boards[0].stamp


def test_a_run_of_ours_from_a_commit_has_no_mark(tmp_path, rows):
    stamp = stamp_of(tmp_path, rows, record())
    assert not stamp.dirty and not stamp.unverified and len(stamp.fingerprint) == 12


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": fake_run.run_record(checkpoints={"lcnn": "x"})["spec"]}, "that its package does not ship"),
        ({"countermeasures": {"lcnn": CARD | {"card": {}}}}, "no card"),
        ({"environment": {"git_commit": None}}, "no known commit"),
        ({"origins": {"attributors/x": "someone-else 2.0"}}, "packages from elsewhere: someone-else"),
        ({"origins": {"attributors/x": "xaibench-look-alike 1"}}, "packages from elsewhere: xaibench-look-alike"),
    ],
)
def test_what_cannot_be_vouched_for_is_marked_with_the_reason(tmp_path, rows, changes, reason):
    stamp = stamp_of(tmp_path, rows, record(**changes))
    assert stamp.unverified and len(stamp.reasons) == 1 and reason in stamp.reasons[0]


def test_uncommitted_code_is_marked(tmp_path, rows):
    assert stamp_of(tmp_path, rows, record(environment={"git_commit": "0" * 40, "git_dirty": True})).dirty


def test_the_fingerprint_is_of_the_rows_and_of_no_folder(tmp_path, rows):
    first = stamp_of(tmp_path / "a", rows, record())
    again = stamp_of(tmp_path / "b", rows.sample(frac=1, random_state=0), record())
    other = stamp_of(tmp_path / "c", rows.assign(fingerprint=rows["fingerprint"] + "x"), record())
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_date_is_the_run_s_own_where_it_says_one(tmp_path, rows):
    said = record(days=["2025-03-01", "2025-03-04"])
    assert stamp_of(tmp_path, rows, said).date == "2025-03-04"


def test_sections_are_pages_of_their_own_and_have_their_own_rows(tmp_path, rows):
    both = [rows, rows.assign(countermeasure="rawnet2", value=rows["value"] / 2)]
    runs = [fake_run.write_run(tmp_path / "a", both[0], record())]
    runs.append(fake_run.write_run(tmp_path / "b", both[1], record(countermeasures={"rawnet2": CARD | {"eer": 0.3}})))
    source = read(runs)
    first, second = source.boards
    assert first.page != second.page and (first.poor, second.poor) == (False, True)
    assert section(source, second)["countermeasure"].eq("rawnet2").all() and len(section(source, first)) == len(rows)


def test_metrics_of_another_version_are_left_out(tmp_path, rows):
    gone = rows[rows["metric"].eq("iou@5")].assign(metric="no-longer")
    (board,) = read([fake_run.write_run(tmp_path / "run", pd.concat([rows, gone]))]).boards
    assert "no-longer" not in [c.metric for c in board.columns]
