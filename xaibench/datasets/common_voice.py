"""Common Voice: read speech of volunteers in many languages; bona fide only, a source for `xaibench data make-pairs`.

Layout of one language's archive (`--root` is the folder of the language, which holds `validated.tsv`):

    LANGUAGE/validated.tsv            tab-separated; its columns `client_id` and `path` are used
    LANGUAGE/clips/common_voice_en_1.mp3

Only validated clips are taken. Speaker is `client_id`. The splits that come with the set are made for speech recognition and
leave most clips out, so speakers are dealt to train, dev and eval by a hash of their name (80, 10, 10 of a hundred).
MP3 is lossy: a truth mask lives near the noise floor, so compare such speech only with what was made from it.

Reference: R. Ardila et al., "Common Voice: a massively-multilingual speech corpus", LREC 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, lines, locate, split_of
from xaibench.errors import ManifestError
from xaibench.reading import shown

COLUMNS = ("client_id", "path")


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Every row of validated.tsv, in its order."""
    table = locate(roots[MAIN], ("validated.tsv",), what="validated.tsv (of one language)")
    header: list[str] | None = None
    for where, line in lines(table):
        values = line.split("\t")  # no quoting: sentences hold single quotation marks
        if header is None:
            header = values
            missing = [c for c in COLUMNS if header.count(c) != 1]
            if missing:
                raise ManifestError(
                    f"{where}: the columns {', '.join(missing)} are missing, or there twice; is it tab-separated?"
                )
            continue
        row = dict(zip(header, values, strict=False))
        absent = [c for c in COLUMNS if not row.get(c)]
        if absent:
            yield Problem(where, f"the column {', '.join(absent)} is missing or empty: {shown(line)}")
            continue
        clip = row["path"] if "." in row["path"] else f"{row['path']}.mp3"  # early versions left the ending out
        yield Entry(
            source=PurePosixPath(clip).stem,
            speaker=row["client_id"],
            split=split_of(row["client_id"]),
            attack="bonafide",
            path=f"clips/{clip}",
            where=where,
        )


layout = Layout(
    name="common-voice",
    title="Common Voice, one language: validated clips, bona fide only",
    scan=scan,
    sample_rate=0,
    valid_band=(0.0, 24_000.0),
    licence="CC0-1.0",
    citation="R. Ardila et al., LREC 2020",
    source="https://commonvoice.mozilla.org/datasets",
    paired=False,
)
