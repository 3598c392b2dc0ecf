"""Reads the logs that trainers write: rows of responses, or one row a step. Nothing is executed, no pickle is loaded.

The format is told from the fields of the first row. What each one lacks is replaced openly, in ``Log.notes``: a length
in characters where there are no tokens, rewards of -1 and 1 read as failure and success.
"""

from __future__ import annotations

import glob
import json
import math
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvr_lib.arguments import require

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".npy")
STEP = ("step", "global_step", "training_step", "_step", "train/global_step", "iteration")
LOSS = ("loss", "train/loss", "actor/pg_loss", "policy_loss", "pg_loss", "train/policy_loss")
REWARD = (
    *(
        "reward",
        "reward_avg",
        "reward_mean",
        "mean_reward",
        "avg_reward",
        "success_rate",
        "train/reward",
        "rewards/mean",
    ),
    *("critic/score/mean", "critic/rewards/mean", "train/reward_avg"),
)
LENGTH = (
    *("avg_response_len", "response_length", "mean_length", "completion_length", "completions/mean_length"),
    *("response_length/mean", "avg_response_length", "train/completions/mean_length", "response_len", "length"),
)
TRUNCATED = ("completions/clipped_ratio", "response_length/clip_ratio", "truncated")
TEXT = ("completion", "response", "output", "text")
CUT = ("length", "max_tokens", "max_length", "truncated")


@dataclass
class Log:
    """What was read.

    Attributes:
        format: its name, one of ``FORMATS`` or ``steps``.
        rows: one a response: prompt (categorical), step, success, length, and where known level, truncated, log_prob.
        steps: one a step: step, and where known loss, success, length, truncated.
        unscored: responses without a reward; they are in no group.
        length_unit: ``tokens``, ``characters`` or None.
        notes: what a reader must know of how it was read.
    """

    format: str
    rows: pd.DataFrame | None = None
    steps: pd.DataFrame | None = None
    unscored: int = 0
    length_unit: str | None = None
    notes: list[str] = field(default_factory=list)


def find(paths: list[str]) -> list[Path]:
    """The files that files, folders and globs stand for, in the order of the numbers in their names."""
    found: list[Path] = []
    for given in paths:
        require("\0" not in given, "file", given, "a name without a NUL character")
        path = Path(given)
        if path.is_dir():
            inside = [file for file in path.rglob("*") if file.is_file()]
            usable = [file for file in inside if file.suffix.lower() in SUFFIXES]
            pickles = [file.name for file in inside if file.suffix.lower() in PICKLES]
            why = f"{given}, where {pickles[0]!r} is a pickle, which is never loaded" if pickles else given
            require(bool(usable), "file", why, f"a folder with a {', '.join(SUFFIXES)}")
            found += sorted(_training(usable), key=_order)
        elif path.is_file():
            found.append(path)
        else:
            matching = sorted((Path(name) for name in glob.glob(given, recursive=True)), key=_order)
            require(bool(matching), "file", given, "a JSON-lines file that exists, a folder, or a glob that matches")
            found += _training([file for file in matching if file.is_file()])
    for file in found:
        pickle = f"{file}, a pickle, which is never loaded because it could run code"
        require(file.suffix.lower() not in PICKLES, "file", pickle, f"one of {', '.join(SUFFIXES)}")
    require(bool(found), "file", paths, "at least one file")
    return list(dict.fromkeys(found))


def _training(files: list[Path]) -> list[Path]:
    """Without what prime-rl keeps beside its rollouts: evaluations, and the copies that lack dead groups."""
    everything = {file.parent.parent for file in files if file.parent.name == "all"}
    shadowed = lambda file: file.parent.name == "effective" and file.parent.parent in everything  # noqa: E731
    kept = [file for file in files if not shadowed(file) and "eval" not in file.parts[-3:-1]]
    return kept or files


def _order(file: Path) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", str(file))
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces]


def objects(file: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with the words that name its place."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(file)
    elif suffix == ".csv":
        yield from _csv(file)
    else:
        with open(file, "rb") as lines:
            first = lines.read(1)
            lines.seek(0)
            whole = suffix == ".json" and first in (b"[", b"{") and _whole(file)
            if whole:
                yield from ((f"item {number} of {file}", row) for number, row in enumerate(whole, 1))
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"line {number} of {file}"
                    yield where, _parsed(line, where)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{where} must be JSON: {said}") from None


def _whole(file: Path) -> list | None:
    """A JSON array of rows, or the history in a ``trainer_state.json``; None for JSON lines."""
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = value["log_history"] if isinstance(value.get("log_history"), list) else [value]
    return value


def _parquet(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError(f"{file} must be read with pyarrow, which is not here: pip install pyarrow") from None
    try:
        table, number = parquet.ParquetFile(file), 0
        for batch in table.iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number} of {file}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} must be a Parquet file: {' '.join(str(error).split())[:200]}") from None


def _csv(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        table = pd.read_csv(file)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise ValueError(f"{file} must be a table of CSV: {' '.join(str(error).split())[:200]}") from None
    for number, row in enumerate(table.to_dict("records"), 2):
        yield f"line {number} of {file}", {key: None if value != value else value for key, value in row.items()}


# Formats: each takes a row of a file and gives the responses in it, in our words. ``rewards`` maps names to numbers.


def _step_in(place: str) -> int | None:
    """The number behind "step" in a path, else that of a name that is only a number."""
    path = Path(place.split(" of ", 1)[-1])
    named = re.findall(r"step[_-]?(\d+)", str(path)) or re.findall(r"^(\d+)$", path.stem)
    return int(named[-1]) if named else None


def _ours(row: Row, where: str) -> Iterator[Row]:
    yield row | {"rewards": {"reward": row["reward"]}}


def _verl(row: Row, where: str) -> Iterator[Row]:
    known = {"input", "output", "gts", "step", "uid", "request_id"}
    rewards = {key: value for key, value in row.items() if key not in known and _is_number(value)}
    step = row.get("step") if row.get("step") is not None else _step_in(where)
    default = "acc" if "acc" in rewards else "score"
    rewards.setdefault(default, row.get(default))
    yield {"prompt": row["input"], "step": step, "text": row["output"], "rewards": rewards, "default": default}


def _trl(row: Row, where: str) -> Iterator[Row]:
    known = {"step", "prompt", "completion", "advantage", "length", "level"}
    rewards = {key: value for key, value in row.items() if key not in known and (value is None or _is_number(value))}
    step = row.get("step") if row.get("step") is not None else _step_in(where)
    yield {"prompt": row["prompt"], "step": step, "text": row["completion"], "rewards": rewards}


def _swift(row: Row, where: str) -> Iterator[Row]:
    count = len(row["prompt"])
    lists = {key: value for key, value in row.items() if isinstance(value, list)}
    short = [key for key, value in lists.items() if len(value) != count]
    require(not short, where, f"{short} of other lengths", f"lists of {count} entries")
    for k in range(count):
        one = {key: value[k] for key, value in lists.items()}
        step = one.get("step", row.get("step"))
        plain = {key: one[key] for key in one if key not in {"advantages", "step", "prompt", "completion"}}
        rewards = {key: value for key, value in plain.items() if value is None or _is_number(value)}
        step = int(step.split("/")[0]) if isinstance(step, str) and step.split("/")[0].strip().isdecimal() else step
        yield {"prompt": one["prompt"], "step": step, "text": one["completion"], "rewards": rewards}


def _nemo(row: Row, where: str) -> Iterator[Row]:
    one: Row = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in row.items()}
    tokens: Any = one.get("token_ids")
    mask: Any = one.get("token_loss_mask")
    both = isinstance(tokens, list) and isinstance(mask, list) and len(tokens) == len(mask)
    require(
        both, where, "no token_ids with a token_loss_mask", "a row of NeMo-RL, whose mask tells prompt and response"
    )
    used = [place for place, value in enumerate(mask) if value]
    start = used[0] if used else len(tokens)
    response = {
        "prompt": json.dumps(tokens[:start]),
        "length": len(used) or None,
        "rewards": {"reward": one["rewards"]},
    }
    probs: Any = one.get("generation_logprobs")
    usable = isinstance(probs, list) and len(probs) == len(mask)
    if usable and all(_is_number(probs[place]) for place in used):
        response["log_prob"] = sum(probs[place] for place in used)
    yield response | {"step": _step_in(where)}


def _prime(row: Row, where: str) -> Iterator[Row]:
    for trace in row["traces"] if isinstance(row.get("traces"), list) else [row]:
        require(isinstance(trace, dict), where, "a trace that is no object", "an object")
        if _at(trace, "agent", "trainable") is False:
            continue
        rewards, total = {}, 0.0
        given = trace.get("rewards")
        for name, value in given.items() if isinstance(given, dict) else ():
            score: Any
            weight: Any
            score, weight = (value.get("score"), value.get("weight", 1.0)) if isinstance(value, dict) else (value, 1.0)
            rewards[str(name)] = score
            known = _is_number(score) and _is_number(weight)
            total = total + weight * score if known else math.nan
        group, task = _at(trace, "info", "group_id") or row.get("group_id"), _at(trace, "task", "data", "idx")
        step = row.get("step") if row.get("step") is not None else _step_in(where)
        prompt = group if task is None else f"task {task}"
        total_or_none = None if math.isnan(total) or not rewards else total
        yield {
            "prompt": prompt, "step": step, "rewards": rewards | {"total": total_or_none}, "default": "total",
            "length": _at(trace, "info", "completion_tokens") or _at(trace, "usage", "completion_tokens"),
            "text": trace.get("completion"), "truncated": trace.get("is_truncated"),
        }  # fmt: skip


def _open_instruct(row: Row, where: str) -> Iterator[Row]:
    probs: Any = row.get("logprobs")
    usable = isinstance(probs, list) and probs and all(_is_number(value) for value in probs)
    reason = row.get("finish_reason")
    prompt = row.get("prompt_idx")
    tokens = row["response_tokens"]
    yield {
        "prompt": f"prompt {prompt}" if prompt is not None else json.dumps(row.get("prompt_tokens")),
        "step": row.get("step"), "length": len(tokens) if isinstance(tokens, list) else None,
        "rewards": {"reward": row["reward"]}, "truncated": None if reason is None else reason in CUT,
        "log_prob": sum(probs) if usable else None,
    }  # fmt: skip


def _at(row: Any, *names: str) -> Any:
    for name in names:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


FORMATS: dict[str, tuple[Callable[[Row, str], Iterator[Row]], Callable[[Row], bool]]] = {
    "verl": (_verl, lambda row: {"input", "output"} <= row.keys() and bool({"score", "acc"} & row.keys())),
    "open-instruct": (_open_instruct, lambda row: {"response_tokens", "reward"} <= row.keys()),
    "nemo-rl": (_nemo, lambda row: "rewards" in row and bool({"token_ids", "input_lengths"} & row.keys())),
    "prime-rl": (_prime, lambda row: "traces" in row or ("rewards" in row and "task" in row)),
    "ms-swift": (_swift, lambda row: all(isinstance(row.get(name), list) for name in ("prompt", "completion"))
                 and not _is_chat(row["completion"])),
    "ours": (_ours, lambda row: {"prompt", "reward"} <= row.keys()),
    "trl": (_trl, lambda row: {"prompt", "completion"} <= row.keys()),
}  # fmt: skip


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "role" in one for one in value)


def sniff(row: Any, suffix: str = "") -> str | None:
    """The name of the format that a row is of, or None. TRL's tables are told from ours by what wrote them."""
    if not isinstance(row, dict):
        return None
    if suffix == ".parquet" and FORMATS["trl"][1](row):
        return "trl"
    for name, (_, fits) in FORMATS.items():
        if fits(row):
            return name
    per_step = any(name in row for name in STEP) and any(name in row for name in REWARD + LOSS)
    return "steps" if per_step else None


def read(
    paths: list[str], format: str = "auto", rewards: list[str] | None = None, threshold: float | None = None
) -> Log:
    """Read logs into one ``Log``.

    Args:
        paths: files, folders and globs.
        format: ``auto``, ``steps``, or one of ``FORMATS``.
        rewards: columns to combine, each NAME or NAME=WEIGHT.
        threshold: combined rewards of at least this are a success; None: they must have two values.
    """
    allowed = ("auto", "steps", *FORMATS)
    require(format in allowed, "--format", format, f"one of {', '.join(allowed)}")
    require(threshold is None or math.isfinite(threshold), "--threshold", threshold, "a finite number")
    files = find(paths)
    kinds: dict[str, list[Path]] = {}
    unknown: list[tuple[Path, str]] = []
    for file in files:
        kind = None
        for where, row in objects(file):
            kind = sniff(row, file.suffix.lower()) if format == "auto" else format
            if kind is None:
                unknown.append((file, _unknown(row, where)))
            break
        else:
            continue
        if kind is not None:
            kinds.setdefault(kind, []).append(file)
    require(bool(kinds) or bool(unknown), "file", f"{paths[0]} without rows", "a file with at least one group")
    if not kinds:
        raise ValueError(unknown[0][1])
    require(not unknown or len(files) > 1, "file", unknown and unknown[0][1], "of a known format")
    notes = [f"left out: {', '.join(sorted({file.name for file, _ in unknown}))[:200]}"] if unknown else []
    of_rows = [name for name in kinds if name != "steps"]
    require(len(of_rows) <= 1, "file", f"rows of {' and of '.join(of_rows)}", "of one format, or used with --format")
    name = of_rows[0] if of_rows else "steps"
    if of_rows and "steps" in kinds:
        notes.append(
            f"left out, because they have a row a step: {', '.join(file.name for file in kinds['steps'])[:200]}"
        )
    log = _read_steps(kinds[name]) if name == "steps" else _read_rows(kinds[name], name, rewards or [], threshold)
    log.notes[:0] = notes
    return log


def _unknown(row: Any, where: str) -> str:
    if isinstance(row, dict) and "prompt" in row:
        return f"{where} must be an object with prompt, reward and length, got no reward"
    got = f"fields {', '.join(map(repr, list(row)[:8]))[:160]}" if isinstance(row, dict) and row else "no fields"
    wanted = "of a known format (see --format), or an object with prompt, reward and length"
    return f"{where} must be {wanted}, got no prompt, reward, length, but {got}"


class _Columns:
    """What is kept of the rows: numbers, and prompts by the digest of what they say."""

    def __init__(self) -> None:
        self.codes: dict[bytes, int] = {}
        self.names: list[str] = []
        self.prompt, self.place = array("q"), array("q")
        self.numbers = {
            name: array("d") for name in ("reward", "step", "length", "characters", "truncated", "log_prob")
        }
        self.level: list[Any] = []

    def code(self, prompt: Any) -> int:
        text = prompt if isinstance(prompt, str) else json.dumps(prompt, default=str)
        raw = text.encode("utf-8", "replace")
        key = raw if len(raw) <= 16 else blake2b(raw, digest_size=17).digest()
        code = self.codes.setdefault(key, len(self.codes))
        if code == len(self.names):
            self.names.append(_shown(prompt, text))
        return code


def _shown(prompt: Any, text: str) -> str:
    """A name for a prompt: what the user says last, in printable characters."""
    if _is_chat(prompt):
        said = [one.get("content") for one in prompt if one.get("role") == "user"] or [text]
        text = said[-1] if isinstance(said[-1], str) else text
    clean = "".join(sign if sign.isprintable() else " " for sign in text[:400]).encode("utf-8", "replace").decode()
    return re.sub(r" +", " ", clean).strip()[:120]


def _weights(rewards: list[str]) -> dict[str, float]:
    found = {}
    for given in rewards:
        name, _, weight = given.partition("=")
        try:
            found[name] = float(weight) if weight else 1.0
        except ValueError:
            found[name] = math.nan
        require(bool(name) and math.isfinite(found[name]), "--reward", given, "NAME or NAME=WEIGHT")
    return found


def _number(value: Any, name: str, where: str, allowed: str) -> float:
    """A finite number, or a refusal in one line."""
    try:
        number = float(value) if _is_number(value) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        require(False, f"{name} in {where}", str(value)[:60], allowed)
    return number


def _combined(response: Row, weights: dict[str, float], where: str) -> float:
    """The one number that a response was given; NaN where a part of it is null."""
    given = response["rewards"]
    if not weights:
        name = response.get("default") or (next(iter(given)) if len(given) == 1 else None)
        if name is None:
            names = ", ".join(map(str, given))[:160] or "none"
            require(False, f"rewards in {where}", names, "one column, or chosen with --reward NAME or NAME=WEIGHT")
        value = given.get(name)
        return math.nan if value is None else _number(value, "reward", where, "0 or 1, or used with --threshold")
    total = 0.0
    for name, weight in weights.items():
        require(name in given, f"rewards in {where}", ", ".join(map(str, given))[:160], f"with the column {name}")
        value = given[name]
        total += math.nan if value is None else weight * _number(value, f"reward {name}", where, "a finite number")
    return total


def _read_rows(files: list[Path], name: str, rewards: list[str], threshold: float | None) -> Log:
    translate, weights, kept = FORMATS[name][0], _weights(rewards), _Columns()
    numbers, levels = kept.numbers, False
    places: list[str] = []
    for file in files:
        for where, row in objects(file):
            require(
                isinstance(row, dict), where, "no prompt, reward, length", "an object with prompt, reward and length"
            )
            try:
                responses = list(translate(row, where))
            except KeyError as error:
                raise ValueError(f"{where} must be a row of {name}, got no {error.args[0]}") from None
            except (TypeError, AttributeError, ValueError) as error:
                if isinstance(error, ValueError) and str(error).startswith((where, "reward")):
                    raise
                raise ValueError(f"{where} must be a row of {name}: {' '.join(str(error).split())[:160]}") from None
            for response in responses:
                if response.get("prompt") is None:
                    require(False, where, "no prompt", "an object with prompt, reward and length")
                kept.prompt.append(kept.code(response["prompt"]))
                numbers["reward"].append(_combined(response, weights, where))
                numbers["step"].append(_step(response.get("step"), where))
                _append_length(numbers, response, where)
                cut = response.get("truncated", response.get("finish_reason"))
                numbers["truncated"].append(math.nan if cut is None else float(cut in CUT or cut is True or cut == 1))
                probability = response.get("log_prob")
                known = probability is not None
                numbers["log_prob"].append(_number(probability, "log_prob", where, "a number") if known else math.nan)
                level = response.get("level")
                levels |= level is not None
                if levels:
                    kept.level += [None] * (len(kept.prompt) - 1 - len(kept.level)) + [_level(level, where)]
                if len(places) < 2 or not len(kept.prompt) % 10_000:
                    places.append(where)
    require(len(kept.prompt) > 0, "file", f"{files[0]} without rows", "a file with at least one group")
    return _as_log(name, kept, threshold, files, places)


def _step(step: Any, where: str) -> float:
    if step is None:
        return math.nan
    if isinstance(step, str):
        try:
            step = float(step)
        except ValueError:
            step = math.nan
    return _number(step, "step", where, "a number")


def _level(level: Any, where: str) -> Any:
    if level is None or (isinstance(level, str) and len(level) <= 200):
        return level if level is None else _shown(level, level)
    require(_is_number(level), f"level in {where}", str(level)[:60], "a number or a short text")
    return _number(level, "level", where, "a number or a short text")


def _append_length(numbers: dict[str, array], response: Row, where: str) -> None:
    length = response.get("length")
    text: Any = response.get("text")
    if text is None:
        text = next((response[key] for key in TEXT if response.get(key) is not None), None)
    if _is_chat(text):
        text = "".join(one["content"] for one in text if isinstance(one.get("content"), str))
    promised = "reward" in response and "rewards" in response  # in rows of ours
    if promised and length is None and not isinstance(text, str):
        require(False, where, "no length", "an object with prompt, reward and length, or with the text")
    value = math.nan
    if length is not None:
        value = _number(length, "length", where, "a whole number of tokens, at least 1")
        if not (value >= 1 and value == int(value)):
            require(False, f"length in {where}", length, "a whole number of tokens, at least 1")
    numbers["length"].append(value)
    numbers["characters"].append(float(max(len(text), 1)) if isinstance(text, str) else math.nan)


def _as_log(name: str, kept: _Columns, threshold: float | None, files: list[Path], places: list[str]) -> Log:
    columns = {key: np.frombuffer(values, dtype=float) for key, values in kept.numbers.items()}
    reward = columns["reward"]
    scored = ~np.isnan(reward)
    log = Log(name, unscored=int((~scored).sum()))
    require(bool(scored.any()), "reward", f"null in all {len(reward)} rows", "a number in some")
    success = _successes(reward, scored, threshold, name, places[0], log.notes)
    table = {
        "prompt": pd.Categorical.from_codes(np.frombuffer(kept.prompt, dtype=np.int64)[scored], _distinct(kept.names))
    }
    step = columns["step"]
    if not np.isnan(step).any():
        table["step"] = (
            step[scored].astype(np.int64)
            if (step == np.floor(step)).all() and np.abs(step).max() < 2**53
            else step[scored]
        )
    elif not np.isnan(step).all():
        raise ValueError(
            f"step in {files[0]} must be in every row or in none, got {int(np.isnan(step).sum())} rows without"
        )
    table["success"] = success[scored]
    for unit, column in (("tokens", "length"), ("characters", "characters")):
        if not np.isnan(columns[column][scored]).any():
            log.length_unit, table["length"] = unit, columns[column][scored]
            break
    if log.length_unit == "characters":
        log.notes.append("length is in characters, because the log has no number of tokens")
    elif log.length_unit is None:
        log.notes.append("no length: neither tokens nor texts are in every row")
    for column in ("truncated", "log_prob"):
        if not np.isnan(columns[column]).all():
            table[column] = columns[column][scored]
    if kept.level:
        level = pd.Series(kept.level, dtype=object)[scored]
        kinds = {type(value) for value in level if value is not None}
        require(len(kinds) <= 1, "level", "numbers and texts", "of one kind")
        table["level"] = pd.to_numeric(level).to_numpy() if kinds == {float} else level.to_numpy()
    if log.unscored:
        log.notes.append(f"{log.unscored} responses have no reward and are in no group")
    log.rows = pd.DataFrame(table)
    return log


def _distinct(names: list[str]) -> list[str]:
    """Names as they are, with a number where two prompts begin alike."""
    seen: dict[str, int] = {}
    taken, found = set(names), []
    for name in names:
        seen[name] = count = seen.get(name, 0) + 1
        other = name
        while count > 1 and (other := f"{name} #{count}") in taken:
            count += 1
        taken.add(other)
        found.append(other)
    return found


def _successes(
    reward: np.ndarray, scored: np.ndarray, threshold: float | None, name: str, place: str, notes: list[str]
) -> np.ndarray:
    if threshold is not None:
        return (reward >= threshold).astype(float)
    values = np.unique(reward[scored][:100_000]).tolist()
    values = values if len(values) > 2 else np.unique(reward[scored]).tolist()
    if set(values) <= {0.0, 1.0}:
        return reward
    if set(values) <= {-1.0, 1.0}:
        notes.append("rewards of -1 are read as failures, those of 1 as successes")
    elif len(values) == 2 and values[0] == 0 and name != "ours":
        notes.append(f"rewards of {values[1]:g} are read as successes, those of 0 as failures")
    else:
        shown = ", ".join(f"{value:g}" for value in values[:4])
        where = place if float(reward[scored][0]) not in (0.0, 1.0) else "these rows"
        require(False, f"reward in {where}", shown, "0 or 1, or used with --threshold")
    return (reward > 0).astype(float)


def _read_steps(files: list[Path]) -> Log:
    rows: list[Row] = []
    for file in files:
        for where, row in objects(file):
            require(isinstance(row, dict), where, "no fields", "a row of numbers for a step")
            step = next((row[name] for name in STEP if row.get(name) is not None), None)
            found: Row = {"step": _step(step, where)}
            for name, fields in (("loss", LOSS), ("success", REWARD), ("length", LENGTH), ("truncated", TRUNCATED)):
                value = next((row[one] for one in fields if row.get(one) is not None), None)
                finite = value is not None and not (isinstance(value, float) and not math.isfinite(value))
                found[name] = _number(value, name, where, "a number") if finite else math.nan
            if not math.isnan(found["step"]) and not all(math.isnan(found[key]) for key in ("loss", "success")):
                rows.append(found)
    require(bool(rows), "file", f"{files[0]} without a step that has a loss or a reward", "a log with a row a step")
    table = pd.DataFrame(rows)
    repeated = int(table.step.duplicated(keep="last").sum())
    table = table.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True).dropna(axis=1, how="all")
    log = Log("steps", steps=table, length_unit="tokens" if "length" in table else None)
    log.notes.append("one row a step: groups and responses are not in it")
    if repeated:
        log.notes.append(f"{repeated} steps are there twice; the later row counts, as after a resumed run")
    return log
