"""The wheel, in an environment of its own that sees the dependencies of this one but not the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from conftest import ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys
import rlvr_lib
assert rlvr_lib.__file__.startswith(sys.prefix), rlvr_lib.__file__
names = [module.name for module in pkgutil.walk_packages(rlvr_lib.__path__, "rlvr_lib.")]
for name in names:
    if name != "rlvr_lib.__main__":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name in ("accelerate", "datasets", "math_verify", "peft", "trl"), (name, error)
print("\\n".join(names))
"""


def run(*command, cwd, code=0):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing which an earlier build left in the clone gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "rlvr_lib", source / "rlvr_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the new environment's programs."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    programs, python = home / "bin", home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    (packages,) = home.glob("lib/python*/site-packages")
    # A path file inside a folder that a path file names is not read, so the clone's editable install is not seen.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return programs


def test_the_wheel_holds_every_file_of_the_library(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rlvr_lib").rglob("*") if path.is_file()}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in files if "__pycache__" not in name} == {
        name for name in packed if name.startswith("rlvr_lib/")
    }


def test_every_module_can_be_imported_from_the_wheel(installed, tmp_path):
    names = run(installed / "python", "-I", "-c", IMPORT_ALL, cwd=tmp_path).stdout.split()
    own = {path.with_suffix("") for path in (ROOT / "rlvr_lib").rglob("*.py") if path.stem != "__init__"}
    assert {".".join(path.relative_to(ROOT).parts) for path in own} <= set(names)


def test_the_installed_command_lists_claims(installed, tmp_path, make_project):
    refused = run(installed / "rlvr", "claims", cwd=tmp_path, code=2)
    assert refused.stderr.count("\n") == 1
    assert "got neither" in refused.stderr
    project = make_project(tmp_path)
    run(installed / "rlvr", "reproduce", "01_stub", "--out", "made", cwd=project)
    assert (
        "[1-none-stub, none, book, chapter]" in run(installed / "rlvr", "claims", "--out", "made", cwd=project).stdout
    )
