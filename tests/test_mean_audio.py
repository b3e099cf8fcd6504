"""Mean audio: the boundary, ranks on the own side, sums in which every utterance weighs the same, and their page."""

import json

import numpy as np
import pandas as pd
import pytest

from xaibench import audio
from xaibench.errors import RunError, XaibenchError
from xaibench.listen import PEAK, level
from xaibench.mean_audio import LEVEL, boundary, first_ranks, mean_audio, scored, summed, write_page
from xaibench.scorefile import Trial
from xaibench.types import Utterance

RATE = 8_000


def trials(bonafide, **attacks):
    found = [Trial(f"b{i}", "bonafide", s) for i, s in enumerate(bonafide)]
    return found + [Trial(f"{a}{i}", a, s) for a, scores in attacks.items() for i, s in enumerate(scores)]


SET = trials([5, 9, 1, 7, -3, 6, 3], A07=[-9, -1, -5, -2, -7, -4, 4], A08=[-3, -6, -8])


@pytest.fixture
def files(tmp_path):
    """Tones: a pitch an utterance, so that what is in a sum can be read off its spectrum; later ones are louder."""
    made = []
    for i, trial in enumerate(SET):
        path = tmp_path / "in" / f"{trial.utterance}.wav"
        path.parent.mkdir(exist_ok=True)
        n = 4_000 if i % 2 else 3_000
        tone = 0.01 * (i + 1) * np.sin(2 * np.pi * 100 * (i + 1) * np.arange(n) / RATE)
        audio.write(path, tone, sample_rate=RATE)
        made.append(Utterance(trial.utterance, "s", "eval", trial.attack, path, n_samples=n if i % 3 else 0))
    return made


def pitches(path):
    """Which of the tones are in a file."""
    samples = audio.read(path, sample_rate=RATE)
    spectrum = np.abs(np.fft.rfft(samples, RATE))
    return {i for i in range(len(SET)) if spectrum[100 * (i + 1)] > 0.2 * spectrum.max()}


# The boundary --------------------------------------------------------------------------------------------------------


def test_ranks_rise_with_the_distance_on_the_own_side():
    found = boundary(SET)
    from xaibench.metrics.detection import equal_error_point

    eer, threshold = equal_error_point([t.score for t in SET if t.bonafide], [t.score for t in SET if not t.bonafide])
    assert (found.eer, found.threshold) == (eer, threshold)
    for attack in ("bonafide", *found.attacks):
        group = found.group(attack)
        assert [r.rank for r in group] == list(range(len(group)))
        assert [abs(r.distance) for r in group] == sorted(abs(r.distance) for r in group)
        assert all((r.score > threshold) == (attack == "bonafide") for r in group)
        assert all((r.score > threshold) != (attack == "bonafide") for r in found.wrong(attack))
        assert len(group) + len(found.wrong(attack)) == sum(t.attack == attack for t in SET)


def test_who_is_on_the_wrong_side_has_no_rank():
    found = boundary(SET)
    assert [r.utterance for r in found.wrong("bonafide")] == ["b4"] and [r.utterance for r in found.wrong("A07")] == ["A076"]
    assert [r.utterance for r in found.group("bonafide")] == ["b2", "b6", "b0", "b5", "b3", "b1"]
    assert found.wrong("A08") == ()


def test_the_order_of_trials_changes_nothing():
    assert boundary(SET) == boundary(SET[::-1])
    same = trials([2, 2, 2], A07=[-2, -2, -2])
    assert [r.utterance for r in boundary(same[::-1]).group("A07")] == ["A070", "A071", "A072"]


def test_a_score_at_the_threshold_is_spoof():
    found = boundary(trials([1.0, 2.0], A07=[0.0, -1.0]))
    assert found.threshold == 0.0 and found.group("A07")[0].distance == 0


def test_one_class_has_no_boundary():
    with pytest.raises(XaibenchError, match="no spoof scores"):
        boundary(trials([1.0, 2.0]))


# Which ranks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(3, None), (10, None), (10, 2), (48, None), (100, None), (61, 20)])
def test_cells_never_overlap_and_touch_both_ends(size, count):
    starts, wanted = first_ranks(size, count, None, "x")
    ranks = [r for s in starts for r in range(s, s + wanted)]
    assert len(set(ranks)) == 3 * wanted and min(ranks) == 0 and max(ranks) == size - 1
    assert wanted == (count or min(20, size // 3))
    assert abs((starts[1] - wanted) - (starts[2] - starts[1] - wanted)) <= 1


def test_too_few_utterances_say_what_would_do():
    with pytest.raises(
        XaibenchError, match=r"attack A07: 10 utterances .* too few for three sums of 4; --count 3 is the most"
    ):
        first_ranks(10, 4, None, "attack A07")
    with pytest.raises(XaibenchError, match=r"bona fide: 2 utterances .* at least 3"):
        first_ranks(2, None, None, "bona fide")
    with pytest.raises(XaibenchError, match="too few for 20 from rank 2000 on"):
        first_ranks(2_010, 20, (0, 1_000, 2_000), "x")
    with pytest.raises(XaibenchError, match="three rising"):
        first_ranks(50, None, (5, 5, 9), "x")
    with pytest.raises(XaibenchError, match="count 0"):
        first_ranks(50, 0, None, "x")


# Sums ----------------------------------------------------------------------------------------------------------------


def test_every_utterance_weighs_the_same():
    t = np.arange(4_000) / RATE
    low, high = np.sin(2 * np.pi * 100 * t), 0.001 * np.sin(2 * np.pi * 300 * t)
    made = summed([low, high], 4_000)
    spectrum = np.abs(np.fft.rfft(made.samples))
    assert spectrum[150] == pytest.approx(spectrum[50], rel=1e-6)
    assert level(made.samples) == pytest.approx(LEVEL, abs=1e-9)


def test_short_utterances_are_repeated_and_long_ones_cut():
    made = summed([np.array([1.0, -1.0])], 5)
    assert np.sign(made.samples).tolist() == [1, -1, 1, -1, 1]
    assert len(summed([np.ones(9)], 4).samples) == 4


def test_sums_of_nothing_and_of_silence_are_refused():
    with pytest.raises(XaibenchError, match="no utterances"):
        summed([], 10)
    with pytest.raises(XaibenchError, match=r"utterance 1 of a sum \(from 0\) is silent"):
        summed([np.ones(4), np.zeros(4)], 4)


def test_a_file_holds_its_utterances_and_no_other(files, tmp_path):
    found, cells = mean_audio(boundary(SET), files, tmp_path / "out", sample_rate=RATE, with_vocoder=False)
    names = [t.utterance for t in SET]
    assert len(cells) == 9
    for cell in cells:
        path = tmp_path / "out" / cell.file
        assert {names[i] for i in pitches(path)} == set(cell.utterances)
        samples = audio.read(path, sample_rate=RATE)
        assert level(samples) == pytest.approx(LEVEL, abs=0.1) and not cell.limited and cell.level == level(samples)
        assert np.abs(samples).max() == cell.peak <= PEAK
    assert [c.file for c in cells[:3]] == [f"mean_audio_bonafide_all_add_num_{r}.wav" for r in (0, 2, 4)]
    assert [c.file for c in cells if c.attack == "A08"] == [f"mean_audio_spoof_A08_add_num_{r}.wav" for r in (0, 1, 2)]
    marked = {r.utterance: r.cell for r in found.ranked}
    assert all(marked[u] == c.distance for c in cells for u in c.utterances)
    assert marked["b4"] == marked["A076"] == ""


def test_the_same_scores_give_the_same_files(files, tmp_path):
    for name in ("a", "b"):
        mean_audio(boundary(SET), files, tmp_path / name, sample_rate=RATE, with_vocoder=False, ending="flac")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_attack_that_fools_the_countermeasure_has_no_cells(files, tmp_path):
    fooled = [t if t.attack != "A08" else Trial(t.utterance, t.attack, 50.0) for t in SET]
    found, cells = mean_audio(boundary(fooled), files, tmp_path, sample_rate=RATE, with_vocoder=False)
    assert {c.attack for c in cells} == {"bonafide", "A07"}
    write_page(found, cells, tmp_path, about={"countermeasure": "toy", "data": "d", "split": "eval"})
    assert (tmp_path / "index.html").read_text().count("too few utterances") == 3
    with pytest.raises(XaibenchError, match="attack A08: 0 utterances"):
        mean_audio(boundary(fooled), files, tmp_path, sample_rate=RATE, with_vocoder=False, count=1)


def test_an_utterance_that_is_gone_is_named(files, tmp_path):
    with pytest.raises(RunError, match="'A070' was scored"):
        mean_audio(
            boundary(SET), [u for u in files if u.source != "A070"], tmp_path, sample_rate=RATE, with_vocoder=False
        )  # fmt: skip
    with pytest.raises(XaibenchError, match="expected wav or flac"):
        mean_audio(boundary(SET), files, tmp_path, sample_rate=RATE, ending="mp3")


# The page ------------------------------------------------------------------------------------------------------------


def test_the_page_is_the_papers_table_and_names_stay_text(files, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    renamed = [t if t.attack != "A08" else Trial(t.utterance, evil, t.score) for t in SET]
    found, cells = mean_audio(boundary(renamed), files, tmp_path, sample_rate=RATE, with_vocoder=False)
    cells = scored(cells, tmp_path, lambda waves: np.arange(len(waves)) + 0.5, sample_rate=RATE)
    assert [c.score for c in cells] == [i + 0.5 for i in range(9)]
    paths = write_page(found, cells, tmp_path, about={"countermeasure": evil, "data": "d", "split": "eval"})
    page = (tmp_path / "index.html").read_text()
    assert evil not in page and "&lt;img src=x" in page
    for head in (
        "Bona fide (Close)",
        "Bona fide (Medium)",
        "Bona fide (Far)",
        "Spoof (Close)",
        "Spoof (Medium)",
        "Spoof (Far)",
    ):
        assert page.count(f">{head}</th>") == 1
    assert page.count("<audio") == 2 * 6 == page.count('preload="none"')
    for cell in cells:
        assert f'src="{cell.file}"' in page and (tmp_path / cell.file).is_file()
    assert {p.name for p in paths} == {"mean_audio.csv", "mean_audio.json", "index.html"}
    table = pd.read_csv(tmp_path / "mean_audio.csv")
    assert len(table) == len(SET) and table["rank"].isna().sum() == 2
    assert table["distance"].to_numpy() == pytest.approx(table["score"].to_numpy() - found.threshold)
    facts = json.loads((tmp_path / "mean_audio.json").read_text())
    assert facts["threshold"] == found.threshold and len(facts["cells"]) == 9
