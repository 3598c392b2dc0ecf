"""The notebooks as inputs: their sources, their typed parameters, and the profiles that override these.

A parameters cell declares one parameter a line, ``name: type = default  # [low, high] meaning``; the range in square
brackets holds for the number or for each entry of a list, and ``{a, b}`` lists the allowed values instead. What is
unknown or breaks these rules is a ``ValueError``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jupytext
import nbformat
import yaml
from papermill.translators import PythonTranslator
from pydantic import Field, TypeAdapter, ValidationError

from rlvr_lib.arguments import require

SCALARS = {"int": int, "float": float, "str": str, "bool": bool}
RANGE = re.compile(r"\[\s*(?P<low>[^,\]]+),\s*(?P<high>[^\]]+)\]")
CHOICE = re.compile(r"\{(?P<values>[^}]+)\}")
RESERVED = "profile"


def project_root() -> Path:
    """The folder with ``notebooks/profiles.yml``: the clone that this package is installed from, or the current one."""
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / "notebooks" / "profiles.yml").is_file():
            return root
    raise ValueError("the notebooks must be in the installed clone or the current folder, got neither")


def notebook_names(folder: Path) -> list[str]:
    """Names of the notebooks in a folder: every chapter ``NN_name``, and after it its evidence ``evidence/NN_name``."""
    found = [*folder.glob("[0-9][0-9]_*.py"), *folder.glob("evidence/[0-9][0-9]_*.py")]
    return sorted((path.relative_to(folder).with_suffix("").as_posix() for path in found), key=in_order)


def in_order(name: str) -> tuple[str, bool, str]:
    """Key that sorts names of notebooks by theorem, the chapter before its evidence."""
    stem = name.rpartition("/")[2]
    return stem[:2], stem != name, name


def read_source(path: Path) -> nbformat.NotebookNode:
    """The percent-format source as a notebook without outputs; cell ids are stable from one reading to the next."""
    notebook = jupytext.read(path, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
    return notebook


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its default, and the adapter that holds its type and range."""

    name: str
    default: Any
    allowed: str
    adapter: TypeAdapter

    def parse(self, text: str) -> Any:
        """The value of ``--set name=text``."""
        try:
            value = text if isinstance(self.default, str) else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        return self.validate(value)

    def validate(self, value: Any) -> Any:
        """The value, if it has the declared type and range."""
        try:
            return self.adapter.validate_python(value, strict=True)
        except ValidationError:
            raise ValueError(f"parameter {self.name} must be {self.allowed}, got {value!r}") from None


def declared_parameters(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """The parameters a notebook declares, by name; each has a type, and a default in its range."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    require(len(cells) == 1, "notebook", f"{len(cells)} cells tagged 'parameters'", "one with a single parameters cell")
    found = PythonTranslator.inspect(cells[0])
    statements = len(ast.parse(cells[0].source).body)
    require(len(found) == statements, "parameters cell", f"{statements} statements", f"{len(found)} typed assignments")
    return {p.name: _parameter(p.name, p.inferred_type_name, p.default, p.help) for p in found}


def _parameter(name: str, type_name: str, default: str, help_text: str) -> Parameter:
    entry = re.fullmatch(r"list\[(\w+)\]", type_name)
    scalar = entry[1] if entry else type_name
    require(scalar in SCALARS, f"parameter {name}", f"the type {type_name}", f"of type {', '.join(SCALARS)}, or a list")
    allowed = type_name
    kind: Any = SCALARS[scalar]
    if match := CHOICE.search(help_text):
        values = tuple(value.strip() for value in match["values"].split(","))
        allowed, kind = f"one of {', '.join(values)}", Literal[values]
    elif match := RANGE.search(help_text):
        low, high = float(match["low"]), float(match["high"])
        allowed += f" in [{match['low']}, {match['high']}]"
        kind = Annotated[kind, Field(ge=low, le=high, allow_inf_nan=False)]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[list[kind], Field(min_length=1)] if entry else kind)
    parameter = Parameter(name, ast.literal_eval(default), allowed, adapter)
    parameter.validate(parameter.default)
    return parameter


def resolve(names: Sequence[str], profile: str, settings: Mapping[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """Every named notebook's parameters under a profile: the defaults, then the profile's, then the settings.

    Args:
        names: notebooks, or beginnings of names, as ``02`` for a chapter and its evidence; none means all.
        settings: ``--set`` texts by parameter name; each named notebook must declare each of them.
    """
    known = notebook_names(folder)
    profiles = yaml.safe_load((folder / "profiles.yml").read_text(encoding="utf-8"))
    require(profile in profiles, "profile", profile, f"one of {', '.join(profiles)}")
    chosen: dict[str, None] = {}
    for name in names:
        found = [k for k in known if k == name or any(n.startswith(f"{name}_") for n in (k, k.rpartition("/")[2]))]
        require(bool(found), "notebook", name, f"one of {', '.join(known)}")
        chosen |= dict.fromkeys(found)
    resolved = {}
    for name in chosen or known:
        parameters = declared_parameters(read_source(folder / f"{name}.py"))
        changed = {**(profiles[profile].get("all") or {}), **(profiles[profile].get(name) or {})}
        for key in (*changed, *settings):
            require(key in parameters and key != RESERVED, "parameter", key, f"one that {name} declares")
        values = {key: p.validate(changed.get(key, p.default)) for key, p in parameters.items()}
        values |= {key: parameters[key].parse(text) for key, text in settings.items()}
        resolved[name] = values | {RESERVED: profile}
    return resolved
