"""The index engine: what it writes, that it continues, that its memory is flat, and that every bad input is named."""

import csv
import os
import pathlib
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trees

from xaibench.datasets.catalog import LAYOUTS
from xaibench.datasets.index import index
from xaibench.datasets.layout import Entry, Problem
from xaibench.errors import ManifestError
from xaibench.manifest import pairs, read_manifest, stream, verify


def layout(name, **changes):
    """A layout without the published counts, which a small tree cannot have."""
    return replace(LAYOUTS[name], **{"expected": {}, **changes})


class Small:
    """ASVspoof 2019 with four trials a split."""

    def __init__(self, path):
        self.path, self.out = path, path / "out"
        self.roots = trees.asvspoof2019(path / "data")
        self.home = path / "data" / "LA"
        self.protocol = self.home / "ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt"
        self.flac = self.home / "ASVspoof2019_LA_dev/flac/LA_D_1000037.flac"

    def index(self, **options):
        return index(layout("asvspoof2019"), self.roots, self.out, **options)

    def table(self):
        return (self.out / "asvspoof2019.csv").read_bytes()

    def refused(self, *parts):
        """Indexing stops with a message of these parts; with "skip" it counts one problem, says the same, and goes on."""
        with pytest.raises(ManifestError) as caught:
            self.index()
        report = self.index(on_error="skip")
        assert report.problems == 1
        for part in parts:
            assert str(part) in str(caught.value)
            assert str(part) in report.named_problems[0]
        assert "--on-error skip" in str(caught.value)
        return report


@pytest.fixture
def small(tmp_path):
    return Small(tmp_path)


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


# What it writes ------------------------------------------------------------------------------------------------------


def test_the_manifest_can_be_read_and_its_hashes_hold(small):
    report = small.index()
    corpus = read_manifest(report.manifest, small.home.parent)
    assert verify(corpus.utterances) == report.files == report.read == 12
    assert report.splits == {"train": 4, "dev": 4, "eval": 4}
    assert (report.problems, report.kept, report.late) == (0, 0, 0)
    first = corpus.utterances[1]
    assert (first.source, first.speaker, first.split, first.vocoder) == ("LA_T_1000037", "LA_0001", "train", "A01")
    assert first.n_samples == trees.SHORT + 1
    assert corpus.kinds["A06"] == "vc"
    assert corpus.sample_rate == 16_000


def test_flacs_that_no_protocol_names_are_a_note(small):
    report = small.index()
    assert report.extra == 3
    assert report.named_extra[0] == "LA/ASVspoof2019_LA_dev/flac/LA_D_9999999.flac"


def test_a_set_that_is_not_paired_has_no_pairs_and_needs_no_twins(small):
    corpus = read_manifest(small.index().manifest, small.home.parent)
    assert pairs(corpus) == []
    assert sum(not u.bonafide for u in corpus.utterances) == 6


def test_lags_are_found_and_the_table_counts_what_twins_share(tmp_path):
    roots = trees.vocv4(tmp_path)
    report = index(layout("vocv4"), roots, tmp_path / "out")
    corpus = read_manifest(report.manifest, roots)
    for u in corpus.utterances:
        lag, tail = trees.VOC.get(u.vocoder, (0, 0))
        assert u.lag == lag
        written = trees.PAIRED + lag + tail
        assert u.n_samples == (trees.PAIRED if u.bonafide else min(trees.PAIRED - max(0, -lag), written - max(0, lag)))
    assert (report.late, report.latest) == (4, 40)
    assert len(pairs(corpus)) == 8
    assert {u.path.parts[-5] for u in corpus.utterances if u.bonafide} == {"asvspoof"}


def test_twins_of_another_utterance_are_called_unlike(tmp_path):
    roots = trees.folder(tmp_path / "data", names=("one",))
    trees.sound(tmp_path / "data/my_coder/one.flac", trees.noise("another", trees.PAIRED))
    report = index(layout("folder"), roots, tmp_path / "out")
    assert report.unlike == 1
    assert report.named_unlike[0].startswith("my_coder/one.flac: ")


def test_segments_reach_the_table(tmp_path):
    trees.sound(tmp_path / "CON_T_1.wav", trees.noise("x", trees.SHORT))
    cut = ((0.0, 0.02, "bonafide"), (0.02, 0.04, "spoof"))
    made = replace(
        layout("in-the-wild"),
        name="cut",
        scan=lambda roots: iter([Entry("c", "s", "dev", "A", "CON_T_1.wav", segments=cut)]),
    )
    report = index(made, {"main": tmp_path}, tmp_path / "out")
    assert next(stream(report.manifest, tmp_path)).segments == cut


def test_the_rate_of_the_first_file_is_that_of_a_set_that_publishes_none(tmp_path):
    roots = trees.librisevoc(tmp_path / "data")
    report = index(layout("librisevoc"), roots, tmp_path / "out")
    corpus = read_manifest(report.manifest, tmp_path / "data")
    assert (corpus.sample_rate, corpus.valid_band) == (24_000, (0.0, 12_000.0))
    trees.sound(tmp_path / "data/gt/9_1_1_1.wav", trees.noise("x", trees.PAIRED), 16_000)
    with pytest.raises(ManifestError, match=r"9_1_1_1\.wav: sampled at 16000 Hz, expected 24000 Hz"):
        index(layout("librisevoc"), roots, tmp_path / "out")


def test_progress_is_reported_file_by_file(small):
    seen = []
    small.index(report=lambda done, name: seen.append((done, name)))
    assert [done for done, _ in seen] == list(range(1, 13))
    assert seen[0][1].endswith("LA_T_1000000.flac")


# Again, and after a stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", trees.TREES)
def test_indexing_twice_gives_the_same_bytes_and_reads_nothing_again(tmp_path, name):
    make, splits = trees.TREES[name]
    roots = make(tmp_path / "data")
    first = index(layout(name), roots, tmp_path / "out")
    content = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.suffix in (".csv", ".toml")}
    assert first.files == first.read > 1
    assert splits is None or first.splits == splits
    again = index(layout(name), roots, tmp_path / "out")
    assert (again.kept, again.read) == (first.files, 0)
    afresh = index(layout(name), roots, tmp_path / "out", verify=True)
    assert (afresh.kept, afresh.read) == (0, first.files)
    elsewhere = index(layout(name), roots, tmp_path / "elsewhere")
    for report in (again, afresh, elsewhere):
        folder = report.manifest.parent
        assert {name: (folder / name).read_bytes() for name in content} == content
    assert tuple(stream(first.manifest, roots)) == read_manifest(first.manifest, roots).utterances


KILLED = """
import sys, os
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from xaibench.datasets import store
from xaibench.datasets.catalog import LAYOUTS
from xaibench.datasets.index import index
store.COMMIT_EVERY = 3
def step(done, name):
    if done == 7:
        os.kill(os.getpid(), 9)
index(replace(LAYOUTS["asvspoof2019"], expected={}), {"main": Path(sys.argv[2])}, Path(sys.argv[3]), report=step)
"""


def test_killed_half_way_and_started_again_gives_the_same_bytes(small):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(trees.__file__).parent), str(small.roots["main"]), str(small.out)],
        check=False,
    )
    assert done.returncode == -9
    assert not (small.out / "asvspoof2019.csv").exists()
    report = small.index()
    assert (report.kept, report.read) == (6, 6)
    whole = index(layout("asvspoof2019"), small.roots, small.path / "whole")
    assert small.table() == (small.path / "whole/asvspoof2019.csv").read_bytes()
    assert report.manifest.read_bytes() == whole.manifest.read_bytes()
    assert not list(small.out.glob("*.part"))


def test_a_stopped_run_leaves_the_old_manifest_whole(small):
    small.index()
    before = small.table()
    small.flac.unlink()
    with pytest.raises(ManifestError, match="missing"):
        small.index()
    assert small.table() == before
    assert len(list(stream(small.out / "asvspoof2019.toml", small.roots))) == 12


def test_only_changed_files_are_read_again(small):
    small.index()
    trees.sound(small.flac, trees.noise("other", trees.SHORT + 9))
    report = small.index()
    assert (report.read, report.kept) == (1, 11)
    assert f",{trees.SHORT + 9},".encode() in small.table()


def test_verify_sees_a_change_that_kept_size_and_time(small):
    small.index()
    stat = small.flac.stat()
    content = bytearray(small.flac.read_bytes())
    content[13] ^= 1  # of the least bytes that a frame has, which nobody compares
    small.flac.write_bytes(content)
    os.utime(small.flac, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    before = small.table()
    small.index()
    assert small.table() == before
    small.index(verify=True)
    assert small.table() != before


def test_a_changed_bona_fide_file_has_its_twins_aligned_again(tmp_path):
    roots = trees.folder(tmp_path / "data", names=("a", "b"))
    index(layout("folder"), roots, tmp_path / "out")
    trees.sound(tmp_path / "data/bonafide/a.wav", trees.late(trees.noise("a", trees.PAIRED), 30))
    report = index(layout("folder"), roots, tmp_path / "out")
    assert (report.read, report.kept) == (3, 3)
    lags = {(u.source, u.vocoder): u.lag for u in stream(report.manifest, roots)}
    assert lags["a", "griffin-lim"] == -30
    assert lags["b", "griffin-lim"] == 0


def test_files_that_are_gone_leave_the_table(small):
    small.index()
    small.protocol.write_text("\n".join(lines(small.protocol)[:2]) + "\n")
    report = small.index()
    assert report.files == 10
    assert report.extra == 5  # 3, and the two that nothing names any more


def test_a_limit_takes_the_first_entries_and_compares_no_counts(small):
    report = index(LAYOUTS["asvspoof2019"], small.roots, small.out, limit=5)
    assert report.files == 5
    assert report.splits == {"train": 4, "dev": 1}
    assert small.index().kept == 5


# Memory --------------------------------------------------------------------------------------------------------------


def many(path, n):
    """`n` trials that share ten recordings, linked: the engine must read each."""
    recordings = [trees.sound(path / f"{i}.wav", trees.noise(str(i), 64)) for i in range(10)]
    wav = path / "wav"
    wav.mkdir()
    for i in range(n):
        os.link(recordings[i % 10], wav / f"speech-{i:06}.wav")

    def scan(roots):
        for i in range(n):
            yield Entry(
                f"u{i:06}", f"s{i % 7}", "eval", "bonafide" if i % 2 else "A07", f"wav/speech-{i:06}.wav", where=f"p:{i}"
            )

    return replace(layout("in-the-wild"), name="many", scan=scan), {"main": path}


class Held:
    """Bytes that Python holds, sampled now and then; call it where rows pass by.

    pathlib's are left out: it interns the parts of every path, and the interpreter's table of interned strings grows in
    steps whose time has nothing to do with what is held.
    """

    def __init__(self):
        self.most = self.count = 0

    def __call__(self, *_):
        self.count += 1
        if self.count % 100 == 0:
            self.sample()

    def sample(self):
        kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, pathlib.__file__)])
        self.most = max(self.most, sum(trace.size for trace in kept.traces))


def held(folder, n):
    """Most bytes held while indexing, streaming and reading a set of `n` files."""
    what, roots = many(folder, n)
    manifest = folder / "out/many.toml"
    indexing, streaming, reading = Held(), Held(), Held()
    tracemalloc.start()
    try:
        index(what, roots, folder / "out", report=indexing)
        for _ in stream(manifest, roots):
            streaming()
        corpus = read_manifest(manifest, roots)
        reading.sample()
        assert len(corpus.utterances) == indexing.count == streaming.count == n
    finally:
        tracemalloc.stop()
    return {"index": indexing.most, "stream": streaming.most, "read": reading.most}


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """Ten times the files: hardly more is held, where a corpus that is read whole takes hundreds of bytes a file."""
    held(tmp_path / "warm", 100)  # imports and caches
    few, many_more = held(tmp_path / "few", 200), held(tmp_path / "many", 2000)
    grown = {name: (many_more[name] - few[name]) / 1800 for name in few}
    # sqlite3 keeps some 2,000 small objects of a connection, 0.34 MB, whatever the number of rows: 150 bytes a file here
    assert grown["index"] < 220
    assert grown["stream"] < 220
    assert grown["read"] > 450  # the measure can tell


# Bad input -----------------------------------------------------------------------------------------------------------


def test_published_counts_are_compared(small):
    with pytest.raises(ManifestError, match=r"the split train has 4 files, its authors publish 25,380; .*the split eval"):
        index(LAYOUTS["asvspoof2019"], small.roots, small.out)
    report = index(LAYOUTS["asvspoof2019"], small.roots, small.out, on_error="skip")
    assert len(report.notes) == 3
    assert "71,237" in report.notes[2]


def test_a_protocol_line_without_its_last_column(small):
    rows = lines(small.protocol)
    rows[1] = rows[1].rpartition(" ")[0]
    small.protocol.write_text("\n".join(rows) + "\n")
    report = small.refused(f"{small.protocol}:2", "4 columns, expected 5")
    assert report.files == 11


@pytest.mark.parametrize("end", ["A06 bonafide", "- spoof", "A06 genuine"])
def test_attack_and_key_that_contradict_each_other(small, end):
    rows = lines(small.protocol)
    rows[2] = " ".join([*rows[2].split()[:3], end])
    small.protocol.write_text("\n".join(rows) + "\n")
    small.refused(f"{small.protocol}:3", end.split()[1])


def test_a_protocol_that_is_not_utf8_stops_even_when_skipping(small):
    small.protocol.write_bytes(small.protocol.read_bytes().replace(b"LA_0001", b"LA_\xff"))
    with pytest.raises(ManifestError, match=r"dev\.trl\.txt:2: not UTF-8"):
        small.index(on_error="skip")


def test_a_missing_file(small):
    small.flac.unlink()
    report = small.refused(f"{small.protocol}:2", small.flac, "missing")
    assert (report.files, report.extra) == (11, 3)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_a_truncated_flac_is_named_with_file_and_line(small, share):
    trees.sound(small.flac, trees.noise("long", 40_000))
    content = small.flac.read_bytes()
    small.flac.write_bytes(content[: int(share * len(content))])
    small.refused(f"{small.protocol}:2", small.flac)


def test_a_file_of_another_rate(small):
    trees.sound(small.flac, trees.noise("x", trees.SHORT), 8_000)
    small.refused(small.flac, "8000 Hz", "16000 Hz")


def test_a_stereo_file(small):
    trees.sound(small.flac, np.zeros((trees.SHORT, 2)))
    small.refused(small.flac, "2 channels")


def test_a_duplicated_line(small):
    rows = lines(small.protocol)
    small.protocol.write_text("\n".join([*rows, rows[1]]) + "\n")
    report = small.refused(f"{small.protocol}:5", "A06 of 'LA_D_1000037' is already there", f"{small.protocol}:2")
    assert report.files == 12


def scanned(tmp_path, *entries, **changes):
    made = replace(layout("in-the-wild"), name="made", scan=lambda roots: iter(entries), **changes)
    return index(made, {"main": tmp_path}, tmp_path / "out", on_error=changes.pop("on_error", "stop"))


def test_one_file_under_two_names(tmp_path):
    trees.sound(tmp_path / "x.wav", trees.noise("x", trees.SHORT))
    with pytest.raises(ManifestError, match=r"b: the file 'x.wav' is already there as bonafide of 'u': a"):
        scanned(
            tmp_path,
            Entry("u", "s", "dev", "bonafide", "x.wav", where="a"),
            Entry("v", "s", "dev", "bonafide", "x.wav", where="b"),
        )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("", "s", "dev", "A", "x.wav"), "utt_id is empty"),
        (Entry("a/b", "s", "dev", "A", "x.wav"), "path separator"),
        (Entry("a", "s", "dev", "A__B", "x.wav"), "'__'"),
        (Entry("a", "s", "test", "A", "x.wav"), "split 'test'"),
        (Entry("a", "s", "dev", "A", "../x.wav"), "leaves the root"),
        (Entry("a", "s", "dev", "A", "link.wav"), "leaves the root"),
        (Entry("a", "s", "dev", "A", "."), "a directory, expected an audio file"),
        (Entry("a", "s", "dev", "A", "nowhere.wav"), "missing"),
        (Entry("a", "s", "dev", "A", "/etc/x.wav"), "not below the root"),
        (Entry("a", "s", "dev", "A", "x" * 300 + ".wav"), "missing|cannot be read"),
        (Entry("a", "s", "dev", "A", "bad\udcff.wav"), "not UTF-8"),
        (Problem("p:3", "why"), "p:3: why"),
    ],
)
def test_an_entry_that_cannot_stand(tmp_path, entry, message):
    trees.sound(tmp_path / "x.wav", trees.noise("x", trees.SHORT))
    root = tmp_path / "root"
    trees.sound(root / "x.wav", trees.noise("x", trees.SHORT))
    (root / "link.wav").symlink_to(tmp_path / "x.wav")
    with pytest.raises(ManifestError, match=message):
        scanned(root, entry)


def test_a_vocoded_file_before_or_without_its_bona_fide_half(tmp_path):
    trees.sound(tmp_path / "x.wav", trees.noise("x", trees.SHORT))
    with pytest.raises(ManifestError, match="hifigan of 'u' has no bona fide twin"):
        scanned(tmp_path, Entry("u", "s", "dev", "hifigan", "x.wav"), paired=True)


def test_twins_share_split_and_speaker(tmp_path):
    for name in "ab":
        trees.sound(tmp_path / f"{name}.wav", trees.noise("x", trees.SHORT))
    half = Entry("u", "s", "dev", "bonafide", "a.wav")
    for twin in (Entry("u", "t", "dev", "v", "b.wav"), Entry("u", "s", "eval", "v", "b.wav")):
        with pytest.raises(ManifestError, match="twins share both"):
            scanned(tmp_path, half, twin, paired=True)


def test_the_twins_of_a_bona_fide_file_that_was_left_out_are_left_out_too(tmp_path):
    roots = trees.folder(tmp_path / "data", names=("a", "b"))
    (tmp_path / "data/bonafide/a.wav").write_bytes(b"RIFF")
    report = index(layout("folder"), roots, tmp_path / "out", on_error="skip")
    assert (report.problems, report.files, report.extra) == (3, 3, 0)
    assert "'a.wav'" in report.named_problems[1] or "was left out" in report.named_problems[1]
    assert len(read_manifest(report.manifest, roots).utterances) == 3


def test_roots_that_are_wrong(tmp_path, small):
    with pytest.raises(ManifestError, match=r"'vocv4' needs its bonafide root, a folder: --root bonafide=DIR"):
        index(LAYOUTS["vocv4"], {"main": tmp_path}, tmp_path / "out")
    with pytest.raises(ManifestError, match="'asvspoof2019' has no root 'bonafide'"):
        index(LAYOUTS["asvspoof2019"], {"main": tmp_path, "bonafide": tmp_path}, tmp_path / "out")
    with pytest.raises(ManifestError, match="nowhere: no such folder"):
        index(LAYOUTS["asvspoof2019"], {"main": tmp_path / "nowhere"}, tmp_path / "out")
    with pytest.raises(ManifestError, match="no countermeasure protocols"):
        index(LAYOUTS["asvspoof2019"], {"main": small.home / "ASVspoof2019_LA_dev"}, tmp_path / "out")
    with pytest.raises(ManifestError, match="on_error is 'stop' or 'skip'"):
        small.index(on_error="ignore")


def test_a_manifest_with_two_roots_needs_both_and_keeps_to_them(tmp_path):
    roots = trees.vocv4(tmp_path)
    report = index(layout("vocv4"), roots, tmp_path / "out")
    with pytest.raises(ManifestError, match="its root 'bonafide', which is not given; given: main"):
        read_manifest(report.manifest, roots["main"])
    table = tmp_path / "out/vocv4.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows[1][4] = "../" + rows[2][4]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    manifest = report.manifest
    manifest.write_text("".join(r + "\n" for r in lines(manifest) if not r.startswith("table_sha256")), encoding="utf-8")
    for read in (read_manifest, lambda path, roots: list(stream(path, roots))):
        with pytest.raises(ManifestError, match=r"vocv4\.csv:2: path .* leaves the root .*asvspoof"):
            read(manifest, roots)


def test_a_damaged_store_is_named(small):
    small.index()
    (small.out / "asvspoof2019.index").write_bytes(b"x" * 8192)
    with pytest.raises(ManifestError, match=r"asvspoof2019\.index: cannot be used .* delete it"):
        small.index()


def test_two_runs_at_once_are_refused(small):
    def second(done, name):
        if done == 3:
            with pytest.raises(ManifestError, match="is another index of this data set running"):
                small.index()

    assert small.index(report=second).files == 12


def test_an_empty_data_set_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="not one file of the data set 'made'"):
        scanned(tmp_path)
