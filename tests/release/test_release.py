"""What the release checks look at; the checks themselves take minutes and gigabytes: `make wheels`, `make oldest`."""

from __future__ import annotations

import runpy
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

HERE = Path(__file__).parent
WHEELS = runpy.run_path(str(HERE / "wheels.py"))
SBOM = runpy.run_path(str(HERE / "sbom.py"))
OLDEST = runpy.run_path(str(HERE / "oldest.py"))


def test_the_oldest_version_is_the_highest_of_all_lower_bounds():
    asked = map(Requirement, ["a>=1.2,<2", "a>=1.10; extra == 'x'", "b==3", "c", "ruff>=1", "xaibench>=0.1"])
    assert OLDEST["oldest"](asked) == {"a": Version("1.10"), "b": Version("3")}


def test_every_dependency_of_the_first_party_has_a_lower_bound():
    asked = list(OLDEST["requirements"]())
    bounded = OLDEST["oldest"](iter(asked))
    free = {r.name for r in asked} - set(bounded) - OLDEST["TOOLS"] - {"setuptools"}
    assert {name for name in free if not name.startswith("xaibench")} == set()
    assert {"torch", "captum", "shap", "zennit", "grad-cam"} <= set(bounded)


def wheel(folder: Path, **files: str) -> Path:
    path = folder / "a-1-py3-none-any.whl"
    usual = {
        "a/__init__.py": '"""A."""',
        "a-1.dist-info/METADATA": "Metadata-Version: 2.4\nName: a\n\nWhat it is.",
        "a-1.dist-info/licenses/LICENSE": "MIT",
        "a-1.dist-info/entry_points.txt": "[xaibench.api]\n1 = a\n[xaibench.metrics]\nm = a:m",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**usual, **files}.items():
            if text is not None:
                archive.writestr(name, text)
    return path


def test_a_wheel_as_it_should_be_has_no_fault(tmp_path):
    assert list(WHEELS["looked_at"](wheel(tmp_path))) == []


@pytest.mark.parametrize(
    ("files", "fault"),
    [({"a/tests/test_a.py": ""}, "holds a/tests/test_a.py"), ({"a/__pycache__/x.pyc": ""}, "holds a/__pycache__/x.pyc"),
     ({"a/where.json": str(HERE.parents[1] / "x")}, "a/where.json names a folder of this machine"),
     ({"a-1.dist-info/METADATA": "Name: a\n\n"}, "has no description"),
     ({"a-1.dist-info/licenses/LICENSE": None}, "has no licence file"),
     ({"a-1.dist-info/entry_points.txt": "[xaibench.metrics]\nm = a:m"}, "declares no version of their contract"),
     ({"xaibench/protocols.py": ""}, "has no py.typed")],
)  # fmt: skip
def test_what_no_wheel_may_be_is_named(tmp_path, files, fault):
    (found,) = WHEELS["looked_at"](wheel(tmp_path, **files))
    assert fault in found


def test_what_is_installed_for_us_is_kept_and_what_the_tests_need_is_not():
    found = SBOM["edges"](["xaibench", "xaibench-captum"])
    assert {"torch", "captum", "numpy", "typing-extensions"} <= set(found) and "pytest" not in found
    assert found["xaibench-captum"] >= {"xaibench", "captum"}, "a plugin needs the core"
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        SBOM["edges"](["no_such.package"])


def test_the_bill_of_materials_is_whole_and_names_no_machine():
    def part(name: str, *urls: str) -> dict[str, object]:
        comments = [{"url": url, "comment": "PackageSource: Local"} for url in urls if url.endswith("/")]
        return {"bom-ref": name, "name": name, "externalReferences": [{"url": u} for u in urls if u[-1] != "/"] + comments}

    parts = [part("b", "https://b.org", "https://index.local/"), part("A_x", "file:///home/me"), part("pytest")]
    found = SBOM["kept"]({"components": parts, "dependencies": []}, {"xaibench": {"a-x"}, "a-x": {"b"}, "b": set()})
    assert [p["bom-ref"] for p in found["components"]] == ["A_x", "b"]
    assert [r["url"] for p in found["components"] for r in p["externalReferences"]] == ["https://b.org"]
    assert found["dependencies"] == [
        {"ref": "A_x", "dependsOn": ["b"]}, {"ref": "b", "dependsOn": []},
        {"ref": "root-component", "dependsOn": ["A_x"]},
    ]  # fmt: skip
