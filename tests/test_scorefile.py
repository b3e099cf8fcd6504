"""Score files: what is written reads back, both challenges' layouts, and what is wrong in a file is named with its line."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaibench import scorefile
from xaibench.errors import XaibenchError
from xaibench.scorefile import AsvTrial, Key, Trial, format_trial, read_asv, read_keys, read_trials, write_trials

LINES_2019 = "LA_E_0000001 A07 spoof -3.2\nLA_E_0000002 - bonafide 1.5e0\nLA_E_0000003 A19 spoof 0\n"
LA_2021 = (
    "LA_0009 LA_E_0000001 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0020 LA_E_0000002 g722 loc_tx bonafide bonafide notrim eval\n"
    "LA_0020 LA_E_0000003 none - A08 spoof notrim progress\n"
)
DF_2021 = (
    "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    "TEF2 DF_E_2000012 low_mp3 vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive Task1 team20 FF E\n"
    "LA_0043 DF_E_2000013 mp3m4a asvspoof - bonafide notrim eval bonafide - - - -\n"
)
PA_2021 = (
    "PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval\nPA_0010 PA_E_1 R3 M3 D4 - - - - bonafide notrim eval\n"
)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@pytest.fixture
def write(tmp_path):
    count = itertools.count()

    def write(text, name=None):
        path = tmp_path / (name or f"file{next(count)}.txt")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_golden_2019(write):
    assert list(read_trials(write(LINES_2019))) == [
        Trial("LA_E_0000001", "A07", -3.2), Trial("LA_E_0000002", "bonafide", 1.5), Trial("LA_E_0000003", "A19", 0.0),
    ]  # fmt: skip


def test_golden_2021_with_keys_and_a_subset(write):
    keys = read_keys(write(LA_2021))
    assert keys["LA_E_0000003"] == Key("A08", "progress")
    scores = write("LA_E_0000002 1.5\nLA_E_0000003 0.25\n\nLA_E_0000001 -3\n")  # any order, an empty line
    assert list(read_trials(scores, keys=keys, subset="eval")) == [
        Trial("LA_E_0000002", "bonafide", 1.5), Trial("LA_E_0000001", "A07", -3.0),
    ]  # fmt: skip
    assert len(list(read_trials(scores, keys=keys))) == 3


def test_golden_keys_of_the_other_tracks(write):
    df = write(DF_2021)
    assert list(read_keys(df).values()) == [Key("A14", "progress"), Key("Task1-team20", "eval"), Key("bonafide", "eval")]
    assert [k.attack for k in read_keys(df, by="vocoder").values()] == [
        "traditional_vocoder", "neural_vocoder_autoregressive", "bonafide",
    ]  # fmt: skip
    assert list(read_keys(write(PA_2021)).values()) == [Key("replay", "eval"), Key("bonafide", "eval")]
    protocol = write("LA_0079 LA_T_1138215 - - bonafide\nLA_0079 LA_T_1 - A01 spoof\n")
    assert read_keys(protocol) == {"LA_T_1138215": Key("bonafide"), "LA_T_1": Key("A01")}


@given(st.dictionaries(names, st.tuples(names, st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_what_is_written_reads_back(tmp_path_factory, trials):
    path = tmp_path_factory.mktemp("scores") / "scores.txt"
    wanted = [Trial(n, "bonafide" if i % 3 == 0 else a, s) for i, (n, (a, s)) in enumerate(trials.items())]
    wanted = [t if t.attack != "-" else Trial(t.utterance, "A01", t.score) for t in wanted]
    assert list(read_trials(write_trials(path, wanted))) == wanted
    keys = {t.utterance: Key(t.attack) for t in wanted}
    assert list(read_trials(write_trials(path, wanted, layout="2021"), keys=keys)) == wanted
    assert [p.name for p in path.parent.iterdir()] == ["scores.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a A07 spoof -3\nb - bonafide\n", ":2: 3 columns ('b - bonafide'), expected 4, as on the first line"),
        ("a A07 spoof -3 x\n", ":1: 5 columns ('a A07 spoof -3 x'), expected 4 (UTTERANCE ATTACK KEY SCORE) or 2"),
        ("a A07 spoof nan\n", ":1: score 'nan', expected a finite number"),
        ("a A07 spoof 1\nb A07 spoof -inf\n", ":2: score '-inf', expected a finite number"),
        ("utt system key score\n", ":1: score 'score', expected a number; is there a header"),
        ("a A07 spoof 1\n\na A08 spoof 1\n", ":3: a second score of 'a', expected one for each; the first is on line 1"),
        ("a A07 fake 1\n", ":1: key 'fake', expected bonafide or spoof"),
        ("a bonafide spoof 1\n", ":1: attack 'bonafide' with key 'spoof', expected the two to agree"),
        ("a 1\n", ":1: 2 columns, so no keys, expected the keys beside it"),
        ("\n", ": no scores in it"),
        (b"a A07 spoof 1\nb A07 spoof 1\n\xff\xfe\n", ":3: not UTF-8"),
    ],
)
def test_what_is_wrong_in_a_score_file_is_named(write, text, message):
    path = write(text)
    with pytest.raises(XaibenchError) as error:
        list(read_trials(path))
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_keys_and_scores_must_be_of_the_same_trials(write):
    keys = read_keys(write(LA_2021))
    for text, message in (
        ("LA_E_9 1\n", ":1: utterance 'LA_E_9', which the keys do not hold"),
        ("LA_E_0000001 1\n", r"no score for 1 of 2 trials of the keys, the first 'LA_E_0000002'"),
        ("LA_E_0000001 - bonafide 1\n", ":1: 'LA_E_0000001' as bonafide, expected what the keys say, 'A07'"),
    ):
        with pytest.raises(XaibenchError, match=message):
            list(read_trials(write(text), keys=keys, subset="eval"))
    with pytest.raises(XaibenchError, match="no trial of subset 'test'; their subsets: eval, progress"):
        list(read_trials(write("LA_E_0000001 1\n"), keys=keys, subset="test"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\n", ":1: 3 columns, expected 5 .2019 protocol., 8"),
        (LA_2021 + "LA_1 LA_E_0000001 none - A07 spoof notrim eval\n", ":4: a second key of 'LA_E_0000001'"),
        (LA_2021 + "LA_1 LA_E_4 none - A07 spoof\n", ":4: 6 columns"),
        (LA_2021.replace("bonafide bonafide", "bonafide genuine"), ":2: key 'genuine', expected bonafide or spoof"),
        ("", "no keys in it"),
    ],
)
def test_what_is_wrong_in_a_keys_file_is_named(write, text, message):
    with pytest.raises(XaibenchError, match=message):
        read_keys(write(text))


def test_only_df_keys_name_vocoders(write):
    with pytest.raises(XaibenchError, match=":1: 8 columns, expected 13"):
        read_keys(write(LA_2021), by="vocoder")
    with pytest.raises(XaibenchError, match="expected 'attack' or 'vocoder'"):
        read_keys(write(DF_2021), by="codec")


def test_golden_asv_2019(write):
    text = "bonafide target 36.78\nbonafide nontarget -39.1\nA07 spoof 27.0\nspoof spoof 1\n"
    assert list(read_asv(write(text))) == [
        AsvTrial("", "target", 36.78), AsvTrial("", "nontarget", -39.1), AsvTrial("A07", "spoof", 27.0),
        AsvTrial("", "spoof", 1.0),
    ]  # fmt: skip


def test_golden_asv_2021(write):
    keys = write(
        "LA_0007 LA_E_5 alaw ita_tx bonafide nontarget notrim eval\nLA_0008 LA_E_6 alaw ita_tx A07 spoof notrim eval\n"
        "LA_0008 LA_E_7 alaw ita_tx bonafide target notrim progress\n"
    )
    scores = write("LA_0007 LA_E_5 -4.8\nLA_0008 LA_E_6 2\nLA_0008 LA_E_7 5\n")
    wanted = [AsvTrial("", "nontarget", -4.8), AsvTrial("A07", "spoof", 2.0), AsvTrial("", "target", 5.0)]
    assert list(scorefile.read_asv_2021(scores, keys)) == wanted[:2]
    assert list(scorefile.read_asv_2021(scores, keys, subset=None)) == wanted
    with pytest.raises(XaibenchError, match=r":2: the trial 'LA_0008 LA_E_7', expected 'LA_0008 LA_E_6', line 2 of"):
        list(scorefile.read_asv_2021(write("LA_0007 LA_E_5 -4.8\nLA_0008 LA_E_7 5\nLA_0008 LA_E_6 2\n"), keys))
    with pytest.raises(XaibenchError, match=r"txt: ends before line 2 of .*; both have one line a trial"):
        list(scorefile.read_asv_2021(write("LA_0007 LA_E_5 -4.8\n"), keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A07 spoof\n", r":1: 2 columns \('A07 spoof'\), expected 3 \(SOURCE KEY SCORE\)"),
        ("A07 bonafide 1\n", ":1: key 'bonafide', expected target, nontarget or spoof; is this a file of ASV scores"),
        ("A07 spoof nan\n", ":1: score 'nan'"),
    ],
)
def test_what_is_wrong_in_an_asv_file_is_named(write, text, message):
    with pytest.raises(XaibenchError, match=message):
        list(read_asv(write(text)))


def test_a_missing_file_and_an_unwritable_folder_are_named(tmp_path):
    for read in (read_trials, read_keys, read_asv):
        with pytest.raises(XaibenchError, match=r"none\.txt: no such file"):
            list(read(tmp_path / "none.txt"))
    with pytest.raises(XaibenchError, match="does its folder exist"):
        write_trials(tmp_path / "none" / "scores.txt", [Trial("a", "A07", 1.0)])


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial("a b", "A07", 1.0), "not empty and hold no white space"),
        (Trial("", "A07", 1.0), "not empty and hold no white space"),
        (Trial("a", "", 1.0), "not empty and hold no white space"),
        (Trial("a", "A07", float("nan")), "utterance 'a': score nan, expected a finite number"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, trial, message):
    with pytest.raises(XaibenchError, match=message):
        write_trials(tmp_path / "scores.txt", [Trial("fine", "A07", 1.0), trial])
    assert not list(tmp_path.iterdir())
    with pytest.raises(XaibenchError, match="layout '2020'"):
        format_trial(Trial("a", "A07", 1.0), layout="2020")


def test_asv_scores_are_streamed(write):
    def peak(count):
        path = write("A07 spoof 1.25\nbonafide target 2.5\n" * count)
        tracemalloc.start()
        total = sum(t.score for t in read_asv(path))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == 3.75 * count
        return top

    peak(10)
    assert peak(20_000) < peak(2_000) + 20_000
