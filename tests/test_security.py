"""No pickles, no code in parameters, no hub unless asked, no secrets in what is published."""

import ast
import getpass
import json
import os
import re
import socket

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from rlvr_lib.reproduction.notebooks import notebook_names, read_source, resolve

SOURCES = [*(ROOT / "rlvr_lib").rglob("*.py"), *(ROOT / "notebooks").rglob("*.py"), *(ROOT / "book").rglob("*.py")]
PUBLISHED = [
    *(ROOT / "results").rglob("*.json"),
    *(ROOT / "rlvr_lib" / "data").glob("*.json"),
    *(ROOT / "notebooks").rglob("*.ipynb"),
]

UNSAFE = re.compile(
    r"(.*\.)?(pickle|dill|shelve|marshal|joblib)(\..*)?|torch\.load|(np|numpy)\.load|pd\.read_pickle"
    r"|eval|exec|os\.system|yaml\.(unsafe_)?load|.*\.eval_str"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_reads_pickles_or_runs_text(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Call):
            names = [ast.unparse(node.func)]
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert keywords.get("shell") != "True", f"{path.name}:{node.lineno}"
            assert keywords.get("trust_remote_code", "False") == "False", f"{path.name}:{node.lineno}"
            assert keywords.get("allow_pickle", "False") == "False", f"{path.name}:{node.lineno}"
        unsafe = [name for name in names if UNSAFE.fullmatch(name)]
        assert not unsafe, f"{path.name}:{node.lineno} uses {unsafe}"


@pytest.mark.parametrize("name", ["seed = 1; import os; seed", "seed #", "__class__", "seed\nimport os"])
def test_names_of_parameters_carry_no_code(project, name):
    with pytest.raises(ValueError, match="^parameter must be one that 01_stub declares"):
        resolve(["01_stub"], "book", {name: "1"}, project / "notebooks")


@given(st.text(st.characters(codec="utf-8")) | st.text("'\"\\\n\r{}#;()"))
def test_a_text_parameter_arrives_as_the_text_it_was(text):
    """The only way of text into a notebook is papermill's translation, which must be the inverse of reading it."""
    (assignment,) = ast.parse(PythonTranslator.codify({"qwen_model": text})).body
    assert ast.literal_eval(assignment.value) == text


def test_the_tiny_model_needs_no_network(tmp_path, monkeypatch):
    from rlvr_lib.testbeds.group_tasks import WordProblem
    from rlvr_lib.testbeds.qwen import QwenTestbed
    from rlvr_lib.testbeds.qwen.warm_start import WarmStart
    from rlvr_lib.theory.groups import symmetric_group

    def refuse(*arguments):
        raise AssertionError(f"it wanted to connect to {arguments[1:]}")

    monkeypatch.setenv("RLVR_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    short = WarmStart(clean_steps=1, noisy_steps=1, batch=2)
    assert len(QwenTestbed(WordProblem(symmetric_group(3), (2,)), warm_start=short).theta)


def test_every_notebook_asks_for_the_tiny_model_unless_told():
    for name in notebook_names(ROOT / "notebooks"):
        sources = [cell.source for cell in read_source(ROOT / "notebooks" / f"{name}.py").cells]
        asks = any('qwen_model: str = "tiny"' in source for source in sources)
        assert asks or not any("model=" in source or "warm_starts(" in source for source in sources), name


KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[abpr]-[\w-]{10,}|AIza[\w-]{30,}|eyJ[\w-]{20,}\.[\w-]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY"
)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_published_files_hold_no_secret_and_name_no_machine(path):
    text = path.read_text()
    if path.suffix == ".ipynb":  # pictures are long random text
        text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not KEYS.search(text)
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/[\w.-]", text)
    secret = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY")
    values = [value for name, value in os.environ.items() if secret.search(name.upper()) and len(value) >= 8]
    assert not [value for value in values if value in text], "the value of a secret variable of this environment"
    for private in {socket.gethostname(), getpass.getuser()} - {"root", "localhost"}:
        assert not re.search(rf"\b{re.escape(private)}\b", text)


def test_keys_are_recognised():
    for key in ("hf_" + "a1" * 17, "ghp_" + "a1" * 18, "AKIA" + "A1" * 8, "-----BEGIN RSA " + "PRIVATE KEY-----"):
        assert KEYS.search(json.dumps({"text": f"key {key}"}))
