"""The layouts of the field's data sets: what a tree in the documented form gives, and what is refused."""

import pytest
import trees

from xaibench.datasets import catalog
from xaibench.datasets.catalog import LAYOUTS
from xaibench.datasets.index import index
from xaibench.datasets.layout import Entry, Layout, Problem, audio_in, sorted_on_disk, split_of
from xaibench.errors import ManifestError
from xaibench.manifest import pairs


def scan(name, roots):
    return list(LAYOUTS[name].scan(roots))


def entries(name, roots):
    found = scan(name, roots)
    assert all(isinstance(e, Entry) for e in found), found
    return found


# Catalogue and helpers -----------------------------------------------------------------------------------------------


def test_every_layout_is_there_calls_itself_by_its_name_and_says_what_it_was_checked_against():
    for name in LAYOUTS:
        layout = LAYOUTS[name]
        assert isinstance(layout, Layout)
        assert layout.name == name
        assert layout.checked == ("" if name == "folder" else "documentation")
        assert name == "folder" or (layout.citation and layout.source)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ManifestError, match="did you mean 'librisevoc'"):
        LAYOUTS["librisevox"]


def test_sorting_on_disk_is_sorting():
    rows = [("b", "ü"), ("a", "z"), ("b", "ü"), ("", "x"), ("a", "a")]
    assert list(sorted_on_disk(rows)) == sorted(rows)
    assert list(sorted_on_disk([])) == []


def test_only_audio_is_listed(tmp_path):
    for name in ("b.WAV", "a.flac", "c.txt", ".hidden.wav", "é.mp3"):
        (tmp_path / name).write_bytes(b"")
    assert list(audio_in(tmp_path)) == ["a.flac", "b.WAV", "é.mp3"]


def test_hashed_splits_are_eighty_ten_ten():
    found = [split_of(f"speaker {i}") for i in range(4000)]
    assert abs(found.count("train") / 4000 - 0.8) < 0.03
    assert abs(found.count("eval") / 4000 - 0.1) < 0.02


# One by one ----------------------------------------------------------------------------------------------------------


def test_asvspoof2019_root_may_be_the_folder_itself_or_the_one_above(tmp_path):
    roots = trees.asvspoof2019(tmp_path)
    above, itself = entries("asvspoof2019", roots), entries("asvspoof2019", {"main": tmp_path / "LA"})
    assert [e.path for e in above] == [f"LA/{e.path}" for e in itself]
    assert [(e.split, e.attack) for e in itself[3:6]] == [("train", "A01"), ("dev", "bonafide"), ("dev", "A06")]
    assert itself[5].where.endswith("ASVspoof2019.LA.cm.dev.trl.txt:2")


def test_a_missing_protocol_is_named(tmp_path):
    roots = trees.asvspoof2019(tmp_path)
    (tmp_path / "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.eval.trl.txt").unlink()
    with pytest.raises(ManifestError, match="no protocol of eval"):
        scan("asvspoof2019", roots)


@pytest.mark.parametrize("track", ["DF", "LA"])
def test_asvspoof2021_takes_the_subset_eval_from_every_part(tmp_path, track):
    found = entries(f"asvspoof2021-{track.lower()}", trees.asvspoof2021(tmp_path, track=track))
    assert [(e.source, e.speaker, e.attack, e.split) for e in found] == [
        (f"{track}_E_2000013", "TEF2", "Task1-team20", "eval"),
        (f"{track}_E_2000053", "LA_0043", "bonafide", "eval"),
    ]
    assert all((tmp_path / e.path).is_file() for e in found)


@pytest.mark.parametrize("where", ["DF-keys-full/keys/DF/CM", "DF-keys-stage-1/keys/CM", ""])
def test_the_keys_may_lie_where_their_archives_unpack_to(tmp_path, where):
    roots = trees.asvspoof2021(tmp_path)
    keys = tmp_path / "keys/DF/CM/trial_metadata.txt"
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    keys.rename(tmp_path / where / "trial_metadata.txt")
    assert len(entries("asvspoof2021-df", roots)) == 2


def test_the_keys_of_another_task_are_noticed(tmp_path):
    roots = trees.asvspoof2021(tmp_path)
    pa = "PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval"
    trees.text(tmp_path / "keys/DF/CM/trial_metadata.txt", pa)
    (problem,) = scan("asvspoof2021-df", roots)
    assert "subset 's4'" in problem.message
    for folder in tmp_path.glob("ASVspoof2021_DF_eval_part*"):
        folder.rename(tmp_path / f"x{folder.name}")
    with pytest.raises(ManifestError, match="no audio of ASVspoof 2021 DF"):
        scan("asvspoof2021-df", roots)


def test_in_the_wild_reads_quoted_and_unicode_speakers(tmp_path):
    found = entries("in-the-wild", trees.in_the_wild(tmp_path))
    assert [(e.source, e.speaker, e.attack) for e in found[:3]] == [
        ("0", "Alec Guinness", "unknown"),
        ("1", "Émile Zola", "bonafide"),
        ("2", "King, Martin Luther", "bonafide"),
    ]
    assert found[0].path == "release_in_the_wild/0.wav"
    assert entries("in-the-wild", {"main": tmp_path / "release_in_the_wild"})[0].path == "0.wav"


def test_in_the_wild_bad_rows_are_problems_and_a_bad_header_is_an_error(tmp_path):
    roots = trees.in_the_wild(tmp_path)
    meta = tmp_path / "release_in_the_wild/meta.csv"
    trees.text(meta, "file,speaker,label", "0.wav,A", "1.wav,B,fake", "2.wav,C,spoof")
    two, three, four = scan("in-the-wild", roots)
    assert isinstance(two, Problem) and two.where.endswith("meta.csv:2") and "2 fields" in two.message
    assert isinstance(three, Problem) and "label 'fake'" in three.message
    assert isinstance(four, Entry)
    trees.text(meta, "name,speaker,label")
    with pytest.raises(ManifestError, match=r"meta\.csv:1: the columns file are missing"):
        scan("in-the-wild", roots)


def test_common_voice_keeps_a_speaker_in_one_split_and_reads_mp3(tmp_path):
    roots = trees.common_voice(tmp_path / "fr")
    first, second, third = entries("common-voice", roots)
    assert (first.speaker, first.path, first.attack) == ("aa", "clips/common_voice_fr_0.mp3", "bonafide")
    assert first.split == third.split == split_of("aa")
    assert second.split == split_of("bb")
    report = index(LAYOUTS["common-voice"], roots, tmp_path / "out")
    assert report.files == 3
    assert "sample_rate = 32000" in report.manifest.read_text()


def test_common_voice_row_without_a_path(tmp_path):
    roots = trees.common_voice(tmp_path)
    trees.text(tmp_path / "validated.tsv", "client_id\tpath\tsentence", "aa\t\tx", "bb")
    assert [p.where.rpartition(":")[2] for p in scan("common-voice", roots)] == ["2", "3"]


def test_vocv4_pairs_by_the_utterance_in_the_name(tmp_path):
    found = entries("vocv4", trees.vocv4(tmp_path))
    assert [(e.source, e.attack, e.split) for e in found[:5]] == [
        ("LA_T_1000001", "bonafide", "dev"),
        ("LA_T_1000001", "hifigan", "dev"),
        ("LA_T_1000001", "hn-sinc-nsf-hifi", "dev"),
        ("LA_T_1000001", "hn-sinc-nsf", "dev"),
        ("LA_T_1000001", "waveglow", "dev"),
    ]
    assert found[0].root == "bonafide"
    assert found[0].path == "LA/ASVspoof2019_LA_train/flac/LA_T_1000001.flac"
    assert found[2].path == "voc.v4/wav/hn-sinc-nsf-hifi_LA_T_1000001.wav"
    assert {e.split for e in found[5:]} == {"train"}


def test_vocv4_without_lists_is_all_train_and_a_strange_trial_is_a_problem(tmp_path):
    roots = trees.vocv4(tmp_path)
    home = tmp_path / "project09-voc.v4/voc.v4"
    for name in ("train", "dev"):
        (home / f"scp/{name}.lst").unlink()
    with (home / "protocol.txt").open("a") as file:
        file.write("LA_0079 hifigan_LA_T_17 - hifigan spoof\nLA_0079 LA_T_1000001 - - bonafide\nLA_0079\n")
    found = scan("vocv4", roots)
    assert {e.split for e in found if isinstance(e, Entry)} == {"train"}
    assert sorted(p.where.rpartition(":")[2] for p in found if isinstance(p, Problem)) == ["11", "9"]


def test_librisevoc_takes_both_suffixes_and_names_a_missing_twin(tmp_path):
    roots = trees.librisevoc(tmp_path)
    found = entries("librisevoc", roots)
    assert len(found) == 14
    assert {e.path for e in found if e.source.startswith("27")} >= {
        "diffwave/27_123349_000006_000000_gen.wav",
        "melgan/27_123349_000006_000000.wav",
    }
    assert {e.speaker for e in found} == {"27", "1034"}
    (tmp_path / "wavenet/27_123349_000006_000000_gen.wav").unlink()
    trees.sound(tmp_path / "gt/notes.wav", trees.noise("x", trees.SHORT))
    one, two = (p for p in scan("librisevoc", roots) if isinstance(p, Problem))
    assert one.where.endswith("gt/27_123349_000006_000000.wav") and "no twin by wavenet" in one.message
    assert "not named as LibriTTS" in two.message
    (tmp_path / "melgan").rename(tmp_path / "MelGAN")
    with pytest.raises(ManifestError, match="the folders melgan are missing"):
        scan("librisevoc", roots)


def test_wavefake_takes_ljspeech_only_and_either_suffix(tmp_path):
    roots = trees.wavefake(tmp_path / "data")
    found = entries("wavefake", roots)
    assert [e.attack for e in found[:4]] == ["bonafide", "hifiGAN", "melgan", "multi_band_melgan"]
    assert found[1].path == "generated_audio/ljspeech_hifiGAN/LJ001-0001_generated.wav"
    assert len(found) == 8
    (tmp_path / "data/LJSpeech-1.1").rename(tmp_path / "lj")
    with pytest.raises(ManifestError, match="--root bonafide=DIR"):
        scan("wavefake", roots)
    moved = {**roots, "bonafide": tmp_path / "lj"}
    assert [e.root for e in entries("wavefake", moved)[:2]] == ["bonafide", "main"]
    report = index(LAYOUTS["wavefake"], moved, tmp_path / "out")
    assert (report.files, report.extra) == (8, 0)


# Folders of one's own ------------------------------------------------------------------------------------------------


def test_a_folder_of_pairs_in_three_splits(tmp_path):
    for split in ("train", "eval"):
        trees.folder(tmp_path / split, names=(f"{split}_1",))
    found = entries("folder", {"main": tmp_path})
    assert [(e.source, e.split, e.attack) for e in found[:3]] == [
        ("train_1", "train", "bonafide"),
        ("train_1", "train", "griffin-lim"),
        ("train_1", "train", "my_coder"),
    ]
    assert len(found) == 6


def test_a_vocoded_file_without_a_bona_fide_one_is_counted_as_extra(tmp_path):
    roots = trees.folder(tmp_path / "data")
    trees.sound(tmp_path / "data/my_coder/alone.wav", trees.noise("x", trees.PAIRED))
    report = index(LAYOUTS["folder"], roots, tmp_path / "out")
    assert (report.files, report.named_extra) == (9, ("my_coder/alone.wav",))


def test_a_table_of_pairs(tmp_path):
    trees.folder(tmp_path)
    table = trees.text(
        tmp_path / "mine.csv",
        "bonafide,spoof,speaker,vocoder,split",
        "bonafide/été.wav,my_coder/été.flac,zoë,my-coder,train",
        "bonafide/a-b_c.wav,griffin-lim/a-b_c.wav,,,",
        "bonafide/été.wav,griffin-lim/été.wav,zoë,,train",
    )
    found = entries("folder", {"main": table})
    assert [(e.source, e.speaker, e.split, e.attack) for e in found] == [
        ("bonafide-a-b_c", "unknown", "eval", "bonafide"),
        ("bonafide-a-b_c", "unknown", "eval", "griffin-lim"),
        ("bonafide-été", "zoë", "train", "bonafide"),
        ("bonafide-été", "zoë", "train", "griffin-lim"),
        ("bonafide-été", "zoë", "train", "my-coder"),
    ]
    report = index(LAYOUTS["folder"], {"main": table}, tmp_path)
    assert len(pairs(catalog.open_indexed("folder", tmp_path))) == 3
    assert report.late == 1


def test_a_table_with_bad_rows(tmp_path):
    trees.folder(tmp_path)
    trees.text(tmp_path / "pairs.csv", "bonafide,spoof", "bonafide/été.wav", "bonafide/été.wav,", "a,b,c")
    assert [p.where.rpartition(":")[2] for p in scan("folder", {"main": tmp_path})] == ["2", "3", "4"]
    trees.text(tmp_path / "pairs.csv", "real,fake")
    with pytest.raises(ManifestError, match=r"pairs\.csv:1: the columns bonafide, spoof are missing"):
        scan("folder", {"main": tmp_path})


def test_a_folder_without_bona_fide_recordings(tmp_path):
    with pytest.raises(ManifestError, match="no bona fide recordings; expected bonafide/"):
        scan("folder", {"main": tmp_path})


# Opening what was indexed --------------------------------------------------------------------------------------------


def test_an_indexed_set_opens_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XAIBENCH_MANIFESTS", str(tmp_path / "manifests"))
    with pytest.raises(ManifestError, match=r"'vocv4' is not indexed .* xaibench data index vocv4 --root DIR"):
        catalog.vocv4.open(None)
    roots = trees.vocv4(tmp_path / "data")
    index(LAYOUTS["vocv4"], roots, catalog.manifests_folder())
    assert len(pairs(catalog.vocv4.open(None))) == 8
    moved = tmp_path / "elsewhere"
    roots["main"].rename(moved)
    with pytest.raises(ManifestError, match="no such folder"):
        catalog.vocv4.open(None)
    corpus = catalog.vocv4.open(moved)
    assert {u.path.is_relative_to(moved) for u in corpus.utterances if not u.bonafide} == {True}
