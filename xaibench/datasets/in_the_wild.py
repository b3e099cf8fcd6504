"""In-the-Wild: speech of politicians and celebrities from public recordings, genuine and fake; for evaluation only.

Layout (`--root` is the folder `release_in_the_wild` or the one that holds it):

    release_in_the_wild/meta.csv      file,speaker,label     ("0.wav,Alec Guinness,spoof"; labels "spoof" and "bona-fide")
    release_in_the_wild/0.wav ...

Which tools made the fakes is not published, so every spoofed file has the attack "unknown". The set is not paired.

Reference: N. Müller et al., "Does audio deepfake detection generalize?", Interspeech 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, cells, lines, locate, relative
from xaibench.errors import ManifestError
from xaibench.reading import shown

COLUMNS = ("file", "speaker", "label")
LABELS = {"bona-fide": "bonafide", "spoof": "unknown"}


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Every row of meta.csv, in its order."""
    root = roots[MAIN]
    table = locate(root, ("meta.csv", "release_in_the_wild/meta.csv"), what="meta.csv")
    folder = relative(table.parent, root)
    header: list[str] | None = None
    for where, line in lines(table):
        values = cells(where, line)
        if header is None:
            header = values if isinstance(values, list) else []
            missing = [c for c in COLUMNS if header.count(c) != 1]
            if missing:
                raise ManifestError(
                    f"{where}: the columns {', '.join(missing)} are missing, or there twice; expected {','.join(COLUMNS)}, "
                    f"got {shown(line)}"
                )
            continue
        if isinstance(values, Problem):
            yield values
            continue
        row = dict(zip(header, values, strict=False))
        if len(values) != len(header):
            yield Problem(where, f"{len(values)} fields, expected {len(header)} ({shown(','.join(header))}): {shown(line)}")
        elif row["label"] not in LABELS:
            yield Problem(where, f"label {shown(row['label'])}, expected bona-fide or spoof")
        else:
            yield Entry(
                source=PurePosixPath(row["file"]).stem,
                speaker=row["speaker"],
                split="eval",
                attack=LABELS[row["label"]],
                path=str(PurePosixPath(folder) / row["file"]),
                where=where,
            )


layout = Layout(
    name="in-the-wild",
    title="In-the-Wild: genuine and fake speech of 58 public figures",
    scan=scan,
    sample_rate=0,
    valid_band=(0.0, 8_000.0),
    licence="as stated on the data set's page",
    citation="N. Müller et al., Interspeech 2022",
    source="https://deepfake-total.com/in_the_wild",
    expected={"eval": 31_779},
    paired=False,
)
