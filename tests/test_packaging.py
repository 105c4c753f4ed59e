"""What is built from a clone, and from the sdist: what is there, and nothing that was."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from measured import unmeasured

# No Python decides what is packed.
pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parent.parent

# What tools leave in a clone.
_LEFT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "htmlcov", "node_modules", "PKG-INFO"
)


def python(project: Path, *arguments: str) -> None:
    """Run Python in a project, and see that it ends well."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        # What is imported there is another package, and soon gone.
        env=unmeasured(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def build(project: Path, kind: str) -> Path:
    """Build an ``sdist`` or a ``wheel``, as pip would; return the file."""
    python(project, "-c", f"import setuptools.build_meta as m; m.build_{kind}('dist')")
    (built,) = (project / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def modules(directory: Path) -> set[str]:
    return {
        str(file.relative_to(directory))
        for file in (directory / "wsep_sync").rglob("*")
        if file.suffix == ".py" or file.name == "py.typed"
    }


def installed(wheel: Path) -> set[str]:
    """The files that a wheel installs."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "clone", ignore=_LEFT))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    directory = tmp_path_factory.mktemp("sdist")
    project = Path(shutil.copytree(ROOT, directory / "clone", ignore=_LEFT))
    subprocess.run(["tar", "-xzf", build(project, "sdist"), "-C", directory], check=True)
    shutil.rmtree(project)
    (found,) = directory.iterdir()
    return found


def test_modules_that_were_deleted_are_not_installed(clone: Path) -> None:
    stale = clone / "build" / "lib" / "wsep_sync"
    stale.mkdir(parents=True)
    (stale / "deleted.py").touch()
    assert installed(build(clone, "wheel")) == modules(ROOT)


def test_the_sdist_has_what_a_clone_has(clone: Path, unpacked: Path) -> None:
    def files(directory: Path) -> set[str]:
        return {str(f.relative_to(directory)) for f in directory.rglob("*") if f.is_file()}

    here = files(clone)
    assert here <= files(unpacked), here - files(unpacked)
    assert {"tests/conftest.py", "docs/benchmark.png", "examples/server.py"} <= here
    assert not [file for file in files(unpacked) if file.endswith(".pyc")]


def test_what_is_built_from_the_sdist_is_the_same(unpacked: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(unpacked, tmp_path / "unpacked"))
    assert installed(build(project, "wheel")) == modules(ROOT)


def test_tests_run_from_the_sdist(unpacked: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(unpacked, tmp_path / "unpacked"))
    # Those that look at what lies around them: all others need less.
    python(project, "-m", "pytest", "-q", "-k", "links or shown", "tests/test_docs.py")


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    return email.message_from_string((unpacked / "PKG-INFO").read_text())


def test_the_description_has_no_links_to_files(metadata: Message) -> None:
    # An index shows it, and has no files beside it.
    text = metadata.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)\s]*)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "![" not in text
    # What they said is there.
    for words in ("SECURITY.md says what all this promises", "- Protocol: what goes over the wire"):
        assert words in text
    assert text.count("```") == (ROOT / "README.md").read_text().count("```")


def test_the_systems_are_those_of_the_readme(metadata: Message) -> None:
    said = re.findall(r"^\| (Linux|macOS|Windows) \|", (ROOT / "README.md").read_text(), re.M)
    names = {"Linux": "POSIX :: Linux", "macOS": "MacOS", "Windows": "Microsoft :: Windows"}
    prefix = "Operating System :: "
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith(prefix)]
    assert sorted(classifiers) == sorted(prefix + names[system] for system in said)
