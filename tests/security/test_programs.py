"""Programs that xaibench starts, and decoders of others: what a repository or a recording names is not run or opened."""

from __future__ import annotations

import ast
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xaibench import recordings
from xaibench.errors import AudioError
from xaibench.harness import environment
from xaibench.recordings import read_any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for top in ("xaibench", "plugins") for p in (ROOT / top).rglob("*.py") if "tests" not in p.parts)


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every call of the sources: where, what, and its name with the module before it."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node, ast.unparse(node.func)))
    return found


def test_json_and_toml_of_a_file_go_through_one_door():
    """`json.loads(path.read_text())` and its kin have no bound and know no depth."""
    for where, call, name in calls():
        if name in {"json.loads", "json.load", "tomllib.loads", "tomllib.load"}:
            asked = ast.unparse(call)
            assert "read_text" not in asked and "read_bytes" not in asked and "open(" not in asked, f"{where}: {asked}"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_starts_nothing_that_a_repository_names(tmp_path, monkeypatch):
    """The checkout that xaibench lies in may have a monitor or hooks in its configuration; `run` asks it for its commit."""
    owned, home = tmp_path / "owned", tmp_path / "home"
    (home / "xaibench").mkdir(parents=True)
    (home / "xaibench/__init__.py").write_text("")

    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *identity, *words], cwd=home, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {owned}\n")
    trap.chmod(0o755)
    git("config", "core.fsmonitor", str(trap))
    git("config", "core.pager", str(trap))
    git("config", "alias.status", f"!{trap}")
    (home / "xaibench/__init__.py").write_text("# changed\n")
    monkeypatch.setattr("xaibench.harness.environment.xaibench.__file__", str(home / "xaibench/__init__.py"))
    commit, dirty = environment._git()
    assert len(commit) == 40 and dirty is True and not owned.exists()
    subprocess.run(["git", "status"], cwd=home, capture_output=True, check=False)
    assert owned.exists()  # it would have


@pytest.fixture
def secret(tmp_path):
    soundfile.write(tmp_path / "secret.wav", np.full(16_000, 0.25), 16_000)
    return tmp_path / "secret.wav"


def playlists(secret: Path) -> dict[str, str]:
    there, page = f"file:{secret}", "http://127.0.0.1:9/x.wav"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    return {
        "hls": hls.format(secret),
        "hls of a page": hls.format(page),
        "m3u": f"{secret}\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat of a page": f"ffconcat version 1.0\nfile '{page}'\n",
        "sdp": sdp,
        "asx": f'<asx version="3.0"><entry><ref href="{there}"/></entry></asx>',
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="0" '
        f'bandwidth="1"><BaseURL>{there}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "rtsp": "[reference]\nRef1=http://127.0.0.1:9/x.asf\n",
        "ffmetadata": ";FFMETADATA1\ntitle=x\n",
        "lavfi": "sine=d=1",
        "subfile": f"subfile,,start,0,end,9,,:{secret}",
    }


@pytest.mark.parametrize("suffix", [".wav", ".m3u8", ".mp4", ".ffconcat"])
def test_a_playlist_opens_nothing(secret, tmp_path, suffix):
    pytest.importorskip("av")
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in playlists(secret).items():
        path = folder / f"x{suffix}"
        path.write_text(content)
        with pytest.raises(AudioError, match="not readable as a recording"):
            read_any(path, sample_rate=16_000)
        assert name


NEST = {b"moov", b"trak", b"mdia", b"minf", b"dinf"}


def with_references(content: bytes, entry: bytes) -> bytes:
    """A QuickTime file whose data references are this one; the sizes of what holds them follow."""
    made, at = b"", 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        inner = content[at + 8 : at + size]
        if kind in NEST:
            inner = with_references(inner, entry)
        elif kind == b"dref":
            inner = struct.pack(">II", 0, 1) + entry
        made += struct.pack(">I", 8 + len(inner)) + kind + inner
        at += size
    return made


def alias(path: Path) -> bytes:
    """A data reference to another file, as FFmpeg reads it (mov.c, mov_read_dref): type 2 is its path."""
    name = str(path).encode()
    fixed = struct.pack(">IHH", 0, 0, 2) + struct.pack(">H", 0) + bytes([1]) + b"v".ljust(27, b"\0") + bytes(12)
    fixed += bytes([len(path.name)]) + path.name.encode().ljust(63, b"\0") + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    parts = b"".join(struct.pack(">HH", k, len(v)) + v + b"\0" * (len(v) % 2) for k, v in ((2, name), (18, name)))
    inner = struct.pack(">I", 0) + fixed + parts + struct.pack(">hH", -1, 0)
    return struct.pack(">I", 8 + len(inner)) + b"alis" + inner


def test_a_film_that_refers_to_another_file_does_not_open_it(secret, tmp_path):
    """QuickTime may keep its samples in another file (an alias); FFmpeg follows it only if told to."""
    av = pytest.importorskip("av")
    path = tmp_path / "x.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    path.write_bytes(with_references(path.read_bytes(), alias(secret)))
    with pytest.raises(AudioError, match="its audio track is empty"):
        read_any(path, sample_rate=16_000)
    told = {"enable_drefs": "1", "use_absolute_path": "1"}
    with path.open("rb") as file, av.open(file, "r", options=told) as container:
        assert next(iter(container.decode(audio=0))).to_ndarray().max() > 8_000  # it would have
    whitelist = {"protocol_whitelist": "none"}  # as ours: even then
    with path.open("rb") as file, av.open(file, "r", options=told | whitelist) as container:
        assert not list(container.decode(audio=0))


def test_ffmpeg_gets_a_file_and_no_options(secret, tmp_path, monkeypatch):
    """A name that begins as an option or a protocol is a file all the same; what ffmpeg may open and write is bounded."""
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$SAID"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.chdir(tmp_path)
    for name in ("-i", "http:x.wav", "concat:secret.wav|secret.wav", "--help", "@x"):
        Path(name).write_bytes(b"no sound at all")
        with Path(name).open("rb") as file, pytest.raises(recordings._Refused, match="no sound"):
            recordings._by_ffmpeg(Path(name), file, recordings.Excerpt())
        said = (tmp_path / "said").read_text().splitlines()
        assert said[said.index("-i") + 1] == f"file:{tmp_path / name}"
        assert said[said.index("-protocol_whitelist") + 1] == "file,pipe"
        assert not {"hls", "concat", "sdp", "dash", "lavfi"} & set(said[said.index("-format_whitelist") + 1].split(","))
        assert int(said[said.index("-fs") + 1]) < 1 << 31
