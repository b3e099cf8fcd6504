"""A run to a pack and back: what is in it, what is refused, and what a verifier finds in honest and in forged ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import packs
import pandas as pd
import pytest
import toybench
from statsmodels.stats.proportion import proportion_confint

from xaibench import registry
from xaibench.errors import SubmissionError
from xaibench.submission import report
from xaibench.submission.pack import read_pack
from xaibench.submission.privacy import Scrubber
from xaibench.submission.rows import in_order, read_table
from xaibench.submission.sample import draw, most_wrong
from xaibench.submission.submit import pack_run
from xaibench.submission.verify import verify_pack

ALL = 10**6
CELLS = 6 * 4 * 3


@pytest.fixture(scope="module")
def made(root, tmp_path_factory) -> Path:
    """A run folder and its pack, made once: `run`, `pack.zip`."""
    folder = tmp_path_factory.mktemp("submitted")
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, *packs.METHODS)
        packs.toy_run(root, folder / "run")
        (folder / "pack.zip").write_bytes(pack_run(folder / "run")[0])
    return folder


@pytest.fixture
def pack(made, monkeypatch) -> Path:
    toybench.install(monkeypatch, *packs.METHODS)
    return made / "pack.zip"


def verdict_of(pack, root, **options):
    return verify_pack(pack, own=packs.own(root), **{"cells": ALL, "seed": 0, **options})


def check(verdict, name):
    return next(c for c in verdict.checks if c.name == name)


def test_a_pack_of_an_honest_run_agrees_in_every_cell(pack, root):
    verdict = verdict_of(pack, root)
    assert verdict.code == 0, report.as_text(verdict)
    assert len(verdict.cells) == verdict.total == CELLS and verdict.largest < 1e-5
    assert verdict.exact >= CELLS // 3 and verdict.sentence.startswith(f"AGREE: all {CELLS} cells")
    assert f"{CELLS} of {CELLS} rows follow" in check(verdict, "fingerprints").text


def test_the_same_run_is_the_same_file_whatever_its_folder_is_called(made, pack, tmp_path, root):
    shutil.copytree(made / "run", tmp_path / "of-somebody")
    assert pack_run(tmp_path / "of-somebody")[0] == pack.read_bytes()
    again = packs.toy_run(root, tmp_path / "again")
    (tmp_path / "again.zip").write_bytes(pack_run(again)[0])
    first, second = (read_table(read_pack(p).rows).drop(columns="seconds") for p in (pack, tmp_path / "again.zip"))
    pd.testing.assert_frame_equal(first, second)
    assert read_pack(pack).board == read_pack(tmp_path / "again.zip").board


def test_which_cells_are_drawn_depends_on_the_pack_and_the_seed(pack, root):
    def drawn(seed, name):
        return list(draw(rows, 8, pack=name, seed=seed))

    rows = read_table(read_pack(pack).rows)
    assert drawn(0, "a") == drawn(0, "a") != drawn(1, "a") and drawn(0, "a") != drawn(0, "b")
    assert verdict_of(pack, root, cells=2, seed=None).seed != verdict_of(pack, root, cells=2, seed=None).seed


def test_a_draw_asks_every_part_of_the_board_and_every_cell_equally_often():
    names = ["run", "dataset", "speaker", "status", "note", "fingerprint"]
    cells = [
        dict.fromkeys(names, "x") | {"truth": "t", "countermeasure": c, "route": "native", "attributor": a, "metric": m,
                                    "utterance": u, "vocoder": "v", "value": 0.0, "seconds": 0.0}
        for c in "xy" for a in "abc" for m in "mn" for u in "12345"
    ]  # fmt: skip
    table = pd.DataFrame(cells)
    table = in_order(table.assign(**{c: table[c].astype("category") for c in table if c not in ("value", "seconds")}))
    strata = ["countermeasure", "attributor", "metric"]
    counts = np.zeros(len(table))
    for seed in range(250):
        places = draw(table, 12, pack="p", seed=seed)
        counts[places] += 1
        assert not table.iloc[places].duplicated(strata).any()
    assert counts.mean() == 50 and np.abs(counts - 50).max() < 5 * np.sqrt(50 * 0.8)


@pytest.mark.parametrize(("wrong", "drawn"), [(0, 1), (0, 20), (0, 300), (1, 20), (7, 40)])
def test_the_bound_is_clopper_and_pearsons(wrong, drawn):
    expected = proportion_confint(wrong, drawn, alpha=0.1, method="beta")[1]
    assert most_wrong(wrong, drawn, 10**6) == pytest.approx(expected, rel=1e-9)
    if not wrong and drawn > 100:
        assert most_wrong(0, drawn, 10**6) == pytest.approx(3 / drawn, rel=0.01)  # the rule of three


def test_a_forged_value_is_found_and_named(pack, root, tmp_path):
    def better(table):
        mine = table.attributor.eq("toy-gradient") & table.metric.eq("rank-accuracy") & table.utterance.eq("d-1")
        return table.assign(value=table.value.where(~mine, table.value + 0.01))

    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", rows=better), root)
    wrong = [c for c in verdict.cells if c.agrees is False]
    assert verdict.code == 1 and {(c.attributor, c.metric, c.utterance) for c in wrong} == {
        ("toy-gradient", "rank-accuracy", "d-1")
    }
    assert wrong[0].difference == pytest.approx(-0.01, abs=1e-6) and check(verdict, "board").holds
    assert "2 of 72 cells computed again differ" in verdict.sentence


def test_a_forged_status_is_found(pack, root, tmp_path):
    def unlucky(table):
        mine = table.attributor.eq("random") & table.metric.eq("rank-accuracy") & table.utterance.eq("d-1")
        return table.assign(value=table.value.mask(mine), status=table.status.mask(mine, "failed"))

    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", rows=unlucky), root)
    assert verdict.code == 1 and sum(c.agrees is False for c in verdict.cells) == 2


@pytest.mark.parametrize(("number", "by"), [("mean", 0.001), ("low", 0.001), ("skill", 0.001), ("n", 1)])
def test_a_forged_number_of_the_board_is_found(pack, root, tmp_path, number, by):
    def better(lines):
        line = next(x for x in lines if x["attributor"] == "toy-gradient" and x["metric"] == "rank-accuracy")
        line[number] += by
        return lines

    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", board=better), root, cells=1)
    assert verdict.code == 1 and not check(verdict, "board").holds and number in check(verdict, "board").text


@pytest.mark.parametrize("lines", [lambda b: b[1:], lambda b: [*b, b[0]], lambda b: [{**b[0], "metric": "roc-auc"}, *b[1:]]])
def test_a_board_with_other_lines_is_found(pack, root, tmp_path, lines):
    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", board=lines), root, cells=1)
    assert verdict.code == 1 and check(verdict, "board").holds is False


def test_a_removed_row_is_found_though_the_board_is_made_again(pack, root, tmp_path):
    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", rows=lambda t: t.drop(index=20)), root, cells=1)
    assert verdict.code == 1 and "cells are missing" in check(verdict, "plan").text


def test_an_utterance_less_is_found_also_when_the_record_says_so(pack, root, tmp_path):
    def fewer(table):
        return table[~(table.utterance.eq("c-1") & table.vocoder.eq("comb"))]

    picked = packs.forged(pack, tmp_path / "f.zip", rows=fewer, record=lambda r: r["dataset"].update(pairs=5))
    verdict = verdict_of(picked, root, cells=1)
    assert verdict.code == 1 and not check(verdict, "plan").holds and "the first 5 pairs" in check(verdict, "plan").text


def test_swapped_method_names_are_found_by_their_fingerprints(pack, root, tmp_path):
    names = {"random": "toy-gradient", "toy-gradient": "random"}
    swapped = packs.forged(pack, tmp_path / "f.zip", rows=lambda t: t.assign(attributor=t.attributor.replace(names)))
    verdict = verdict_of(swapped, root, cells=1)
    assert verdict.code == 1 and "that of toy-gradient" in check(verdict, "fingerprints").text
    assert sum(c.agrees is None for c in verdict_of(swapped, root).cells) > 6, "and the values are others"


def test_swapped_utterances_and_fingerprints_of_nobody_are_found(pack, root, tmp_path):
    turned = {"c-1": "d-1", "d-1": "c-1"}
    verdict = verdict_of(
        packs.forged(pack, tmp_path / "f.zip", rows=lambda t: t.assign(utterance=t.utterance.replace(turned))), root, cells=1
    )
    assert check(verdict, "fingerprints").holds is False
    some = packs.forged(
        pack, tmp_path / "g.zip", rows=lambda t: t.assign(fingerprint=t.fingerprint.mask(t.utterance.eq("c-1"), "0" * 16))
    )
    assert "some rows of" in check(verdict_of(some, root, cells=1), "fingerprints").text


def test_other_values_of_other_code_are_nobodys_fault(pack, root, tmp_path):
    other = packs.forged(
        pack, tmp_path / "f.zip", rows=lambda t: t.assign(fingerprint="0" * 16, value=t.value + t.attributor.eq("random"))
    )
    verdict = verdict_of(other, root)
    assert verdict.code == 2 and sum(c.agrees is None for c in verdict.cells) == 18
    assert "18 of 72 cells could not be judged" in verdict.sentence and "install those of the pack" in report.as_text(
        verdict
    )


def test_a_missing_plugin_is_named_with_the_line_that_installs_it(made, root, monkeypatch):
    toybench.install(monkeypatch)
    verdict = verdict_of(made / "pack.zip", root)
    assert verdict.code == 2 and sum(c.agrees is True for c in verdict.cells) == CELLS * 3 // 4
    assert "the attributor toy-gradient is not installed: pip install toy-package==1.0" in report.as_text(verdict)


def test_a_missing_countermeasure_other_weights_and_other_data_are_named(pack, root, tmp_path, monkeypatch):
    def reason(change):
        verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", record=change), root, cells=3)
        assert verdict.code == 2 and all(c.agrees is None for c in verdict.cells)
        return check(verdict, "installed").text

    assert "other weights" in reason(lambda r: r["countermeasures"]["toy"].update(weights="0" * 64))
    assert "other data" in reason(lambda r: r["identity"].update(dataset_hash="0" * 64))
    scan = registry._scan()
    monkeypatch.setattr(registry, "_scan", lambda: tuple(p for p in scan if p.name != "toy"))
    assert "pip install toy-package==1.0" in check(verdict_of(pack, root, cells=3), "installed").text


def test_what_differs_between_two_machines_is_named_and_loosens_the_tolerance(pack, root, tmp_path):
    def older(record):
        record["environment"]["packages"]["torch"] = "1.13.0"
        record["origins"]["attributors/toy-gradient"] = "toy-package 0.9"

    verdict = verdict_of(packs.forged(pack, tmp_path / "f.zip", record=older), root, cells=4)
    assert verdict.code == 0 and "torch: '1.13.0' in the pack" in " ".join(verdict.differences)
    assert "of toy-package 0.9 in the pack, of toy-package 1.0 here" in " ".join(verdict.differences)
    assert verdict.cells[0].tolerance > verdict_of(pack, root, cells=4).cells[0].tolerance


def test_options_of_a_stranger_that_a_plugin_does_not_take_are_named(pack, root, tmp_path):
    for theirs, name in (("options", "toy-gradient"), ("cm_options", "toy")):
        other = packs.forged(
            pack, tmp_path / "f.zip", record=lambda r, t=theirs, n=name: r["spec"][t].update({n: {"bogus": 1}})
        )
        verdict = verdict_of(other, root, cells=4)
        assert verdict.code == 2 and "bogus" in check(verdict, "installed").text
        assert verdict.options == (f"{'option' if theirs == 'options' else 'countermeasure option'} {name}.bogus = '1'",)


def test_a_data_set_of_the_authors_own_is_verified_with_the_same_files(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, *packs.METHODS)
    packs.toy_run(root, tmp_path / "run", limit=2, data=str(root / "toy.toml"))
    (tmp_path / "p.zip").write_bytes(pack_run(tmp_path / "run")[0])
    without = verdict_of(tmp_path / "p.zip", root, cells=2)
    assert without.code == 2 and "--data FILE.toml" in check(without, "installed").text
    mine = replace(packs.own(root), data=str(root / "toy.toml"))
    assert verify_pack(tmp_path / "p.zip", cells=2, own=mine).code == 0


def test_verifying_writes_nothing(pack, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(root.rglob("*")), sorted(pack.parent.rglob("*"))
    verdict_of(pack, root, cells=3)
    assert before == (sorted(root.rglob("*")), sorted(pack.parent.rglob("*"))) and not list(tmp_path.iterdir())


# --- what is refused ------------------------------------------------------------


@pytest.fixture
def copied(made, tmp_path, monkeypatch) -> Path:
    toybench.install(monkeypatch, *packs.METHODS, "toy-nan")
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r["environment"].update(git_dirty=True), "dirty: uncommitted code"),
        (lambda r: r["earlier"].append({"spec": r["spec"], "environment": {"git_dirty": True}}), "dirty: uncommitted code"),
        (
            lambda r: r["countermeasures"]["toy"].update(void="its EER is 90%"),
            "void: the countermeasure toy: its EER is 90%",
        ),
        (lambda r: r["dataset"].update(pairs=7), "lacks 3 of 21 cells"),
        (lambda r: r["spec"]["attributors"].append("toy-deaf"), "toy-deaf on toy has no cell"),
        (lambda r: r.pop("origins"), "its run.json has no origins"),
    ],
)
def test_a_run_that_no_board_would_rank_is_refused(copied, change, why):
    packs.edit_record(copied, change)
    with pytest.raises(SubmissionError, match="cannot be submitted") as caught:
        pack_run(copied)
    assert why in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused_by_name(copied, number):
    packs.edit_record(copied, lambda r: r["countermeasures"]["toy"].update(card={"eer": {"dev": {"x": number}}}))
    with pytest.raises(SubmissionError, match=r"run\.json: a number in it is NaN or infinite"):
        pack_run(copied)


def test_a_run_without_a_value_or_with_rows_missing_is_refused(copied, root, tmp_path):
    next((copied / "rows" / "toy").rglob("toy-gradient/*.parquet")).unlink()
    with pytest.raises(SubmissionError, match="toy-gradient on toy lacks 6 of 18 cells"):
        pack_run(copied)
    with pytest.raises(SubmissionError, match="no method, only controls"):
        pack_run(packs.toy_run(root, tmp_path / "controls", "random", "oracle"))
    with pytest.raises(SubmissionError, match="none of its methods has a value"):
        pack_run(packs.toy_run(root, tmp_path / "nan", "toy-nan", "random", "oracle"))


def test_no_folder_and_no_name_of_the_author_is_in_a_pack(made, pack, root):
    members = read_pack(pack)
    everything = json.dumps([members.run, members.board]).encode() + members.rows
    for private in (str(root), str(made), "safetensors", '"root"', str(Path.home())):
        assert private.encode() not in everything


def test_reasons_are_scrubbed_and_names_with_paths_refused(copied, monkeypatch):
    def rewrite(change):
        (copied / "SHA256SUMS").unlink(missing_ok=True)
        for file in (copied / "rows").rglob("random/*.parquet"):
            change(pd.read_parquet(file)).to_parquet(file, index=False)

    rewrite(
        lambda t: t.assign(
            value=np.nan, status="failed", note="OSError:\x1b[31m /home/ada/secret/a.wav on box7, C:\\Users\\ada\\x"
        )
    )
    monkeypatch.setattr("socket.gethostname", lambda: "box7")
    content, notes = pack_run(copied)
    (copied.parent / "p.zip").write_bytes(content)
    (reason,) = read_table(read_pack(copied.parent / "p.zip").rows).note.unique().tolist()[1:]
    assert reason == "OSError:\N{REPLACEMENT CHARACTER}[31m …/a.wav on …, …" and any("1 texts named" in n for n in notes)
    rewrite(lambda t: t.assign(speaker="/home/ada/speakers/ada"))
    with pytest.raises(SubmissionError, match="a speaker of these rows holds '/home/ada/speakers/ada'"):
        pack_run(copied)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see /home/ada/x/y.flac: gone", "see …/y.flac: gone"), ("~ada/lib/z", "…"), ("file:///srv/data/q.toml", "…/q.toml"),
        (r"\\nas\share\ada", "…"), ("D:\\runs\\1", "…"), ("ADA wrote it", "… wrote it"), ("Canada", "Canada"),
        ("1/2, and/or, https://a.org/b/c, s/utt, p225/p225_001", "1/2, and/or, https://a.org/b/c, s/utt, p225/p225_001"),
    ],
)  # fmt: skip
def test_what_is_scrubbed(text, clean):
    scrub = Scrubber(folders=("/home/ada",), names=("ada",))
    assert scrub(text) == clean and not scrub.leak(clean) and bool(scrub.leak(text)) == (text != clean)


# --- what an author published ------------------------------------------------------------

CLAIM = (
    '[[claim]]\nmethod = "toy-gradient"\ncountermeasure = "toy"\nmetric = "rank-accuracy"\nvalue = 0.9\nsource = "Table 1"\n'
)


def test_published_numbers_stand_beside_those_of_the_pack(copied, root, tmp_path):
    (tmp_path / "claims.toml").write_text(CLAIM, encoding="utf-8")
    (tmp_path / "p.zip").write_bytes(pack_run(copied, tmp_path / "claims.toml")[0])
    verdict = verdict_of(tmp_path / "p.zip", root)
    (claim,) = verdict.claims
    mean = next(
        x for x in read_pack(tmp_path / "p.zip").board if x["attributor"] == "toy-gradient" and x["metric"] == claim.metric
    )
    assert (claim.published, claim.packed, claim.drawn, claim.agreed) == (0.9, mean["mean"], 6, 6)
    page = report.as_markdown(verdict)
    assert "| toy-gradient | toy (native, eq2) | rank-accuracy | 0.9 |" in page and "6 of 6 agree | Table 1 |" in page
    assert (
        "published 0.9" in report.as_text(verdict) and json.loads(report.as_json(verdict))["claims"][0]["published"] == 0.9
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CLAIM.replace("toy-gradient", "toy-gradent"), "did you mean toy-gradient"),
        (CLAIM.replace("0.9", '"0.9"'), "not a finite number"),
        (CLAIM.replace("0.9", "nan"), "not a finite number"),
        (CLAIM.replace("source", "sauce"), "missing or unknown"),
        (CLAIM + 'route = "grid"\n', "has no route"),
        ("claim = 1", "expected a list"),
        ("x = 1", "expected .* tables and nothing else"),
        ("[[claim", "not TOML in UTF-8"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(copied, tmp_path, text, why):
    (tmp_path / "claims.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SubmissionError, match=why):
        pack_run(copied, tmp_path / "claims.toml")


# --- the commands ------------------------------------------------------------


def test_the_commands_say_how_it_went_by_their_exit_code(command, copied, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("submit", copied)
    assert code == 0 and out.startswith("run.zip: ")
    mine = ("--root", root, "--checkpoint", f"toy={root / 'weights' / 'toy.safetensors'}", "--device", "cpu", "--seed", 3)
    code, out, _ = command("verify", "run.zip", "--cells", 3, *mine, "--out", "report.md")
    assert code == 0 and "AGREE: 3 of 3 cells" in out and "AGREE" in Path("report.md").read_text(encoding="utf-8")
    packs.forged(tmp_path / "run.zip", tmp_path / "f.zip", rows=lambda t: t.assign(value=t.value + 0.5))
    assert command("verify", "f.zip", "--cells", 3, *mine)[0] == 1
    (tmp_path / "no.zip").write_bytes(b"no zip")
    code, _, err = command("verify", "no.zip")
    assert code == 2 and err.startswith("error: not a zip")
    assert command("verify", "run.zip", *mine, "--out", "report.exe")[0] == 2
    packs.edit_record(copied, lambda record: record["environment"].update(git_dirty=True))
    code, _, err = command("submit", copied, "--out", "other.zip")
    assert code == 2 and "dirty" in err and not Path("other.zip").exists()
