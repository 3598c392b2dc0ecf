import ast
import functools
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from rlvr_lib.reproduction import provenance
from rlvr_lib.reproduction.notebooks import notebook_names, read_source

NAMES = notebook_names(ROOT / "notebooks")


def test_closure_follows_imports_through_modules_and_packages(project):
    closure = provenance.import_closure("from rlvr_lib.theory.gap import gradient_gap", project)
    own = {"rlvr_lib", "rlvr_lib.theory", "rlvr_lib.theory.gap", "rlvr_lib.arguments", "rlvr_lib.responses"}
    assert closure.keys() == own
    bandit = provenance.import_closure("from rlvr_lib.testbeds import bandit", project)
    assert {"rlvr_lib.testbeds", "rlvr_lib.testbeds.bandit", "rlvr_lib.responses"} <= bandit.keys()


@pytest.mark.parametrize(
    "source",
    [
        "from rlvr_lib import gradient_gap",
        "import rlvr_lib.theory.gap as g",
        "def f():\n    from rlvr_lib.theory import gap",
        "from rlvr_lib import *",
    ],
)
def test_closure_sees_every_form_of_import(project, source):
    assert "rlvr_lib.theory.gap" in provenance.import_closure(source, project)


def test_editing_a_module_changes_exactly_the_closures_that_hold_it(project):
    """Each module of the library in turn, against two programs of different closures."""
    programs = (
        "from rlvr_lib.theory.gap import gradient_gap",
        "from rlvr_lib.testbeds import bandit\nimport rlvr_lib.claims",
    )
    before = [provenance.import_closure(program, project) for program in programs]
    modules = sorted((project / "rlvr_lib").rglob("*.py"))
    assert len(modules) > 10
    for file in modules:
        module = ".".join(file.relative_to(project).with_suffix("").parts).removesuffix(".__init__")
        original = file.read_text()
        file.write_text(original + "\n# edited\n'and a word'\n")
        assert [provenance.import_closure(program, project) for program in programs] == before, module
        file.write_text(original + "\nEDITED = True\n")
        for program, old in zip(programs, before, strict=True):
            assert (provenance.import_closure(program, project) != old) == (module in old), module
        file.write_text(original)


@pytest.mark.slow
def test_editing_a_module_makes_exactly_the_chapters_stale_that_depend_on_it(project, monkeypatch):
    """Each module of the library in turn, against the real notebooks."""
    monkeypatch.setattr(ast, "parse", functools.cache(ast.parse))
    shutil.copytree(ROOT / "notebooks", project / "notebooks", dirs_exist_ok=True)
    sources = {name: read_source(project / "notebooks" / f"{name}.py") for name in NAMES}
    before = {name: provenance.inputs(source, project) for name, source in sources.items()}
    for file in sorted((project / "rlvr_lib").rglob("*.py")):
        module = ".".join(file.relative_to(project).with_suffix("").parts).removesuffix(".__init__")
        original = file.read_text()
        file.write_text(original + "\nEDITED = True\n")
        stale = {name for name, source in sources.items() if provenance.inputs(source, project) != before[name]}
        assert stale == {name for name in NAMES if module in before[name]}, module
        file.write_text(original)


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_imports_nothing_outside_its_closure(name):
    """What Python really loads, against what the source says."""
    notebook = read_source(ROOT / "notebooks" / f"{name}.py")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [ast.unparse(node) for node in imports if "rlvr_lib" in ast.unparse(node)]
    program = "\n".join([*own, "import sys", "print(*(name for name in sys.modules if name.startswith('rlvr_lib')))"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert len(loaded) > 3
    assert loaded <= provenance.inputs(notebook, ROOT).keys()


def test_inputs_change_with_source_and_pins_but_not_with_other_files(project):
    path = project / "notebooks" / "01_stub.py"
    before = provenance.inputs(read_source(path), project)
    (project / "notes.txt").write_text("x")
    assert provenance.inputs(read_source(path), project) == before
    path.write_text(path.read_text().replace("one is one", "one is 1"))
    assert provenance.inputs(read_source(path), project)["source"] != before["source"]
    (project / "requirements.txt").write_text("numpy==2.4.7\n")
    assert provenance.inputs(read_source(path), project)["requirements"] != before["requirements"]


CODE = '''"""Words."""

LIMIT = 3
"""What it is."""


def double(x: float = 2.0) -> float:  # a comment
    """Twice a number."""
    return 2 * x


class Thing:
    """A thing."""

    size: int = 1
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""Words."""', '"""Other words."""', True),
        ('"""What it is."""', "# What it is.", True),
        ("  # a comment", "", True),
        ('    """Twice a number."""\n', "", True),
        ('"""A thing."""', "pass", False),
        ("2 * x", "(2 * x)", True),
        ("2 * x", "2*x", True),
        ("2 * x", "x * 2", False),
        ("2.0", "2", False),
        ("x: float", "x: int", False),
        ("LIMIT = 3", 'LIMIT = "3"', False),
        ("LIMIT = 3", "LIMIT = True", False),
        ("size: int = 1", "size: int = 2", False),
        ("return 2 * x", 'return "2 * x"', False),
        ("return 2 * x", "return None", False),
        ("class Thing", "@double\nclass Thing", False),
        ("double(x:", "double(*, x:", False),
        ("def double", "async def double", False),
    ],
)
def test_a_module_is_its_code_without_comments_and_docstrings(old, new, same):
    assert CODE.count(old) == 1
    changed = CODE.replace(old, new)
    assert (provenance.module_code(changed) == provenance.module_code(CODE)) == same


CELLS = '''# %% [markdown]
# Prose.

# %% tags=["parameters"]
seed: int = 0  # [0, 9] seed

# %% tags=["hide-input"]
def double(x):
    """Twice a number."""
    return 2 * x  # a comment


show(figure, alt="A line.")

# %%
"the output"
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Prose.", "Other prose.", True),
        ("# Prose.", "# Prose.\n\n# %% [markdown]\n# And more of it.", True),
        ("  # a comment", "", True),
        ("Twice a number.", "Two times.", True),
        ("[0, 9]", "[0, 8]", False),
        ("2 * x", "3 * x", False),
        ("A line.", "A curve.", False),
        ("the output", "another output", False),
        ('"hide-input"', '"remove-input"', False),
        ('alt="A line.")', 'alt="A line.");', False),
        ('# %%\n"the output"', '# %%\n"the output"\n\n# %%\n1', False),
        ("\n\nshow(", "\n\n# %%\nshow(", False),
        ("# %% [markdown]\n# Prose.", "# %%\nprose = 1", False),
    ],
)
def test_a_notebook_is_the_code_of_its_cells(project, old, new, same):
    assert CELLS.count(old) == 1
    path, found = project / "notebooks" / "01_stub.py", []
    for text in (CELLS, CELLS.replace(old, new)):
        path.write_text(text)
        found.append(provenance.inputs(read_source(path), project)["source"])
    assert (found[0] == found[1]) == same


def test_commands_to_the_notebook_are_code():
    cells = [nbformat.v4.new_code_cell(source) for source in ("%time 1", "%time 2", "! ls")]
    assert len({provenance.cell_code(cell) for cell in cells}) == 3


def test_data_is_an_input_of_the_notebooks_that_name_it(project):
    path, data = project / "notebooks" / "01_stub.py", project / "rlvr_lib" / "data"
    (data / "runs.json").write_text("[1]")
    assert "data/runs.json" not in provenance.inputs(read_source(path), project)
    path.write_text(path.read_text().replace("one is one", "runs.json"))
    before = provenance.inputs(read_source(path), project)
    (data / "runs.json").write_text("[2]")
    changed = provenance.inputs(read_source(path), project)
    assert {name for name in changed if changed[name] != before[name]} == {"data/runs.json"}
    chapter = provenance.inputs(read_source(ROOT / "notebooks" / "03_relay_effect.py"), ROOT)
    assert {"data/z96.json", "data/papers.yml"} <= chapter.keys()


def test_data_that_a_module_of_the_closure_reads_is_an_input(project):
    notebook, papers = read_source(project / "notebooks" / "01_stub.py"), project / "rlvr_lib" / "data" / "papers.yml"
    before = provenance.inputs(notebook, project)
    papers.write_text(papers.read_text().replace("smooth difficulty", "rough difficulty"))
    assert provenance.inputs(notebook, project) == before, "what a paper says that the notebook does not name"
    papers.write_text(papers.read_text().replace("sharp step-size", "blunt step-size"))
    changed = provenance.inputs(notebook, project)
    assert {name for name in changed if changed[name] != before[name]} == {"data/papers.yml"}


def test_damaged_stamps_are_no_stamps(tmp_path):
    for content in ("", "{", "[]", '{"notebook": "x"}', "\0\1"):
        (tmp_path / "stamp.json").write_text(content)
        assert provenance.read_stamp(tmp_path / "stamp.json") is None
    assert provenance.read_stamp(tmp_path / "absent.json") is None


def test_hardware_names_no_machine():
    import socket

    assert socket.gethostname() not in str(provenance.hardware())
