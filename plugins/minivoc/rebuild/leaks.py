"""Print the leak check: equal error rate in % of every global cue per vocoder (50: no information; below 25: a leak).

    python -m rebuild.leaks [NAME=DIR] [--split eval]

Without NAME=DIR: the embedded minivoc. The cues are those of `xaibench_minivoc.leaks`. Exit status 1 if a cue leaks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xaibench_minivoc.datasets import AUDIO
from xaibench_minivoc.leaks import leak_table

from xaibench.manifest import bundled, read_manifest

THRESHOLD = 25.0  # %


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="NAME=DIR", default=f"minivoc={AUDIO}")
    parser.add_argument("--split", choices=("train", "dev", "eval"), default="eval")
    options = parser.parse_args()
    name, _, folder = options.folder.partition("=")
    corpus = read_manifest(bundled(name), Path(folder))
    chosen = [u for u in corpus.utterances if u.split == options.split]
    table = leak_table(chosen, sample_rate=corpus.sample_rate)
    vocoders = list(next(iter(table.values())))
    print(f"{sum(u.bonafide for u in chosen)} bona fide utterances of {name}, {options.split}")
    print(f"{'cue':10s}", *(f"{v:>10s}" for v in vocoders))
    for cue, rates in table.items():
        print(f"{cue:10s}", *(f"{100 * rates[v]:10.1f}" for v in vocoders))
    sys.exit(any(100 * rate <= THRESHOLD for rates in table.values() for rate in rates.values()))


if __name__ == "__main__":
    main()
