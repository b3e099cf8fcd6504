"""Mutation testing: is every small mistake in the arithmetic found by a test?

    make mutation                                                     all files, hours; resumes where it stopped
    python tests/mutation/run.py xaibench/truth.py                    one file, minutes
    python tests/mutation/run.py --sample 300 --seed 1                of all files, a few drawn at random
    python tests/mutation/run.py --again                              those that survived, and those of changed lines

One process imports and collects the tests once, and notes which tests run which lines. For every mutant it forks; the child
puts the mutant's code into the functions that everybody has imported already (no file is written), and runs the tests of
the changed lines, those that found neighbours first, until one fails. Results are appended to `build/mutation.jsonl`:
`killed` (by which test), `timeout` (it never ends), `survived`, or `silent` (no test runs the line).

Tests in other processes, and what was computed while modules were imported, see the original: a mutant may survive that a
run of its own would have killed, never the other way round. hypothesis draws the same examples every time.
"""

from __future__ import annotations

import argparse
import ast
import gc
import json
import mmap
import os
import random
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mutants import Mutant

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, OTHERS = ROOT / "build" / "mutation.jsonl", ROOT / "build" / "mutation-others.jsonl"
LINES = ROOT / "build" / "mutation-lines.json"

#: What decides every number of a board, and the tests that answer for it.
FILES = ("metrics/*.py", "truth.py", "project.py", "top.py", "grid.py")
TESTS = (
    "tests/metrics", "tests/differential", "tests/test_truth.py", "tests/test_project.py", "tests/test_grid.py",
    "tests/test_top.py", "tests/test_again.py",
)  # fmt: skip
#: A test may take this many times as long as it did, and some seconds, before its mutant counts as one that never ends.
PATIENCE, GRACE = 10, 20
#: Bytes that a mutant may ask for beyond what the imports hold.
MEMORY = 2 << 30


def files() -> list[Path]:
    """The files that are mutated."""
    return sorted(path for pattern in FILES for path in (ROOT / "xaibench").glob(pattern) if path.stat().st_size > 200)


def done(path: Path = RESULTS) -> dict[tuple[str, str, str], dict]:
    """Results so far, by what was changed: file, line before, line after (numbers move with every edit)."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(r["file"], r["before"], r["after"], r["occurrence"]): r for r in map(json.loads, lines)}


class Mutation:
    """A pytest plugin that runs mutants in place of tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.child = False
        self.killers: dict[str, Counter[str]] = defaultdict(Counter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        import hypothesis

        # The first failing example is enough, the same ones every time, and nothing is remembered between mutants.
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutation", deadline=None, derandomize=True, database=None, phases=phases,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo) -> None:
        expected = (pytest.skip.Exception, pytest.xfail.Exception)
        if self.child and call.excinfo is not None and not isinstance(call.excinfo.value, expected):
            os._exit(1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("a test module cannot be imported")
        RESULTS.parent.mkdir(exist_ok=True)
        self.items = {item.nodeid: item for item in session.items}
        self.contexts, self.seconds = self._baseline()
        self.items = {name: item for name, item in self.items.items() if name in self.seconds}
        say(f"{len(self.items)} tests, {sum(self.seconds.values()):.0f} s")
        mutants = self._chosen()
        results = OTHERS if self.options.others else RESULTS
        gc.collect()
        gc.freeze()  # or every child copies the memory of all modules when it collects
        with results.open("a", encoding="utf-8") as file:
            for i, (occurrence, mutant) in enumerate(mutants, start=1):
                row = {"file": mutant.file, "line": mutant.line, "before": mutant.before, "after": mutant.after}
                row |= {"occurrence": occurrence, **self._tried(mutant)}
                file.write(json.dumps(row) + "\n")
                file.flush()
                if row["outcome"] in ("survived", "silent") or i % 50 == 0:
                    say(
                        f"{i}/{len(mutants)} {row['outcome']} {mutant.file}:{mutant.line}: {mutant.before} -> {mutant.after}"
                    )
        return True

    def _chosen(self) -> list[tuple[int, Mutant]]:
        from mutants import mutants_of, why_of

        found, known = [], done(OTHERS if self.options.others else RESULTS)
        for path in self.options.files:
            seen: Counter[tuple[str, str]] = Counter()
            for mutant in mutants_of(path, ROOT, others=self.options.others):
                seen[mutant.before, mutant.after] += 1
                found.append((seen[mutant.before, mutant.after], mutant))
        random.Random(self.options.seed).shuffle(found)  # so that the first thousand tell of all
        found = found[: self.options.sample or None]
        say(f"{len(found)} mutants of {len(self.options.files)} files, {len(self.items)} tests")
        settled = {
            key
            for key, row in known.items()
            if not self.options.again or row["outcome"] in ("killed", "timeout") or why_of(row) is not None
        }
        left = [(n, m) for n, m in found if (m.file, m.before, m.after, n) not in settled]
        return sorted(left, key=lambda pair: (pair[1].file, pair[1].before, pair[1].after, pair[0]) not in known)

    # ---- which tests run which lines ---------------------------------------------------------------------------------

    def _baseline(self) -> tuple[dict[str, dict[int, set[str]]], dict[str, float]]:
        """By file and line the tests that run it, and how long each takes; of the originals, in a child of their own."""
        if not (self.options.same and LINES.exists()):
            child = os.fork()
            if child == 0:
                lines, seconds, failed = self._watched()
                for name in failed:  # it cannot tell a mutant
                    say(f"fails without a mutant, left out: {name}")
                    del seconds[name]
                if len(failed) <= 5:
                    LINES.write_text(json.dumps([lines, seconds]), encoding="utf-8")
                os._exit(len(failed) > 5)
            if os.waitpid(child, 0)[1]:
                raise pytest.UsageError("more than five tests fail without a mutant")
        lines, seconds = json.loads(LINES.read_text(encoding="utf-8"))
        return {file: {int(n): set(tests) for n, tests in found.items()} for file, found in lines.items()}, seconds

    def _watched(self) -> tuple[dict[str, dict[int, list[str]]], dict[str, float], list[str]]:
        import coverage
        from mutants import original_of
        from patch import put

        for path in self.options.files:  # a module put in its own place must change nothing
            put(original_of(path, ROOT))
        watch = coverage.Coverage(data_file=None, include=[str(p) for p in self.options.files], config_file=False)
        failed: list[str] = []

        class Phases:
            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
                watch.switch_context(item.nodeid)
                try:
                    return (yield)
                finally:  # what a fixture runs, it runs for every test of its file
                    watch.switch_context(item.nodeid.split("::")[0])

            @pytest.hookimpl
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    failed.append(report.nodeid)

        items = list(self.items.values())
        items[0].config.pluginmanager.register(Phases())
        seconds = {}
        watch.start()
        for item, following in zip(items, [*items[1:], None], strict=True):
            forget()
            watch.switch_context(item.nodeid.split("::")[0])
            started = time.perf_counter()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.perf_counter() - started
        watch.stop()
        data, lines = watch.get_data(), {}
        of_file = defaultdict(list)
        for name in self.items:
            of_file[name.split("::")[0]].append(name)
        for path in self.options.files:
            found = data.contexts_by_lineno(str(path))
            lines[str(path.relative_to(ROOT))] = {
                n: sorted({test for c in contexts if c for test in of_file.get(c, [c])}) for n, contexts in found.items()
            }
        return lines, seconds, failed

    # ---- one mutant --------------------------------------------------------------------------------------------------

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that run the changed lines or their neighbourhood's first line, the likeliest to fail first."""
        by_line = self.contexts[mutant.file]
        names = set().union(*(by_line.get(n, ()) for n in lines_of(mutant))) & set(self.items)
        if not names or not self._in_a_function(mutant):  # a constant may be read by other modules only
            names |= {name for name in self.items if f"test_{Path(mutant.file).stem}.py" in name}
        kills = self.killers[f"{mutant.file}:{mutant.line // 5}"] + self.killers[mutant.file]
        ordered = sorted(names, key=lambda name: (-kills[name], self.seconds[name]))
        until = self.options.seconds or float("inf")
        spent = list(accumulate(self.seconds[name] for name in ordered))
        return [name for name, at in zip(ordered, spent, strict=True) if at <= until or name == ordered[0]]

    @staticmethod
    def _in_a_function(mutant: Mutant) -> bool:
        tree = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        return any(n.lineno <= mutant.line <= n.end_lineno for n in functions)

    def _tried(self, mutant: Mutant) -> dict:
        names = self._tests_of(mutant)
        if not names:
            return {"outcome": "silent"}
        started = time.perf_counter()
        at = mmap.mmap(-1, 4)  # shared: which test the child is at
        child = os.fork()
        if child == 0:
            self._run(mutant, names, at)
        code = waited(child, GRACE + PATIENCE * sum(self.seconds[name] for name in names))
        if code == 0:
            return {"outcome": "survived", "tests": len(names), "seconds": round(time.perf_counter() - started, 2)}
        running = names[int.from_bytes(at[:4], "little")]
        self.killers[mutant.file][running] += 1
        self.killers[f"{mutant.file}:{mutant.line // 5}"][running] += 5
        outcome = "timeout" if code is None else "killed"
        return {"outcome": outcome, "by": running, "seconds": round(time.perf_counter() - started, 2)}

    def _run(self, mutant: Mutant, names: list[str], at: mmap.mmap) -> None:
        self.child = True
        try:
            from patch import put

            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1), os.dup2(sink, 2)
            gc.disable()
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))  # a mutant may ask for all there is
            put(mutant)
            forget()
            items = [self.items[name] for name in names]
            for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
                at[:4] = number.to_bytes(4, "little")
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException:  # noqa: BLE001  a mutant that cannot even be put in place, or that ends the process
            os._exit(1)
        os._exit(0)


def waited(child: int, limit: float) -> int | None:
    """The exit code of a child, None past its time."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def lines_of(mutant: Mutant) -> set[int]:
    """The lines whose tests can tell: of the smallest statement around the change, or of the head of a compound one; of the
    body of a function whose default it is; of every function that names the constant it binds; of all, failing that.
    """
    tree = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= mutant.line <= n.end_lineno]
    node = max(around, key=lambda n: n.lineno)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    if node in tree.body and isinstance(node, ast.Assign | ast.AnnAssign):
        bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        named = [f for f in functions if bound & {n.id for n in ast.walk(f) if isinstance(n, ast.Name)}]
        return {line for f in named or functions for line in range(f.body[0].lineno, f.end_lineno + 1)}
    if isinstance(node, ast.FunctionDef):
        return set(range(node.lineno + 1, node.end_lineno + 1))
    if node not in tree.body and not any(f.lineno <= node.lineno <= f.end_lineno for f in functions):  # a field
        return {line for f in functions for line in range(f.body[0].lineno, f.end_lineno + 1)}
    body = getattr(node, "body", None)
    return set(range(node.lineno, (body[0].lineno if isinstance(body, list) else node.end_lineno + 1)))


def forget() -> None:
    """Empty every cache of ours, so that each test runs what it needs."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "xaibench":
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


def say(text: str) -> None:
    sys.__stderr__.write(f"{text}\n")
    sys.__stderr__.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of what decides a board's numbers.")
    parser.add_argument("files", nargs="*", type=lambda text: (ROOT / text).resolve())
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0, help="of tests for each mutant, the quickest first; 0 = all")
    parser.add_argument(
        "--same", action="store_true", help="tests and files are those of the last call: do not run them first"
    )
    parser.add_argument("--others", action="store_true", help="mistakes of other kinds than mutmut's")
    parser.add_argument("--again", action="store_true", help="try survivors without a reason again, first of all")
    options = parser.parse_args()
    options.files = options.files or files()
    os.chdir(ROOT)
    sys.path.insert(0, str(HERE))
    tests = [t for t in TESTS if (ROOT / t).exists()]
    arguments = [*tests, *(str(p.relative_to(ROOT)) for p in options.files), "-q", "--tb=no", "--assert=plain"]
    return pytest.main(
        [*arguments, "-p", "no:xdist", "-p", "no:benchmark", "-p", "no:timeout", "-m", "not heavy", "-s"],
        [Mutation(options)],
    )


if __name__ == "__main__":
    raise SystemExit(main())
