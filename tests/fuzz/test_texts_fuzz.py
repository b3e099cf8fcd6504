"""Manifests, protocols, score files and labels with other tokens, lines, bytes and encodings: a result that holds, or a
sentence with the file's name. No reader gives a path outside the folder that it was given.

What counts as one input: one file, different from all before it.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import sounds
from apart import apart
from fuzzing import TIMES, many
from garbling import garbled, retold

from xaibench.datasets import partialspoof
from xaibench.datasets.catalog import LAYOUTS
from xaibench.datasets.index import index
from xaibench.datasets.layout import Entry, Problem
from xaibench.datasets.seglab import label_cells, read_label_file
from xaibench.detection_table import Evaluation, collect, collect_asv, summary
from xaibench.errors import XaibenchError
from xaibench.manifest import parse_segments, read_manifest, remembered_roots, stream
from xaibench.metrics.rcq import read_vad
from xaibench.scorefile import read_asv, read_asv_2021, read_keys, read_trials
from xaibench.segments import check_segments


def check_number(value):
    assert isinstance(value, float) and math.isfinite(value)


# Manifests ---------------------------------------------------------------------------------------------------------------

HEADER = "utt_id,speaker,split,vocoder,path,n_samples,sha256,root,lag,segments"
TWINS = (("bonafide", "", ""), ("hifigan", "-3", ""), ("griffin-lim", "12", '"0 0.01 bonafide;0.01 0.02 spoof"'))
ROWS = [
    f"{name},s{i},{split},{vocoder},{vocoder}/{name}.wav,400,{'0' * 64},,{lag},{segments}"
    for i, (name, split) in enumerate([("a b", "train"), ("été", "dev"), ("c-3", "eval")])
    for vocoder, lag, segments in TWINS
]
TABLE = "\n".join([HEADER, *ROWS]) + "\n"
TOML = """# as `xaibench data index` writes it
name = "demo"
title = "A demonstration"
table = "demo.csv"
files = 9
utterances = 3
splits = { "train" = 1, "dev" = 1, "eval" = 1 }
paired = true
sample_rate = 16000
valid_band = [0.0, 8000.0]
held_out = ["griffin-lim"]
kinds = { "hifigan" = "neural" }
roots = ["main"]
checked = "real files"
licence = "CC0"
"""
TOML_TOKENS = (
    "name", "table", "files", "splits", "valid_band", "[", "]", "[[x]]", "{ a = { b = 1 } }", "1979-05-27", "inf", "0o7",
    "[1, 2]",
    '"../demo.csv"', '"/etc/passwd"', '"a\\u0000b"', '["main", "main"]', "-16000", "16000.0", "table_sha256", '"""', "'",
)  # fmt: skip
CSV_TOKENS = (
    "0 1 spoof",
    "0 1 spoof;0.5 2 bonafide",
    "-1 2 spoof",
    "out/x.wav",
    "loop/x.wav",
    "away/x.wav",
    "bonafide/a b.wav",
    "a__b",
)


def home(folder):
    """A data set's folder with links that go round, to nowhere and out of it."""
    root = folder / "root"
    (root / "bonafide").mkdir(parents=True)
    (root / "loop").symlink_to(root / "loop")
    (root / "out").symlink_to(folder)
    (root / "away").symlink_to(folder / "nowhere")
    return root


def rows_of(read):
    try:
        return list(read())
    except XaibenchError as error:
        return type(error), str(error)


def test_garbled_manifests_and_tables(tmp_path):
    root = home(tmp_path)

    def one(desk, draw):
        toml, table = TOML.encode(), TABLE.encode()
        if draw.random() < 0.4:
            toml = retold(draw, TOML, TOML_TOKENS)
        else:
            table = retold(draw, TABLE, CSV_TOKENS)
        (tmp_path / "demo.csv").write_bytes(table)
        path = desk.put("demo.toml", toml)
        desk.inputs.add(hash((toml, table)))
        with desk.gathering(path if table == TABLE.encode() else tmp_path / "demo.csv"):
            found = desk.ask(path, lambda: read_manifest(path, root), named=str(tmp_path))
            streamed = rows_of(lambda: stream(path, root))
            if isinstance(found, str):
                assert streamed[1] == found, "read_manifest and stream say different things"
                return
            assert list(found.utterances) == streamed
            assert 0 <= found.valid_band[0] < found.valid_band[1] <= found.sample_rate / 2
            for u in found.utterances:
                assert u.path.resolve().is_relative_to(root.resolve()), f"{u.path} left the root"
                assert u.split in ("train", "dev", "eval") and u.source and u.vocoder
                assert 0 <= u.n_samples < 10**15 and abs(u.lag) < 10**9
                check_segments(u.segments)

    inputs, read = apart(many(60, one), tmp_path)
    assert inputs >= 2_800 * TIMES and read > inputs // 20


def test_garbled_roots_and_segments(tmp_path):
    good = '{"main": "/data/LA", "bonafide": "/data/été"}'

    def one(desk, draw):
        path = desk.put("demo.roots.json", retold(draw, good, ("null", "1", "[]", '{"a": {}}', "NaN", "[" * 100_000)))
        with desk.gathering(path):
            desk.ask(path, lambda: remembered_roots(tmp_path / "demo.toml"))
            text = retold(draw, "0 0.52 bonafide;0.52 1.3 spoof;1.3 2 bonafide").decode("utf-8", "replace")
            found = desk.ask(path, lambda: parse_segments("a.csv:2", text), named="a.csv:2")
            if not isinstance(found, str):
                check_segments(found)

    inputs, read = apart(many(16, one), tmp_path)
    assert inputs >= 400 * TIMES and read > 20


# Score files -------------------------------------------------------------------------------------------------------------

NAMES = [f"LA_E_{1_000_000 + i}" for i in range(12)]
SCORES_2019 = "".join(
    f"{n} {'-' if i % 3 == 0 else 'A07'} {'bonafide' if i % 3 == 0 else 'spoof'} {i - 5.5}\n" for i, n in enumerate(NAMES)
)
SCORES_2021 = "".join(f"{n} {i - 5.5:e}\n" for i, n in enumerate(NAMES))
KEYS_2019 = "".join(
    f"LA_0001 {n} - {'-' if i % 3 == 0 else 'A07'} {'bonafide' if i % 3 == 0 else 'spoof'}\n" for i, n in enumerate(NAMES)
)
KEYS_LA = "".join(
    f"LA_0001 {n} alaw ita_tx {'bonafide' if i % 3 == 0 else 'A07'} {'bonafide' if i % 3 == 0 else 'spoof'} notrim eval\n"
    for i, n in enumerate(NAMES)
)
KEYS_DF = "".join(f"{line} neural_vocoder Task1 team20 FF E\n" for line in KEYS_LA.splitlines())
ASV_2019 = "".join(
    f"{'A07' if i % 3 == 0 else 'bonafide'} {('spoof', 'target', 'nontarget')[i % 3]} {i / 7}\n" for i in range(12)
)
ASV_KEYS = "".join(
    f"LA_000{i} {n} alaw ita_tx A07 {('spoof', 'target', 'nontarget')[i % 3]} notrim eval\n" for i, n in enumerate(NAMES)
)
ASV_2021 = "".join(f"LA_000{i} {n} {i / 7}\n" for i, n in enumerate(NAMES))


def test_garbled_score_files_and_keys(tmp_path):
    for name, text in (("good.keys", KEYS_LA), ("good.asvkeys", ASV_KEYS)):
        (tmp_path / name).write_text(text)
    keys = read_keys(tmp_path / "good.keys")

    def trials(path):
        return list(read_trials(path))

    readers = [
        ("2019.txt", SCORES_2019, trials),
        ("2021.txt", SCORES_2021, lambda path: list(read_trials(path, keys=keys, subset="eval"))),
        ("protocol.txt", KEYS_2019, read_keys), ("la.txt", KEYS_LA, read_keys),
        ("df.txt", KEYS_DF, lambda path: read_keys(path, by="vocoder")),
        ("asv.txt", ASV_2019, lambda path: list(read_asv(path))),
        ("asv21.txt", ASV_2021, lambda path: list(read_asv_2021(path, tmp_path / "good.asvkeys"))),
    ]  # fmt: skip

    def one(desk, draw):
        name, text, read = draw.choice(readers)
        path = desk.put(name, retold(draw, text, (*NAMES, "eval", "progress", "1e308", "-1e308", "1e-320")))
        with desk.gathering(path):
            found = desk.ask(path, lambda: read(path))
            if isinstance(found, str):
                return
            if isinstance(found, dict):
                assert all(name and key.attack for name, key in found.items())
                return
            for trial in found:
                check_number(trial.score)
            if name.startswith("asv"):
                collect_asv(iter(found))
                return
            assert len({t.utterance for t in found}) == len(found)
            if draw.random() < 0.1:
                rates = desk.ask(path, lambda: summary(collect(iter(found))), named="")
                assert isinstance(rates, (str, Evaluation))

    inputs, read = apart(many(90, one), tmp_path)
    assert inputs >= 3_800 * TIMES and read > inputs // 20


# Labels ------------------------------------------------------------------------------------------------------------------

RTTM = "".join(f"SPEAKER CON_T_000000{i} 1 {0.06 * i:.4f} 0.041 <NA> <NA> spoof <NA> <NA>\n" for i in range(6))
DURATIONS = "".join(f"CON_T_000000{i} {i + 0.135}\n" for i in range(6))
VAD = "0.00 0.45 1\n0.45 0.5 100\n0.50 1.10 7\n1.10 1.2 101\n1.2 2 103\n"


def test_garbled_rttm_durations_and_vad(tmp_path):
    readers = [
        ("x.rttm", RTTM, partialspoof.read_rttm),
        ("reco2dur", DURATIONS, partialspoof.read_durations),
        ("x.vad", VAD, read_vad),
    ]

    def one(desk, draw):
        name, text, read = draw.choice(readers)
        path = desk.put(name, retold(draw, text, ("SPEAKER", "<NA>", "100", "121")))
        with desk.gathering(path):
            found = desk.ask(path, lambda: read(path))
            if isinstance(found, str):
                return
            if name == "x.rttm":
                for segments in found.values():
                    check_segments(segments)
            elif name == "reco2dur":
                assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.values())
            else:
                assert all(0 <= start <= end < math.inf for start, end, _ in found)

    inputs, read = apart(many(60, one), tmp_path)
    assert inputs >= 2_400 * TIMES and read > inputs // 20


def test_garbled_label_files(tmp_path):
    """Pickles inside NumPy files: nothing in them is run, and what they say is names and ones and zeros."""
    cells = {f"CON_T_000000{i}": np.array(list("1100110"[i:])) for i in range(5)}
    files = {}
    for protocol in (2, 4):
        np.save(tmp_path / "x.npy", np.zeros(1))
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(np.array(cells, dtype=object), file, protocol=protocol)
        files[f"{protocol}.npy"] = (tmp_path / "x.npy").read_bytes()
    opcodes = [
        bytes([op])
        for op in b"(.0120NIJKLMPQRUXabcdegijlopqrst}]\x80\x81\x82\x85\x86\x87\x88\x8a\x8b\x8c\x90\x93\x94\x95)\x8d\x8e\x97"
    ]

    def one(desk, draw):
        name = draw.choice(list(files))
        content = files[name]
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(128, len(content))
            content = content[:at] + draw.choice(opcodes) * draw.choice((1, 1, 3)) + content[at + draw.choice((0, 1)) :]
        path = desk.put(name, garbled(draw, content, list(files.values())) if draw.random() < 0.5 else content)
        with desk.gathering(path):
            found = desk.ask(path, lambda: read_label_file(path))
            if not isinstance(found, str):
                for utterance, labels in found.items():
                    made = desk.ask(path, lambda u=utterance, x=labels: label_cells(x, path=path, utterance=u))
                    assert isinstance(made, str) or set(made) <= {"0", "1"}

    inputs, _ = apart(many(40, one), tmp_path)
    assert inputs >= 1_800 * TIMES


# Protocols of every layout -----------------------------------------------------------------------------------------------

TRIALS = [(f"{part}_{1_000_000 + i}", part) for part in "TDE" for i in range(3)]


def la(root):
    """The protocols of ASVspoof 2019, and one recording behind each name."""
    for split, ending in {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}.items():
        part = split[0].upper()
        rows = [f"LA_00{i} LA_{part}_100000{i} - {'-' if i else 'A01'} {'bonafide' if i else 'spoof'}" for i in range(3)]
        put(root / f"LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{ending}.txt", "\n".join(rows) + "\n")
        for i in range(3):
            speech(root / f"LA/ASVspoof2019_LA_{split}/flac/LA_{part}_100000{i}.flac", i)
    return {"main": root}, [root / "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt"]


def df(root):
    """The keys of ASVspoof 2021 DF."""
    rows = [
        f"LA_00{i} DF_E_200{i} nocodec asvspoof {'A14 spoof' if i else '- bonafide'} notrim eval traditional - - - -"
        for i in range(4)
    ]
    put(root / "keys/DF/CM/trial_metadata.txt", "\n".join(rows) + "\n")
    for i in range(4):
        speech(root / f"ASVspoof2021_DF_eval/flac/DF_E_200{i}.flac", i)
    return {"main": root}, [root / "keys/DF/CM/trial_metadata.txt"]


def wild(root):
    """meta.csv of In-the-Wild."""
    put(root / "meta.csv", 'file,speaker,label\n0.wav,Alec,spoof\n1.wav,"King, M",bona-fide\n2.wav,Émile,spoof\n')
    for i in range(3):
        speech(root / f"{i}.wav", i)
    return {"main": root}, [root / "meta.csv"]


def voice(root):
    """validated.tsv of Common Voice."""
    put(root / "validated.tsv", 'client_id\tpath\tsentence\naa\tc_0.wav\tdit "oui\nbb\tc_1.wav\tÇa\naa\tc_2.wav\tx\n')
    for i in range(3):
        speech(root / f"clips/c_{i}.wav", i)
    return {"main": root}, [root / "validated.tsv"]


def pairs(root):
    """A table of pairs of one's own."""
    put(
        root / "pairs.csv",
        "bonafide,spoof,speaker,vocoder,split\nr/a.wav,v/a.wav,s1,hifigan,eval\nr/b.wav,v/b.wav,s2,,dev\n",
    )
    for name in ("r/a", "r/b", "v/a", "v/b"):
        speech(root / f"{name}.wav", len(name))
    return {"main": root}, [root / "pairs.csv"]


def voc(root):
    """The protocol of voc.v4 and its list of the dev part, beside ASVspoof 2019."""
    bonafide, _ = la(root / "asv")
    rows = [f"LA_0079 {v}_LA_T_100000{i} - {v} spoof" for v in ("hifigan", "hn-sinc-nsf") for i in range(3)]
    put(root / "voc.v4/protocol.txt", "\n".join(rows) + "\n")
    put(root / "voc.v4/scp/dev.lst", "hifigan_LA_T_1000001\n")
    for row in rows:
        speech(root / f"voc.v4/wav/{row.split()[1]}.wav", 0)
    return {"main": root, "bonafide": bonafide["main"]}, [root / "voc.v4/protocol.txt", root / "voc.v4/scp/dev.lst"]


def partial(root):
    """The protocols of PartialSpoof, with an RTTM and durations."""
    for split in ("train", "dev", "eval"):
        names = [f"CON_{split[0].upper()}_000000{i}" for i in range(2)]
        rows = "".join(f"LA_0079 {name} - CON spoof\n" for name in names) + f"LA_0098 LA_{split}_1 - - bonafide\n"
        put(root / f"protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.{split}.trl.txt", rows)
        spans = "".join(f"SPEAKER {name} 1 0.01 0.015 <NA> <NA> spoof <NA> <NA>\n" for name in names)
        put(root / f"{split}/con_data/rttm_2cls_0sil_spoof", spans)
        put(root / f"{split}/con_data/reco2dur", "".join(f"{name} 0.03\n" for name in names))
        for name in (*names, f"LA_{split}_1"):
            speech(root / f"{split}/con_wav/{name}.wav", 0)
    con = root / "train/con_data"
    return {"main": root}, [
        root / "protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.train.trl.txt",
        con / "reco2dur",
    ]


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def speech(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sounds.noise(480, seed), sounds.RATE, subtype="PCM_16")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("asvspoof2019", la), ("asvspoof2021-df", df), ("in-the-wild", wild), ("common-voice", voice), ("folder", pairs),
        ("vocv4", voc), ("partialspoof", partial),
    ],
)  # fmt: skip
def test_garbled_protocols(tmp_path, name, make):
    roots, protocols = make(tmp_path / "set")
    layout = replace(LAYOUTS[name], expected={})
    good = {path: path.read_text(encoding="utf-8") for path in protocols}
    base = tmp_path.resolve()

    def one(desk, draw):
        protocol = draw.choice(protocols)
        protocol.write_bytes(desk.put(protocol.name, retold(draw, good[protocol])).read_bytes())
        with desk.gathering(protocol):
            found = desk.ask(protocol, lambda: list(layout.scan(roots)), named=str(tmp_path))
            for entry in [] if isinstance(found, str) else found:
                assert isinstance(entry, (Entry, Problem))
                if isinstance(entry, Problem):
                    assert entry.where.startswith(str(tmp_path)) and len(entry.message) < 1_000
            if draw.random() < 0.04:
                report = desk.ask(protocol, lambda: index(layout, roots, tmp_path / "out", on_error="skip"), named="")
                if not isinstance(report, str):
                    for u in stream(report.manifest, roots):
                        assert u.path.resolve().is_relative_to(base) and Path(u.path).is_file()
        protocol.write_text(good[protocol], encoding="utf-8")

    inputs, read = apart(many(8, one), tmp_path)
    assert inputs >= 240 * TIMES and read > inputs // 10
