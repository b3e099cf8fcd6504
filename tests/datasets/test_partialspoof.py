"""PartialSpoof: a generated tree to the letter, labels that do not fit, and pickles that want to run something."""

import io
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import trees

from xaibench.datasets.index import index
from xaibench.datasets.layout import Entry, Problem
from xaibench.datasets.partialspoof import SPLITS, cell_segments, layout, read_rttm, scan
from xaibench.datasets.seglab import label_cells, read_label_file
from xaibench.errors import ManifestError

PROTOCOLS = "protocols/PartialSpoof_LA_cm_protocols"
CELLS = {"CON_T_0000000": "1110011", "CON_T_0000001": "0111110"}  # 0.02 s each


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def labels(path, content, *, version=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.array(content, dtype=object), version=version, allow_pickle=True)


def arrays(cells):
    return {name: np.array(list(text)) for name, text in cells.items()}


@pytest.fixture
def tree(tmp_path):
    """The folder `database`, as the archives unpack, without audio: a layout reads none."""
    base = tmp_path / "database"
    for split in SPLITS:
        letter = split[0].upper()
        put(
            base / PROTOCOLS / f"PartialSpoof.LA.cm.{split}.trl.txt",
            f"LA_0079 CON_{letter}_0000000 - CON spoof\nLA_0079 CON_{letter}_0000001 - CON spoof\n"
            f"LA_0098 LA_{letter}_9497115 - - bonafide\n",
        )
        cells = {name.replace("_T_", f"_{letter}_"): text for name, text in CELLS.items()}
        labels(base / f"segment_labels/{split}_seglab_0.02.npy", arrays(cells))
        labels(base / f"segment_labels/{split}_seglab_0.64.npy", arrays(dict.fromkeys(cells, "0")))
        put(base / f"{split}/con_data/reco2dur", "".join(f"{name} 0.135\n" for name in cells))
    return base


def rttm(base, split="train"):
    letter = split[0].upper()
    put(
        base / f"{split}/con_data/rttm_2cls_0sil_spoof",
        f"SPEAKER CON_{letter}_0000000 1 0.0613 0.041 <NA> <NA> spoof <NA> <NA>\n"
        f"SPEAKER CON_{letter}_0000001 1 0.12 0.015 <NA> <NA> spoof <NA> <NA>\n"
        f"SPEAKER CON_{letter}_0000001 1 0.0 0.02 <NA> <NA> spoof <NA> <NA>\n",
    )


def train(root):
    return [e for e in scan({"main": root}) if isinstance(e, Problem) or e.split == "train"]


def test_the_entries_of_a_tree(tree):
    found = list(layout.scan({"main": tree}))
    assert [e.split for e in found] == ["train"] * 3 + ["dev"] * 3 + ["eval"] * 3
    protocol = tree / PROTOCOLS / "PartialSpoof.LA.cm.train.trl.txt"
    assert found[:3] == [
        Entry(
            "CON_T_0000000", "LA_0079", "train", "CON", "train/con_wav/CON_T_0000000.wav", where=f"{protocol}:1",
            segments=((0.0, 0.06, "bonafide"), (0.06, 0.1, "spoof"), (0.1, 0.135, "bonafide")),
            labelled=(0.135, 0.02 + 0.01),
        ),
        Entry(
            "CON_T_0000001", "LA_0079", "train", "CON", "train/con_wav/CON_T_0000001.wav", where=f"{protocol}:2",
            segments=((0.0, 0.02, "spoof"), (0.02, 0.12, "bonafide"), (0.12, 0.135, "spoof")),
            labelled=(0.135, 0.02 + 0.01),
        ),
        Entry(
            "LA_T_9497115", "LA_0098", "train", "bonafide", "train/con_wav/LA_T_9497115.wav", where=f"{protocol}:3"
        ),
    ]  # fmt: skip
    assert not layout.paired and layout.expected["eval"] == 71_237


def test_the_root_may_be_the_folder_above(tree):
    inside, above = list(scan({"main": tree})), list(scan({"main": tree.parent}))
    assert [e.path for e in above] == [f"database/{e.path}" for e in inside]
    assert [e.segments for e in above] == [e.segments for e in inside]


def test_the_rttm_is_preferred_for_its_exact_times(tree):
    rttm(tree)
    first, second, _ = train(tree)
    assert first.segments == ((0.0613, 0.1023, "spoof"),)
    assert second.segments == ((0.0, 0.02, "spoof"), (0.12, 0.135, "spoof"))


def test_the_finest_label_file_is_taken(tree):
    labels(tree / "segment_labels/train_seglab_0.01.npy", arrays(dict.fromkeys(CELLS, "11110000111110")))
    assert train(tree)[0].segments[1] == (0.04, 0.08, "spoof")


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "kind", [np.array, list, lambda c: np.array(list(c), dtype=object), lambda c: np.array(c, dtype="S1")]
)
def test_labels_of_every_numpy_and_pickle_protocol_are_read(tmp_path, protocol, kind):
    path = tmp_path / "x.npy"
    content = np.array({"a": kind(list("110")), "b": kind(list("0"))}, dtype=object)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(content))
    path.write_bytes(stream.getvalue() + pickle.dumps(content, protocol=protocol))
    read = read_label_file(path)
    assert {k: label_cells(v, path=path, utterance=k) for k, v in read.items()} == {"a": ["1", "1", "0"], "b": ["0"]}


def test_labels_written_with_the_names_of_numpy_1_are_read(tmp_path):
    path = tmp_path / "x.npy"
    labels(path, arrays(CELLS))
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != path.read_bytes()
    # The stream's short strings carry their length: 22 characters become 21.
    path.write_bytes(old.replace(b"\x16numpy.core.multiarray", b"\x15numpy.core.multiarray"))
    assert label_cells(read_label_file(path)["CON_T_0000000"], path=path, utterance="") == list("1110011")


@pytest.mark.parametrize(
    "content", [np.array([1, 0, 1]), np.array([1, 0, 1], dtype=np.uint8), np.array([True, False, True])]
)
def test_labels_may_be_numbers(tmp_path, content):
    labels(tmp_path / "x.npy", {"a": content})
    read = read_label_file(tmp_path / "x.npy")
    assert label_cells(read["a"], path=tmp_path, utterance="a") == ["1", "0", "1"]


def test_what_is_read_is_what_numpy_reads(tmp_path):
    draw = np.random.default_rng(0)
    content = {f"CON_E_{i:07}": draw.choice(["0", "1"], draw.integers(1, 400)) for i in range(50)}
    labels(tmp_path / "x.npy", content)
    theirs = np.load(tmp_path / "x.npy", allow_pickle=True).item()
    ours = read_label_file(tmp_path / "x.npy")
    assert {k: label_cells(v, path=tmp_path, utterance=k) for k, v in ours.items()} == {
        k: v.tolist() for k, v in theirs.items()
    }


# Labels that do not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 9])
def test_labels_of_the_wrong_length_are_named(tree, count):
    labels(tree / "segment_labels/train_seglab_0.02.npy", arrays({**CELLS, "CON_T_0000001": "0" * count}))
    first, problem, third = train(tree)
    assert isinstance(first, Entry) and isinstance(third, Entry)
    assert "train.trl.txt:2" in problem.where
    for part in (
        "train_seglab_0.02.npy",
        "'CON_T_0000001'",
        f"{count} labels of 0.02 s",
        f"{count * 0.02:.2f} s",
        "0.14 s long",
    ):
        assert part in problem.message, part


@pytest.mark.parametrize("count", [6, 7])
def test_a_last_shorter_stretch_may_have_a_label_or_not(tree, count):
    labels(tree / "segment_labels/train_seglab_0.02.npy", arrays({**CELLS, "CON_T_0000001": "0" * count}))
    assert train(tree)[1].segments == ((0.0, min(count * 0.02, 0.135), "spoof"),)


def test_an_rttm_beyond_the_recording_is_named(tree):
    rttm(tree)
    put(tree / "train/con_data/reco2dur", "CON_T_0000000 0.08\nCON_T_0000001 0.135\n")
    problem = train(tree)[0]
    assert "'CON_T_0000000' is labelled to 0.1023 s, reco2dur gives it 0.08 s" in problem.message


def test_an_utterance_without_labels_is_named(tree):
    labels(tree / "segment_labels/train_seglab_0.02.npy", arrays({"CON_T_0000000": "1110011"}))
    assert "train_seglab_0.02.npy: no labels of 'CON_T_0000001'" in train(tree)[1].message
    rttm(tree)
    put(tree / "train/con_data/rttm_2cls_0sil_spoof", "SPEAKER CON_T_0000000 1 0 0.1 <NA> <NA> spoof <NA> <NA>\n")
    assert "rttm_2cls_0sil_spoof: no labels of 'CON_T_0000001'" in train(tree)[1].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array(list("1120")), "label '2', expected '1' .bona fide. or '0'"),
        (np.array([1, 0, 7]), "label '7'"),
        (np.array([]), "expected an array of '1' and '0'"),
        ("110", "has str for labels"),
        (None, "has NoneType for labels"),
        ([["1"]], "has the label"),
    ],
)
def test_unknown_labels_are_named(tree, content, message):
    labels(tree / "segment_labels/train_seglab_0.02.npy", {**arrays(CELLS), "CON_T_0000000": content})
    problem = train(tree)[0]
    assert isinstance(problem, Problem) and "'CON_T_0000000'" in problem.message
    with pytest.raises(ManifestError, match=message):
        raise ManifestError(problem.message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("LA_0079 CON_T_0000000 - CON", "4 columns, expected 5"),
        ("LA_0079 CON_T_0000000 - CON fake", "key 'fake'"),
        ("LA_0079 CON_T_0000000 - - spoof", "system '-' with key 'spoof'"),
        ("LA_0079 LA_T_1 - CON bonafide", "system 'CON' with key 'bonafide'"),
        ("LA_0079 ../CON_T_0000000 - CON spoof", "is a path"),
        ("LA_0079 LA_T_9497115 - - bonafide", "is already on .*txt:1"),
    ],
)
def test_a_line_that_is_none_is_a_problem(tree, line, message):
    put(tree / PROTOCOLS / "PartialSpoof.LA.cm.train.trl.txt", f"LA_0098 LA_T_9497115 - - bonafide\n{line}\n")
    (problem,) = [e for e in train(tree) if isinstance(e, Problem)]
    assert problem.where.endswith("train.trl.txt:2")
    with pytest.raises(ManifestError, match=message):
        raise ManifestError(problem.message)


def test_missing_protocols_and_labels_are_errors(tree, tmp_path):
    with pytest.raises(ManifestError, match="no countermeasure protocols"):
        list(scan({"main": tmp_path / "database" / "train"}))
    (tree / PROTOCOLS / "PartialSpoof.LA.cm.dev.trl.txt").unlink()
    with pytest.raises(ManifestError, match="no protocol of dev"):
        list(scan({"main": tree}))
    for path in tree.glob("segment_labels/train*"):
        path.unlink()
    with pytest.raises(ManifestError, match="no segment labels of train"):
        list(scan({"main": tree}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER a 1 0.0 0.5 <NA> <NA> spoof <NA>", "rttm:1: .*expected `SPEAKER UTT 1"),
        ("LEXEME a 1 0.0 0.5 <NA> <NA> spoof <NA> <NA>", "expected `SPEAKER"),
        ("SPEAKER a 1 0.0 0.5 <NA> <NA> A07 <NA> <NA>", "label 'A07', expected spoof or bonafide"),
        ("SPEAKER a 1 x 0.5 <NA> <NA> spoof <NA> <NA>", "start 'x' is not a number"),
        ("SPEAKER a 1 0.0 inf <NA> <NA> spoof <NA> <NA>", "duration 'inf' is not finite"),
        ("SPEAKER a 1 0.0 0.0 <NA> <NA> spoof <NA> <NA>", "duration 0.0, expected a stretch of time"),
        ("SPEAKER a 1 -1 0.5 <NA> <NA> spoof <NA> <NA>", "start -1"),
    ],
)
def test_a_bad_rttm_line_is_named(tmp_path, line, message):
    put(tmp_path / "rttm", line + "\n")
    with pytest.raises(ManifestError, match=message):
        read_rttm(tmp_path / "rttm")


@pytest.mark.parametrize("line", ["CON_T_0000000", "CON_T_0000000 long", "CON_T_0000000 0", "CON_T_0000000 nan"])
def test_a_bad_duration_is_named(tree, line):
    put(tree / "train/con_data/reco2dur", line + "\n")
    with pytest.raises(ManifestError, match="reco2dur:1: duration"):
        list(scan({"main": tree}))


def test_runs_of_cells_become_segments():
    assert cell_segments(list("0"), 0.64) == ((0.0, 0.64, "spoof"),)
    assert cell_segments(list("1001"), 0.16) == ((0.0, 0.16, "bonafide"), (0.16, 0.48, "spoof"), (0.48, 0.64, "bonafide"))
    assert cell_segments(list("10"), 0.16, end=0.16) == ((0.0, 0.16, "bonafide"),)


# Hostile label files -------------------------------------------------------------------------------------------------


class Runs:
    """What pickle makes of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def raw(path, stream):
    """A label file whose pickle is `stream`, as it is."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(head.getvalue() + stream)
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("where", ["value", "key", "array", "top"])
def test_a_pickle_that_runs_a_command_is_refused_and_nothing_runs(tree, tmp_path, protocol, where):
    mark = tmp_path / "ran"
    evil = Runs(os.system, f"touch {mark}")
    content = {
        "value": {"CON_T_0000000": evil}, "key": {"a": [{"b": evil}]},
        "array": {"a": np.array([evil, "1"], dtype=object)}, "top": evil,
    }[where]  # fmt: skip
    path = raw(tree / "segment_labels/train_seglab_0.02.npy", pickle.dumps(content, protocol=protocol))
    with pytest.raises(ManifestError) as caught:
        list(scan({"main": tree}))
    assert str(path) in str(caught.value) and not mark.exists()
    if protocol >= 2:
        assert f"{os.system.__module__}.system" in str(caught.value)
    pickle.loads(path.read_bytes()[path.read_bytes().index(b"\n") + 1 :])
    assert mark.exists(), "the pickle would have run, so the test means something"


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, print, __import__, np.load, np.fromfile, np.ndarray.tofile, subprocess.run, sys.exit, open, type],
    ids=lambda f: f.__qualname__,
)
def test_every_other_name_is_refused_and_named(tmp_path, function):
    path = raw(tmp_path / "x.npy", pickle.dumps({"a": Runs(function, "1")}, protocol=4))
    with pytest.raises(ManifestError, match=r"x\.npy: its pickle refers to .*nothing was run"):
        read_label_file(path)


def op(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
DTYPE = b"cnumpy\ndtype\n\x8c\x02U1\x89\x88\x87R"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\x80\x04",
        b".",
        op(b"]"),
        op(b"N"),
        op(b"\x8c\x01a"),
        op(b"}", b"K\x01", b"]", b"s"),  # a dictionary whose key is a number
        op(ARRAY),  # never given its state
        op(b"cnumpy\nndarray\n"),
        op(b"cnumpy\nndarray\n", b"J\xff\xff\xff\x7f", b"\x85", b"R"),  # allocate 2**31 elements
        op(RECONSTRUCT, b"}", b"b"),  # give the function a state
        op(b"cnumpy\ndtype\n\x8c\x021U\x85R"),
        op(b"cnumpy\ndtype\n)R"),
        op(b"cnumpy.core.multiarray\nscalar\n", DTYPE, b"C\x041\x00\x00\x00\x86R"),
        # objects promised, none there: NumPy's own reader would look beyond the list
        op(ARRAY, b"(K\x01", b"J\xff\xff\xff\x7f\x85", b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R", b"\x89", b"]", b"tb"),
        op(ARRAY, b"(K\x01", b"J\xff\xff\xff\x7f\x85", DTYPE, b"\x89", b"C\x041\x00\x00\x00", b"tb"),  # bytes promised
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # BYTEARRAY8 of 2**63 - 1 bytes
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # BINBYTES8
        b"\x80\x04B\xff\xff\xff\x7f.",  # BINBYTES of 2 GiB
        b"\x80\x04\x95" + b"\xff" * 8 + b".",  # a frame of 2**64 - 1 bytes
        b"\x80\x04r\xff\xff\xff\xff.",  # memo index 2**32 - 1 of an empty stack
        b"\x80\x04\x82\x01.",  # EXT1
        b"\x80\x04(cos\nsystem\no.",  # OBJ
        b"(S'true'\nios\nsystem\n.",  # INST, protocol 0
        b"\x80\x04Pid\n.",  # a persistent id
        b"\xff\xfe\xfd",
    ],
)
def test_a_malformed_pickle_is_an_error_of_ours(tmp_path, stream):
    with pytest.raises(ManifestError, match=r"x\.npy"):
        read_label_file(raw(tmp_path / "x.npy", stream))


def test_a_malformed_pickle_leaves_the_reader_as_it_was(tmp_path):
    with pytest.raises(ManifestError):
        read_label_file(raw(tmp_path / "x.npy", op(RECONSTRUCT, b"}\x8c\x04kind\x8c\x05dtypesb")))
    labels(tmp_path / "y.npy", arrays(CELLS))
    assert set(read_label_file(tmp_path / "y.npy")) == set(CELLS)


def test_files_that_are_no_label_files_are_named(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    path.write_bytes(b"not numpy")
    with pytest.raises(ManifestError, match=r"x\.npy: not a NumPy file"):
        read_label_file(path)
    np.save(path, np.zeros(3))
    with pytest.raises(ManifestError, match=r"its header is .*f8.*, expected one pickled dictionary"):
        read_label_file(path)
    labels(path, ["1", "0"])
    with pytest.raises(ManifestError, match=r"shape': \(2,\)"):
        read_label_file(path)
    with pytest.raises(ManifestError, match=r"none\.npy: no such file"):
        read_label_file(tmp_path / "none.npy")
    labels(path, arrays(CELLS))
    monkeypatch.setattr("xaibench.datasets.seglab.LARGEST", 10)
    with pytest.raises(ManifestError, match="expected a label file of at most 10; is it another kind of file"):
        read_label_file(path)


@pytest.mark.parametrize("cut", [20, 130, 200, -3])
def test_a_truncated_label_file_is_named(tmp_path, cut):
    path = tmp_path / "x.npy"
    labels(path, arrays(CELLS))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ManifestError, match=r"x\.npy"):
        read_label_file(path)


@pytest.mark.parametrize(("cells", "message"), [("0" * 30, "labelled to 0.60 s"), ("1" * 7, "bona fide throughout")])
def test_labels_that_do_not_fit_the_recording_are_found_without_reco2dur(tree, tmp_path, cells, message):
    (tree / "train/con_data/reco2dur").unlink()
    for i in range(2):
        trees.sound(tree / f"train/con_wav/CON_T_000000{i}.wav", trees.noise(f"{i}", round(0.135 * trees.RATE)))
    labels(tree / "segment_labels/train_seglab_0.02.npy", arrays({**CELLS, "CON_T_0000001": cells}))
    with pytest.raises(ManifestError, match=message):
        index(replace(layout, expected={}), {"main": tree}, tmp_path / "out")
