"""What ``rlvr measure`` says about a log: advice with numbers, as text, JSON, a picture and a page."""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlvr_lib.arguments import require
from rlvr_lib.theory.meter import Rule

Report = dict[str, Any]
SHARES = {"grpo_gain_sample_std": "gain left, GRPO", "dr_grpo_gain": "gain left, Dr.GRPO", "dead_groups": "dead groups"}
SAID = {
    "loss": "the median |loss| went from {before:.3g} to {now:.3g}: wrong responses surprise the policy that "
    "writes them. Stop, go back to a checkpoint before, and halve the learning rate at least",
    "success": "success fell from {before:.3f} to {now:.3f}: the learning rate is too high, or the data have changed. "
    "Go back to a checkpoint before, and halve the rate at least",
    "length": "the median length went from {before:.3g} to {now:.3g} while success fell: look at the responses",
}


def advice(report: Report) -> list[str]:
    """Sentences, each with its numbers, the most pressing first."""
    said = [f"step {alarm['step']}: {SAID[alarm['kind']].format(**alarm)}." for alarm in report["alarms"]]
    rule = Rule()
    if not said and report["steps"] is not None and report["steps"] < rule.window + 3 * rule.fewest:
        said.append(f"No alarm could be raised: {report['steps']} steps are too few to be compared with their past.")
    if report["groups"]:
        said += _of_groups(report)
    if (cut := report["truncated"]) is not None and cut > 0.05:
        said.append(f"{cut:.1%} of the responses are cut off at the limit and mostly fail: raise it, or mask them.")
    for harder in reversed(report["levels"] or []):
        if 0 < harder["success_rate"] < 1 and isinstance(harder["level"], int | float) and harder["level"] > 0:
            ratio = math.log(0.1) / math.log(harder["success_rate"])
            if ratio > 1:
                said.append(
                    f"Level {harder['level']:g} succeeds at {harder['success_rate']:.2f}: if levels are horizons, the "
                    f"next is visible (success 0.1) up to {ratio:.2f} times as long, {ratio * harder['level']:.3g}."
                )
            break
    return said


def _of_groups(report: Report) -> list[str]:
    said, dead, size = [], report["dead_groups"], report["group_size"]
    if dead == 1:
        said.append("All groups are dead: no response has an advantage, and nothing is learned from the reward.")
    elif dead > 0:
        said.append(
            f"{dead:.1%} of the groups are dead ({report['all_failed']:.1%} all failed, {report['all_solved']:.1%} all "
            f"solved): dynamic sampling would draw {1 / (1 - dead):.2f} times the prompts to fill a batch."
        )
    tried, never, always = (report[f"prompts_{name}"] for name in ("tried", "never", "always"))
    if never + always:
        said.append(
            f"{never} of {tried} prompts were never solved and {always} always: leaving them out would spare "
            f"{report['share_unanimous']:.1%} of the responses. Few tries a prompt prove little, so look again later."
        )
    table = {row["group_size"]: row for row in report["group_sizes"]}
    here, twice = table.get(size), table.get(2 * size)
    if here and twice and (left := here["grpo_gain_sample_std"]):
        more, live = twice["grpo_gain_sample_std"] / left - 1, (1 - here["dead_groups"], (1 - twice["dead_groups"]) / 2)
        better = "twice the prompts are the better buy" if live[0] > live[1] else "the larger group is the better buy"
        said.append(
            f"From {size} to {2 * size} responses a group: gain {more:+.1%}, dead groups {here['dead_groups']:.1%} to "
            f"{twice['dead_groups']:.1%}; live groups per {size} responses {live[0]:.2f} and {live[1]:.2f}, "
            f"so {better}."
        )
    if here and here["std_boost"]:
        said.append(
            f"Dividing by the standard deviation multiplies the step by {here['std_boost']:.2f} here, so a rate that "
            "was found with it is too small by as much without it."
        )
    lengths = report["length"]
    if lengths["correct"] and lengths["wrong"]:
        ratio = lengths["wrong"] / lengths["correct"]
        said.append(
            f"Wrong responses are {ratio:.2f} times as long as correct ones: with 1/length (an option, and not the "
            f"default of TRL or verl) a token of theirs counts {1 / ratio:.2f} times as much."
        )
    if (drift := report["drift"]) is not None:
        change, error = drift["change"], drift["error"]
        told = "is told from chance" if error is not None and abs(change) > 3 * error else "is not told from chance"
        within = f"{report['within_quarters_std']:.3f}"
        said.append(
            f"Success changed by {change:+.3f}"
            + ("" if error is None else f" +- {error:.3f}")
            + f" from the first quarter to the last, which {told}; prompts of one quarter differ by {within}, "
            f"those of the whole log by {report['between_prompts_std']:.3f}."
        )
    return said


def to_json(report: Report) -> str:
    """The report as one object of JSON; numbers that are not finite are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): plain(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(report), indent=1, allow_nan=False)


def _tables(report: Report) -> dict[str, pd.DataFrame]:
    prompts = pd.DataFrame(report["prompts"])
    tables = {
        "by quarter of the steps": pd.DataFrame(report["quarters"] or []),
        "by group size": pd.DataFrame(report["group_sizes"]),
        "by prompt, the hardest first": prompts.sort_values("success_rate") if len(prompts) else prompts,
        "by level": pd.DataFrame(report["levels"] or []),
    }
    return {name: table for name, table in tables.items() if len(table)}


def _said(report: Report) -> str:
    if not report["groups"]:
        return f"{report['steps']} steps, without their responses"
    return f"{report['responses']} responses in {report['groups']} groups of {report['group_size']} (median)"


def _numbers(report: Report) -> dict[str, str]:
    hidden = {"groups", "responses", "group_size", "success", "share_unanimous"}
    numbers = {name: value for name, value in report.items() if isinstance(value, int | float) and name not in hidden}
    numbers |= {f"length, {name}": value for name, value in (report["length"] or {}).items() if value is not None}
    shown = {name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in numbers.items()}
    for name in ("success_rate", "dead_groups", "success_std"):
        if (error := report.get(f"{name}_error")) is not None and name in shown:
            shown[name] += f" +- {error:.3f}"
            shown.pop(f"{name}_error")
    return shown


def to_text(report: Report) -> str:
    """What was read, the advice, the numbers, and tables by quarter, group size, prompt and level."""
    said = [_said(report), *(f"note: {note}" for note in report["notes"]), ""]
    said += [f"- {sentence}" for sentence in report["advice"]] + [""]
    numbers = _numbers(report)
    width = max(map(len, numbers), default=0)
    said += [f"{name:<{width}}  {value}" for name, value in numbers.items()]
    for name, table in _tables(report).items():
        text = table.to_string(index=False, float_format="{:.3f}".format, max_rows=20, max_colwidth=40)
        said += ["", name, text]
    return "\n".join(said)


def to_html(report: Report) -> str:
    """A page that stands alone: no script, nothing loaded, and every text of the log escaped."""

    def escaped(value: object) -> str:
        return html.escape(str(value), quote=True)

    rows = "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in _numbers(report).items()
    )
    parts = [f"<h1>{escaped(_said(report))}</h1>"]
    parts += [f"<p class=note>{escaped(note)}</p>" for note in report["notes"]]
    kind = "alarm" if report["alarms"] else "calm"
    parts.append(f"<ul class={kind}>{''.join(f'<li>{escaped(one)}</li>' for one in report['advice'])}</ul>")
    picture = io.StringIO()
    _figure(report).savefig(picture, format="svg", bbox_inches="tight")
    svg = picture.getvalue()
    parts += [f"<figure>{svg[svg.index('<svg') :]}</figure>", f"<table>{rows}</table>"]
    for name, table in _tables(report).items():
        body = table.head(200).to_html(index=False, escape=True, float_format="{:.3f}".format, border=0, na_rep="")
        parts += [f"<h2>{escaped(name)}</h2>", f"<div class=wide>{body}</div>"]
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "body{color:#222;background:#fff}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}.wide{overflow-x:auto}"
        "svg{max-width:100%;height:auto}ul.alarm li:first-child{font-weight:bold}.note{color:#555}"
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>rlvr measure</title>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}{policy}<style>{style}</style></head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def draw(report: Report, file: Path) -> None:
    """Draw the report into a picture."""
    require(file.suffix in (".png", ".pdf", ".svg"), "plot", str(file), "a file name ending in .png, .pdf or .svg")
    figure = _figure(report)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, bbox_inches="tight")


def _figure(report: Report) -> Any:
    """Success over steps with alarms; prompts by success; what a larger group leaves. Without responses, the loss."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    from rlvr_lib import figures

    figures.set_style()
    curve = report["curve"]
    panels = [name for name, wanted in (("curve", curve), ("prompts", report["prompts"]),
              ("sizes", report["group_sizes"]), ("loss", curve and "loss" in curve)) if wanted]  # fmt: skip
    figure, axes = plt.subplots(1, max(len(panels), 1), figsize=(4.2 * max(len(panels), 1), 3.2), layout="constrained")
    at = dict(zip(panels, np.atleast_1d(axes), strict=False))
    if "curve" in at:
        _curve(at["curve"], curve, "success", "success rate", report["alarms"])
        at["curve"].set_ylim(-0.02, 1.02)
    if "loss" in at:
        _curve(at["loss"], curve, "loss", "median |loss| of steps with a signal", report["alarms"])
        if (np.asarray(curve["loss"], dtype=float) > 0).any():
            at["loss"].set_yscale("log")
    if "prompts" in at:
        at["prompts"].hist([row["success_rate"] for row in report["prompts"]], bins=np.linspace(0, 1, 17))
        at["prompts"].set(xlabel="success rate of a prompt", ylabel="prompts", xlim=(0, 1))
    if "sizes" in at:
        table, axis = pd.DataFrame(report["group_sizes"], dtype=float), at["sizes"]
        for name, label in SHARES.items():
            axis.plot(table.group_size, table[name], marker="o", label=label)
        axis.axvline(report["group_size"], color="0.6", linewidth=1, zorder=0)
        axis.set_xscale("log", base=2)
        ticks = [int(size) for size in table.group_size if math.log2(size).is_integer()]
        axis.set_xticks(ticks, map(str, ticks))
        axis.set(xlabel="group size", ylabel="share", ylim=(-0.02, 1.02))
        axis.legend(frameon=False)
    plt.close(figure)
    return figure


def _curve(axis: Any, curve: dict[str, Sequence], name: str, label: str, alarms: list[dict]) -> None:
    value = np.asarray(curve[name], dtype=float)
    axis.plot(curve["step"], value, marker="o" if len(value) < 40 else "", markersize=3)
    if f"{name}_error" in curve:
        error = np.asarray(curve[f"{name}_error"], dtype=float)
        axis.fill_between(curve["step"], value - error, value + error, alpha=0.25, linewidth=0)
    for alarm in alarms:
        axis.axvline(alarm["step"], color="tab:red", linestyle="--", linewidth=1)
        axis.annotate(alarm["kind"], (alarm["step"], 0.98), xycoords=("data", "axes fraction"), ha="right", va="top",
                      color="tab:red", rotation=90, fontsize="small")  # fmt: skip
    axis.set(xlabel="step", ylabel=label)
