"""The promises of the top level: one set of dependencies, one address, no machine's paths."""

import re
import shlex
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


def declared():
    extras = PROJECT["project"]["optional-dependencies"]
    lines = PROJECT["project"]["dependencies"] + [line for extra in extras.values() for line in extra]
    return [Requirement(line) for line in lines]


def pins():
    files = (ROOT / name for name in ("requirements.txt", "requirements-tools.txt"))
    lines = [line for file in files for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


def test_conda_environment_is_generated_from_pyproject(tmp_path):
    command = re.search(r"# environment.yml: (pyproject2conda .*)", (ROOT / "pyproject.toml").read_text())[1]
    program, *arguments = shlex.split(command.replace("environment.yml", str(tmp_path / "made.yml")))
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, cwd=ROOT, capture_output=True)
    assert (tmp_path / "made.yml").read_text() == (ROOT / "environment.yml").read_text()


def test_conda_can_parse_every_requirement():
    from rattler import MatchSpec

    for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        if isinstance(line, str):
            assert MatchSpec(line).name


def test_every_dependency_is_pinned_within_its_range():
    for requirement in declared():
        name = requirement.name.lower().replace("_", "-")
        assert name in pins(), f"{name} has no pin in requirements.txt"
        assert SpecifierSet(str(requirement.specifier)).contains(pins()[name], prereleases=True), name


def test_the_environment_is_the_pinned_one():
    for name, pinned in pins().items():
        assert version(name).split("+")[0] == pinned, f"{name} is not at its pin; run make env"


def test_the_public_address_is_the_same_everywhere():
    """``_config.yml`` is where it is set; these files cannot read it and must follow."""
    for path in (ROOT / "CITATION.cff", *(ROOT / "notebooks").rglob("0*.py")):
        found = re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", path.read_text())
        assert set(found) == {ADDRESS}, path


IMPORT = "import sys, time, rlvr_lib; print(time.process_time(), *sys.modules)"


def test_importing_the_library_loads_nothing_else():
    """Neither torch nor matplotlib, nor anything that is not Python's own; so it costs next to no processor time."""
    command = [sys.executable, "-I", "-c", IMPORT]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(5)]
    own = set(
        subprocess.run(
            [*command[:-1], "import sys; print(*sys.modules)"], check=True, capture_output=True, text=True
        ).stdout.split()
    )
    assert statistics.median(float(seconds) for seconds, *_ in runs) < 0.3
    loaded = {name.split(".")[0] for name in runs[0][1:]} - {name.split(".")[0] for name in own}
    assert loaded - sys.stdlib_module_names == {"rlvr_lib"}


def test_citation_names_the_four_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    identifiers = {entry["identifiers"][0]["value"] for entry in citation["references"]}
    assert identifiers == {f"arXiv:{n}" for n in ("2510.08539", "2602.14872", "2511.23310", "2601.23135")}


def test_readme_commands_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"(?:^|`)make ([a-z]+)", text, re.M):
        assert name in targets, name


def test_no_file_names_a_machine_or_is_unfinished():
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split("\n")
    marks = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"])
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yml", ".toml", ".cff", ".ipynb", ".json", ".txt"} and path.is_file():
            # Pictures are encoded text, in which every short word turns up sooner or later.
            text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
            assert not re.search(rf"\b({marks})\b", text), f"{name} is unfinished"
            assert not re.search(r"(?<![\w.])/(home|root|work)/[\w.-]", text) or name == "tests/test_project.py", name


def test_the_example_of_the_readme_does_what_it_says():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    *lines, last = example.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert eval(last.split("#")[0], names) > 0
