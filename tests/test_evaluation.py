"""Evaluation: every recording scored once, whatever happens on the way; the table and its costs; the DET figure."""

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from toys import N_SAMPLES, LinearCM

from xaibench import audio, det
from xaibench.detection_table import COSTS, AsvScores, Scores, collect, collect_asv, summary
from xaibench.errors import AudioError, RunError, XaibenchError
from xaibench.evaluation import evaluate_files, evaluate_scores, needs_vocoder, utterance_name
from xaibench.metrics import tdcf
from xaibench.metrics.detection import equal_error_rate
from xaibench.scorefile import AsvTrial, Trial, read_trials, write_trials
from xaibench.scoring import score_recordings
from xaibench.types import Utterance

RATE = 16_000
GOLDEN = "b1 - bonafide 3\nb2 - bonafide 1\nb3 - bonafide -1\ns1 A07 spoof -2\ns2 A07 spoof 0.5\ns3 A08 spoof -3\n"
ASV = {"target": [1.0, 3.0, 4.0], "nontarget": [0.0, 0.5, 2.0], "A07": [2.5, -1.0], "A08": [3.0, 1.0, 0.2]}


def asv(**changed):
    kinds = {**ASV, **changed}
    target, nontarget = (np.array(kinds.pop(k)) for k in ("target", "nontarget"))
    return AsvScores(target, nontarget, {name: np.array(scores) for name, scores in kinds.items()})


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "golden.txt"
    path.write_text(GOLDEN)
    return path


@pytest.fixture
def files(tmp_path):
    """Three sources, each with one vocoded twin, of lengths below, at and beyond the window."""
    draw = np.random.default_rng(0)
    utterances = []
    for i, length in enumerate((1_500, N_SAMPLES, 11_000)):
        for vocoder in ("bonafide", "world"):
            path = tmp_path / vocoder / f"u{i}.flac"
            path.parent.mkdir(exist_ok=True)
            audio.write(path, 0.1 * draw.standard_normal(length), sample_rate=RATE)
            utterances.append(Utterance(f"u{i}", "s", "eval", vocoder, path, n_samples=length))
    return utterances


def evaluate(files, out, **changed):
    return evaluate_files(LinearCM(), files, out, **{"sample_rate": RATE, "batch_size": 2, **changed})


def test_every_recording_gets_the_score_of_all_its_windows(files, tmp_path):
    steps = []
    path = evaluate(iter(files), tmp_path / "out", report=steps.append)
    assert path == tmp_path / "out" / "scores.txt"
    found = {t.utterance: t for t in read_trials(path)}
    assert list(found) == ["u0/bonafide", "u0/world", "u1/bonafide", "u1/world", "u2/bonafide", "u2/world"]
    assert [t.attack for t in found.values()] == ["bonafide", "world"] * 3
    wanted = score_recordings(LinearCM(), [audio.read(u.path, sample_rate=RATE) for u in files])
    assert [t.score for t in found.values()] == pytest.approx(list(wanted), abs=1e-6)
    assert (steps[-1].seen, steps[-1].scored, steps[-1].kept, steps[-1].failed) == (6, 6, 0, 0)
    assert sorted(p.name for p in path.parent.iterdir()) == ["scores.json", "scores.txt"]


def test_names_are_as_short_as_they_can_be(files):
    assert needs_vocoder(files) and not needs_vocoder(files[::2])
    assert utterance_name(files[1], with_vocoder=True) == "u0/world"
    assert utterance_name(files[1], with_vocoder=False) == "u0"


def test_a_stopped_evaluation_continues_where_it_was(files, tmp_path, monkeypatch):
    read = []
    real = audio.read
    monkeypatch.setattr(audio, "read", lambda path, **k: (read.append(path), real(path, **k))[1])

    def stop(progress):
        if progress.scored == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(files, tmp_path / "out", report=stop)
    part = tmp_path / "out" / "scores.txt.part"
    assert len(part.read_text().splitlines()) == 4 and not (tmp_path / "out" / "scores.txt").exists()
    with part.open("a") as file:
        file.write("u2/bonafide - bonafi")  # a line that was cut off
    steps = []
    path = evaluate(files, tmp_path / "out", report=steps.append)
    assert len(read) == 6 and len(set(read)) == 6  # nothing was read twice
    assert (steps[-1].seen, steps[-1].scored, steps[-1].kept) == (6, 2, 4)
    whole = evaluate(files, tmp_path / "whole", batch_size=5)
    for a, b in zip(read_trials(path), read_trials(whole), strict=True):
        assert (a.utterance, a.attack) == (b.utterance, b.attack) and a.score == pytest.approx(b.score, abs=1e-6)


def test_a_finished_evaluation_reads_nothing_and_takes_on_what_is_new(files, tmp_path, monkeypatch):
    evaluate(files[:4], tmp_path / "out")
    before = (tmp_path / "out" / "scores.txt").read_text()
    path = evaluate(files, tmp_path / "out")
    assert path.read_text().startswith(before) and len(path.read_text().splitlines()) == 6
    content = path.read_bytes()
    monkeypatch.setattr(audio, "read", lambda *a, **k: pytest.fail("read again"))
    assert evaluate(files, tmp_path / "out").read_bytes() == content
    assert not path.with_name("scores.txt.part").exists()


def test_a_truncated_file_is_named_and_stops_with_the_rest_kept(files, tmp_path):
    content = files[3].path.read_bytes()
    files[3].path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"world/u1\.flac: "):
        evaluate(files, tmp_path / "out")
    part = tmp_path / "out" / "scores.txt.part"
    assert [t.utterance for t in read_trials(part)] == ["u0/bonafide", "u0/world", "u1/bonafide"]
    files[3].path.write_bytes(content)
    assert len(evaluate(files, tmp_path / "out").read_text().splitlines()) == 6


def test_a_truncated_file_is_skipped_counted_and_tried_again(files, tmp_path):
    content = files[3].path.read_bytes()
    files[3].path.write_bytes(content[:100])
    steps = []
    path = evaluate(files, tmp_path / "out", on_error="skip", report=steps.append)
    assert "u1/world" not in {t.utterance for t in read_trials(path)}
    assert steps[-1].failed == 1 and any("u1.flac" in s.message for s in steps)
    (line,) = (tmp_path / "out" / "failures.txt").read_text().splitlines()
    assert line.startswith("u1/world\t") and "u1.flac" in line
    facts = evaluate_scores(path, tmp_path / "out").facts
    assert facts["skipped"] == 1 and facts["skipped_first"] == ["u1/world"]
    assert facts["trials"] == {"bonafide": 3, "spoof": 2, "attacks": 1}
    files[3].path.write_bytes(content)
    evaluate(files, tmp_path / "out", on_error="skip")
    assert evaluate_scores(path, tmp_path / "out").facts["skipped"] == 0


def test_a_score_that_is_no_number_counts_as_failed(files, tmp_path):
    class Diverged(LinearCM):
        def forward(self, waveform):
            logits = super().forward(waveform)
            return torch.where(waveform.abs().amax(1, keepdim=True) > 0.9, torch.nan, logits)

    loud = np.zeros(N_SAMPLES)
    loud[5] = 1.0
    audio.write(files[0].path, loud, sample_rate=RATE)
    with pytest.raises(AudioError, match="u0/bonafide: score nan"):
        evaluate_files(Diverged(), files, tmp_path / "stop", sample_rate=RATE)
    assert len((tmp_path / "stop" / "scores.txt.part").read_text().splitlines()) == 5
    path = evaluate_files(Diverged(), files, tmp_path / "skip", sample_rate=RATE, on_error="skip")
    assert len(path.read_text().splitlines()) == 5


def test_scores_of_something_else_are_not_continued(files, tmp_path):
    out = tmp_path / "out"
    evaluate(files, out, about={"data": "toy", "split": "eval"})
    with pytest.raises(RunError, match=r"another evaluation \(split was 'eval', is 'dev'\)"):
        evaluate(files, out, about={"data": "toy", "split": "dev"})
    with pytest.raises(RunError, match=r"another evaluation \(weights was"):
        evaluate_files(LinearCM(seed=1), files, out, sample_rate=RATE, about={"data": "toy", "split": "eval"})
    with pytest.raises(RunError, match=r"2 utterances that are not in this set \('u2/bonafide'"):
        evaluate(files[:4], out, about={"data": "toy", "split": "eval"})
    (out / "scores.json").write_text("{")
    with pytest.raises(RunError, match=r"scores\.json: damaged"):
        evaluate(files, out, about={"data": "toy", "split": "eval"})
    (out / "scores.json").unlink()
    with pytest.raises(RunError, match=r"no scores\.json that says of what"):
        evaluate(files, out)


def test_what_cannot_be_scored_is_said_at_once(files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match="works at 16000 Hz, the data set is sampled at 8000 Hz"):
        evaluate(files, out, sample_rate=8_000)
    with pytest.raises(RunError, match="on_error 'ignore'"):
        evaluate(files, out, on_error="ignore")
    with pytest.raises(RunError, match="batch_size 0"):
        evaluate(files, out, batch_size=0)
    assert not out.exists()
    with pytest.raises(RunError, match="no utterances to score"):
        evaluate([], out)
    with pytest.raises(RunError, match="a second utterance 'u0'; sources are shared by twins"):
        evaluate(files, tmp_path / "a", with_vocoder=False)
    with pytest.raises(RunError, match="a second utterance 'u0/world'; is it listed twice"):
        evaluate([*files, files[1]], tmp_path / "b")
    with pytest.raises(XaibenchError, match=r"hold no white space|empty"):
        evaluate([replace(files[0], source="")], tmp_path / "c", with_vocoder=False)
    for utterance in files:
        utterance.path.write_bytes(b"")
    with pytest.raises(RunError, match="none of 6 recordings could be scored"):
        evaluate(files, tmp_path / "d", on_error="skip")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        evaluate(files, tmp_path / "file")


def test_memory_does_not_grow_with_the_data_set(files, tmp_path):
    def stream(count):
        for i in range(count):
            yield replace(files[i % 2], source=f"LA_E_{i:07d}")  # 4,000 samples at most

    def peak(count):
        tracemalloc.start()
        evaluate(stream(count), tmp_path / f"out{count}", with_vocoder=False)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)  # imports and caches
    grown = peak(1_000) - peak(100)
    assert grown < 900 * 300  # the names; holding the audio would be 900 x 6,000 bytes


def test_golden_table(golden, tmp_path):
    found = evaluate_scores(golden, tmp_path / "out")
    table = found.table.set_index("attack")
    assert list(table.index) == ["pooled", "A07", "A08"]
    # A07 and bona fide, rising: -2 s, -1 b, 0.5 s, 1 b, 3 b. Rejecting two: miss 1/3, false alarm 1/2, the closest.
    assert table["eer"].tolist() == pytest.approx([1 / 3, 5 / 12, 0])
    assert table["eer_threshold"].tolist() == [-1, -1, -3]
    assert table["spoof"].tolist() == [3, 2, 1] and set(table["bonafide"]) == {3}
    # At 0: bona fide -1 is called spoof, spoof 0.5 is called bona fide.
    pooled = table.loc["pooled"]
    assert (pooled["accuracy"], pooled["precision"], pooled["recall"], pooled["f1"]) == pytest.approx(
        (4 / 6,) + (2 / 3,) * 3
    )
    assert table.loc["A08", "precision"] == 0.5 and table.loc["A08", "recall"] == 1
    assert table.loc["A08", "accuracy_at_eer"] == 1
    assert found.facts["worst_attack"] == {"attack": "A07", "eer": pytest.approx(5 / 12)}
    assert found.facts["mean_eer_of_attacks"] == pytest.approx(5 / 24)
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert stored == found.facts and stored["attacks"]["A08"]["min_tdcf_2021"] is None and stored["asv"] is None
    assert "no ASV scores were given" in stored["pooled"]["tdcf_note"] and stored["scored"] is None
    read = pd.read_csv(tmp_path / "out" / "evaluation.csv")
    assert list(read.columns) == list(found.table.columns)
    assert read["eer"].tolist() == pytest.approx(found.table["eer"].tolist())  # pandas 2 reads the last digit its own way
    assert read[list(COSTS)].isna().all(axis=None)
    assert imread(tmp_path / "out" / "det.png").std() > 0.05


def test_costs_of_an_attack_take_the_asv_rate_of_that_attack():
    scores = Scores(np.array([3.0, 1.0, -1.0, 2.0]), {"A07": np.array([-2.0, 0.5]), "A08": np.array([-3.0, 1.5, 0.0])})
    table = summary(scores, asv=asv()).table.set_index("attack")
    pooled = tdcf.asv_error_rates(ASV["target"], ASV["nontarget"], ASV["A07"] + ASV["A08"])
    assert pooled.threshold == 1.0  # see test_tdcf
    rates = {
        "pooled": pooled,
        "A07": tdcf.AsvErrorRates(0, 1 / 3, 1 / 2, 1 / 2),
        "A08": tdcf.AsvErrorRates(0, 1 / 3, 1 / 3, 2 / 3),
    }
    for name, of_asv in rates.items():
        spoof = scores.spoof if name == "pooled" else scores.attacks[name]
        for column in COSTS:
            assert table.loc[name, column] == pytest.approx(getattr(tdcf, column)(scores.bonafide, spoof, of_asv), abs=1e-12)
        assert table.loc[name, "tdcf_note"] == ""


def test_a_cost_without_a_value_says_why(golden):
    scores = collect(read_trials(golden))
    partly = summary(scores, asv=asv(A09=[1.0])).table.set_index("attack")
    assert partly.loc["pooled", list(COSTS)].isna().all() and "A09" in partly.loc["pooled", "tdcf_note"]
    only = AsvScores(np.array(ASV["target"]), np.array(ASV["nontarget"]), {"A07": np.array([2.5])})
    partly = summary(scores, asv=only).table.set_index("attack")
    assert "A08 in one of" in partly.loc["pooled", "tdcf_note"]
    assert partly.loc["A08", "tdcf_note"] == "the ASV scores name no A08" and math.isnan(partly.loc["A08", COSTS[0]])
    assert partly.loc["A07", list(COSTS)].notna().all()
    unnamed = summary(scores, asv=AsvScores(np.array(ASV["target"]), np.array(ASV["nontarget"]), {"": np.array([2.5, 0.0])}))
    table = unnamed.table.set_index("attack")
    assert table.loc["pooled", list(COSTS)].notna().all() and table.loc["A07", list(COSTS)].isna().all()
    proof = summary(scores, asv=asv(A07=[-5.0], A08=[-5.0])).table.set_index("attack")
    assert "min(C1, C2) = 0" in proof.loc["pooled", "tdcf_note"] and proof.loc["pooled", "min_tdcf_2021"] == 1
    one = summary(Scores(np.array([1.0]), {"A07": np.array([0.0])}), asv=only).table.set_index("attack")
    assert "soft scores" in one.loc["A07", "tdcf_note"] and one.loc["A07", "eer"] == 0


def test_asv_scores_of_another_split_are_refused(golden):
    with pytest.raises(XaibenchError, match=r"ASV scores are of A01, the countermeasure's of A07, A08; .*same data set"):
        summary(collect(read_trials(golden)), asv=AsvScores(np.ones(2), np.zeros(2), {"A01": np.ones(1)}))


def test_asv_files_of_both_challenges_give_the_same(golden, tmp_path):
    kinds = {
        k: ("bonafide" if k in ("target", "nontarget") else k, k if k in ("target", "nontarget") else "spoof") for k in ASV
    }
    trials = [(*kinds[kind], score) for kind, scores in ASV.items() for score in scores]
    (tmp_path / "asv19.txt").write_text("".join(f"{a} {key} {s}\n" for a, key, s in trials))
    (tmp_path / "asv21.txt").write_text("".join(f"S{i} T{i} {s}\n" for i, (_, _, s) in enumerate(trials)))
    (tmp_path / "keys.txt").write_text("".join(f"S{i} T{i} c t {a} {key} n eval\n" for i, (a, key, _) in enumerate(trials)))
    old = evaluate_scores(golden, tmp_path / "a", asv_scores=tmp_path / "asv19.txt")
    new = evaluate_scores(golden, tmp_path / "b", asv_scores=tmp_path / "asv21.txt", asv_keys=tmp_path / "keys.txt")
    assert old.facts == new.facts and old.facts["asv"]["spoof_false_alarm"] == pytest.approx(3 / 5)
    direct = summary(collect(read_trials(golden)), asv=asv())
    assert old.facts["pooled"] == direct.facts["pooled"] and direct.table[list(COSTS)].notna().all(axis=None)


def test_a_file_of_2021_takes_its_keys_from_beside_it(golden, tmp_path):
    trials = list(read_trials(golden))
    path = write_trials(tmp_path / "scores.txt", trials, layout="2021")
    keys = tmp_path / "trial_metadata.txt"
    lines = [f"S {t.utterance} c t {t.attack} {'bonafide' if t.bonafide else 'spoof'} n eval\n" for t in trials]
    keys.write_text("".join(lines))
    found = evaluate_scores(path, tmp_path / "out", keys=keys, subset="eval")
    assert found.table.equals(evaluate_scores(golden, tmp_path / "out").table)


@pytest.mark.parametrize(
    ("wanted", "message"), [("bonafide", "only scores of bona fide"), ("spoof", "only scores of spoofs")]
)
def test_one_class_alone_is_named_with_its_file(golden, tmp_path, wanted, message):
    golden.write_text("".join(line + "\n" for line in GOLDEN.splitlines() if f" {wanted} " in line))
    with pytest.raises(XaibenchError, match=rf"golden\.txt: {message}"):
        evaluate_scores(golden, tmp_path / "out")


def test_an_attack_cannot_be_called_pooled():
    with pytest.raises(XaibenchError, match="called 'pooled'"):
        summary(Scores(np.ones(1), {"pooled": np.zeros(1)}))


def test_collecting_keeps_every_score_where_it_belongs():
    trials = [Trial(str(i), ("bonafide", "A09", "A07")[i % 3], float(i)) for i in range(7)]
    found = collect(trials)
    assert found.bonafide.tolist() == [0, 3, 6] and list(found.attacks) == ["A07", "A09"]
    assert found.attacks["A09"].tolist() == [1, 4] and found.spoof.tolist() == [2, 5, 1, 4]
    kinds = [AsvTrial("A07", "spoof", 1.0), AsvTrial("", "target", 2.0), AsvTrial("", "nontarget", 3.0)]
    gathered = collect_asv(kinds)
    assert (gathered.target.tolist(), gathered.nontarget.tolist()) == ([2], [3]) and gathered.attacks["A07"].tolist() == [1]


def test_the_staircase_is_the_curve_without_the_points_between():
    draw = np.random.default_rng(0)
    false_alarm, miss = det.staircase(draw.normal(1, 1, 60).round(1), draw.normal(0, 1, 80).round(1))
    assert len(miss) < 141 and (miss[0], false_alarm[0], miss[-1], false_alarm[-1]) == (0, 1, 1, 0)
    steps = np.stack([np.diff(miss) > 0, np.diff(false_alarm) < 0])
    assert (steps.sum(0) == 1).all() and (steps[:, 1:] != steps[:, :-1]).all()  # right angles only


def test_the_det_figure_shows_the_worst_and_is_the_same_each_time(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    bonafide = draw.normal(2, 1, 50)
    attacks = {f"A{i:02d}": draw.normal(-i / 5, 1, 30) for i in range(12)}
    labels, real = [], det._mark
    monkeypatch.setattr(det, "_mark", lambda *a: (labels.append(a[4]), real(*a))[1])
    first = det.draw(bonafide, attacks, tmp_path / "a.png", title="toy").read_bytes()
    assert det.draw(bonafide, attacks, tmp_path / "b.png", title="toy").read_bytes() == first
    rates = {name: equal_error_rate(bonafide, scores) for name, scores in attacks.items()}
    shown = [label.split(":")[0] for label in labels[:9]]
    assert shown[0] == "pooled" and len(shown) == 9 and len(first) < 150_000
    assert min(rates[name] for name in shown[1:]) >= max(rates[name] for name in set(attacks) - set(shown))


def test_the_det_figure_bears_one_attack_and_a_countermeasure_that_is_all_wrong(tmp_path):
    path = det.draw(np.array([-1.0, -2.0]), {"world": np.array([1.0, 2.0])}, tmp_path / "new" / "det.png")
    assert imread(path).std() > 0.05
    with pytest.raises(XaibenchError, match="no spoof scores"):
        det.draw(np.ones(1), {}, tmp_path / "none.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --out"):
        det.draw(np.ones(1), {"world": np.zeros(1)}, tmp_path / "file" / "det.png")
