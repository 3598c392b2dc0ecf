"""The ``rlvr`` command."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Reproduce the companion to the theory of RLVR, and use its measurements.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """Entry point: bad input is one line and exit code 2, an interrupt exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            typer.echo("rlvr: interrupted; what is finished is kept, and the same command goes on from there", err=True)
        raise
    except (ValueError, OSError) as error:
        typer.echo(f"rlvr: {error}", err=True)
        sys.exit(BAD_INPUT if isinstance(error, ValueError) else FAILED)


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Notebooks, such as 02 or evidence/02; default: all.")
    ] = None,
    profile: Annotated[str, typer.Option(help="smoke, book, full or paper.")] = "book",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a parameter.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("_build/reproduced"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Execute also what is up to date.")] = False,
) -> None:
    """Execute notebooks through papermill and compare their claims with the published ones.

    Exit code 0: done; 1: a notebook failed, a check accepted a sabotage, or an outcome differs from the published one;
    2: bad input; 130: interrupted. A contradicted claim is a result, not a failure.
    """
    from rlvr_lib.arguments import require
    from rlvr_lib.reproduction import driver, results
    from rlvr_lib.reproduction.notebooks import project_root, resolve

    require(all("=" in pair for pair in set_ or []), "--set", set_, "name=value")
    root, settings = project_root(), dict(pair.split("=", 1) for pair in set_ or [])
    parameters = resolve(names or [], profile, settings, root / "notebooks")
    failures = driver.reproduce(parameters, root, out.absolute(), jobs, fresh, report=typer.echo)
    wrong = [name for name, message in failures.items() if message]
    agreeing = total = 0
    for name in (name for name in parameters if not failures[name]):
        result, published = results.Result(out, name, profile), results.Result(root / "results", name, profile)
        wrong += results.accepted_sabotages(result)
        if published.files["claims"].is_file():
            n, m, differing = results.compare(result, published)
            agreeing, total, wrong = agreeing + n, total + m, wrong + differing
    for line in wrong:
        if line not in failures:
            typer.echo(line, err=True)
    agreement = f"agrees with the published results: {agreeing} of {total}"
    typer.echo(agreement if total else f"no results are published for the profile {profile}")
    raise typer.Exit(FAILED if wrong else DONE)


@app.command()
def claims(
    json: Annotated[bool, typer.Option("--json", help="The claims as a JSON list.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of results; default: the published ones.")] = None,
) -> None:
    """Print the ledger: every claim of every finished result in a folder."""
    from rlvr_lib.claims import to_json
    from rlvr_lib.reproduction.notebooks import project_root
    from rlvr_lib.reproduction.results import finished_results

    found = [claim for result in finished_results(out or project_root() / "results") for claim in result.claims()]
    if json:
        typer.echo(to_json(found), nl=False)
        return
    for claim in found:
        typer.echo(f"[{claim.id}, {claim.testbed}, {claim.profile}, {claim.lane}] {claim!r}")
    rate = sum(claim.false_alarm for claim in found if claim.judged)
    typer.echo(f"{len(found)} claims; false-alarm rates of those judged sum to {rate:.1e}")


@app.command()
def doctor() -> None:
    """Say what this installation runs on: versions, cores, GPU, kernel, browser."""
    import torch

    from rlvr_lib.reproduction import driver, provenance

    try:
        driver.require_kernel()
        kernel = "installed"
    except ValueError as error:
        kernel = str(error)
    found = {
        **provenance.versions(),
        **provenance.hardware(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; nothing in the book needs one",
        "kernel": kernel,
        "browser": browser() or "none; the tests of the built book are skipped (install chromium)",
    }
    for name, finding in found.items():
        typer.echo(f"{name:>14}: {finding}")


def browser() -> str | None:
    """Path of an installed Chromium, which the tests of the built book use."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@app.command()
def measure(
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs of a log; see the book.")],
    format: Annotated[str, typer.Option(help="Of the log: auto, steps, ours, trl, verl, …; see the book.")] = "auto",
    reward: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="A reward column; given again, they are added.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Rewards of at least this are a success.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything, as one object of JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this file (.png, .pdf or .svg).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page into this file.")] = None,
) -> None:
    """Say what the theory says about a log of a run, and what to do: no model is needed.

    An alarm is a finding, not a failure: the exit code is 0.
    """
    from rlvr_lib.trl import report as reporting
    from rlvr_lib.trl.formats import read
    from rlvr_lib.trl.logs import measure as measured

    report = measured(read(files, format, reward, threshold))
    typer.echo(reporting.to_json(report) if json else reporting.to_text(report))
    if plot is not None:
        reporting.draw(report, plot)
    if html is not None:
        from rlvr_lib.files import write_whole

        write_whole(html, reporting.to_html(report).encode("utf-8", "replace"))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for metrics.jsonl, the trained model and checkpoints.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps in all; an interrupted run goes on from its checkpoint.")],
    model: Annotated[str, typer.Option(help="tiny, a folder with a checkpoint, or a name on the hub.")] = "tiny",
    task: Annotated[
        str,
        typer.Option(help="group-word (or word), many; with the engine trl also text, gsm8k, math or a .jsonl file."),
    ] = "word",
    engine: Annotated[
        str, typer.Option(help="builtin: the loop in plain sight; trl: any model, any machine.")
    ] = "builtin",
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and responses.")] = 0,
    group_size: Annotated[int, typer.Option(min=2, help="Responses to a prompt.")] = 16,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of the optimizer.")] = 0.02,
    estimator: Annotated[
        str, typer.Option(help="builtin: reinforce, dr_grpo, rloo, grpo, grpo_variance or grpo_batch.")
    ] = "grpo",
    optimizer: Annotated[str, typer.Option(help="builtin: sgd, adam or adamw.")] = "sgd",
    length_normalize: Annotated[
        bool, typer.Option(help="builtin: weight each response with its inverse length.")
    ] = False,
    arguments: Annotated[
        Path | None, typer.Option(help="trl: YAML file of its options; options given here win.")
    ] = None,
    world_size: Annotated[
        int | None, typer.Option(min=1, help="trl: refuse to run on another number of processes.")
    ] = None,
) -> None:
    """Train with GRPO and log, for every step, what the theory says about it.

    Each line of metrics.jsonl has success_rate, gap_alignment, gradient_snr, critical_learning_rate and
    optimal_baseline, measured on a rollout that the step did not use; what is undefined there is null.

    The engine trl also takes every option of trl.GRPOConfig, and --data, --prompt, --lora, --every, --no-fresh,
    --scores, --no-along, --success-threshold, --baseline, --snr-rate, --limit, --beyond and --errors: see the book's
    page on your own run.
    """
    if engine not in ("builtin", "trl"):
        raise ValueError(f"engine must be builtin or trl, got {engine!r}")
    from rlvr_lib.files import require_writable

    require_writable(out)
    given = {
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    other = {"arguments", "world_size"} if engine == "builtin" else {"estimator", "optimizer", "length_normalize"}
    foreign = ["--" + name.replace("_", "-") for name in sorted(given & other)]
    if engine == "builtin":
        if foreign := foreign + context.args:
            raise ValueError(f"{foreign[0]} must be left out, or used with --engine trl")
        from rlvr_lib.testbeds.grpo import GRPO
        from rlvr_lib.testbeds.measured_run import train_builtin

        settings = GRPO(
            group_size=group_size,
            estimator=estimator,
            optimizer=optimizer,
            learning_rate=learning_rate,
            length_normalize=length_normalize,
        )
        name = "word" if task == "group-word" else task
        records = train_builtin(name, steps, out, seed, model, settings, prompts, progress=True)
    else:
        if foreign:
            raise ValueError(f"{foreign[0]} must be left out: TRL has --scale_rewards, --optim and --loss_type")
        from rlvr_lib.trl import run as trl_run
        from rlvr_lib.trl.rollouts import RunFailed

        shared: dict[str, Any] = {"group_size": group_size, "prompts": prompts, "learning_rate": learning_rate}
        shared = {name: value for name, value in shared.items() if name in given}
        run = trl_run.Run(task, model, steps, seed, **shared, options=context.args, arguments_file=arguments,
                          world_size=world_size)  # fmt: skip
        try:
            records = trl_run.train_trl(run, out)
        except RunFailed as failed:
            typer.echo(f"rlvr: {failed}", err=True)
            raise typer.Exit(FAILED) from None
    first, last = records[0]["success_rate"], records[-1]["success_rate"]
    typer.echo(f"success {first:.2f} in the first step, {last:.2f} in the last; see {out / 'metrics.jsonl'}")


@app.command()
def z96(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics.jsonl and report.json.")],
    horizons: Annotated[str, typer.Option(help="Chain lengths of the mixture, such as 5,15,45 or 5,35.")] = "5,15,45",
    updates: Annotated[int, typer.Option(min=1, help="In all; an interrupted run goes on.")] = 40000,
    batch: Annotated[int, typer.Option(min=1, help="Prompts an update.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of head, prompts and responses.")] = 0,
    group: Annotated[str, typer.Option(help="Z96 as published, or another: Zn, Dn, Sn, An.")] = "Z96",
) -> None:
    """Train attention on chains over Z_96 at the published settings of the relay paper (chapter 3), and report.

    40,000 updates take half an hour to an hour on one core. The folder keeps a checkpoint of every 200 updates.
    """
    from rlvr_lib.arguments import require
    from rlvr_lib.files import require_writable
    from rlvr_lib.studies.published_relay import Settings, train

    whole = all(length.strip().isdigit() for length in horizons.split(","))
    require(whole, "horizons", horizons, "whole numbers separated by commas")
    settings = Settings(horizons=tuple(map(int, horizons.split(","))), group=group, batch=batch)
    require_writable(out)
    report = train(settings, seed, updates, out)
    typer.echo(f"{report['updates']} updates of seed {seed}")
    for k, horizon in enumerate(report["horizons"]):
        final = {name: values[k] for name, values in report["final"].items()}
        typer.echo(
            f"horizon {horizon}: greedy success {final['greedy']:.3f}, all steps right {final['right_paths']:.3f}, "
            f"visible at {report['visible'][k]}, mastered at {report['mastered'][k]}"
        )


@app.command()
def z96_report(folders: Annotated[list[Path], typer.Argument(help="Folders of z96 runs, finished or not.")]) -> None:
    """Print what runs of z96 have reached, as the JSON of the library's data/z96.json."""
    import json

    from rlvr_lib.reproduction.provenance import hardware, versions
    from rlvr_lib.studies.published_relay import collect

    found = collect(folders) | {"versions": versions(), "hardware": hardware()}
    typer.echo(json.dumps(found, sort_keys=True))


@app.command()
def pooled(
    out: Annotated[Path, typer.Option(help="JSON lines, one finished run each; the same command goes on from it.")],
    optimizers: Annotated[str, typer.Option(help="sgd, adamw or both, separated by commas.")] = "sgd,adamw",
    checkpoints: Annotated[int, typer.Option(min=1, help="Warm starts, of seeds 0, 1 and so on.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of a run.")] = 100,
    part: Annotated[str, typer.Option(metavar="K/N", help="The K-th of N processes that share the file.")] = "1/1",
) -> None:
    """Train the text model around its pooled critical rate, and print which runs died.

    A checkpoint's warm start takes about two minutes of one core, and its runs about an hour; see the study.
    """
    from rlvr_lib.arguments import require
    from rlvr_lib.studies.pooled import PILOT_RATES, Plan, carry_out, outcomes, table
    from rlvr_lib.trl.text_runs import run_text

    index, slash, parts = part.partition("/")
    whole = slash == "/" and index.isdigit() and parts.isdigit() and 1 <= int(index) <= int(parts)
    require(whole, "part", part, "K/N with K from 1 to N")
    chosen = tuple(name.strip() for name in optimizers.split(","))
    rates = tuple(PILOT_RATES.get(name, 1.0) for name in chosen)
    plan = Plan(optimizers=chosen, pilot_rates=rates, checkpoints=tuple(range(checkpoints)), steps=steps)

    def say(record: dict[str, Any]) -> None:
        typer.echo(f"{record['run']}: success {record['success'][-1]:.3f} after {record['seconds']:.0f} s", err=True)

    found = carry_out(plan, out, run_text, (int(index) - 1, int(parts)), say)
    typer.echo(table(outcomes(found, plan)))


@app.command()
def ladder(
    out: Annotated[
        Path, typer.Option(help="JSON lines, a measured checkpoint each; the same command goes on from it.")
    ],
    rungs: Annotated[str, typer.Option(help="Of 20k, 75k, 300k, 1.2M, 4.7M, or checkpoints: folders, hub names.")] = (
        "20k,75k,300k"
    ),
    checkpoints: Annotated[int, typer.Option(min=1, help="Warm starts of a rung, of seeds 0, 1 and so on.")] = 4,
    noise: Annotated[float, typer.Option(help="Of the warm start's teacher, which sets the success.")] = 0.25,
    prompts: Annotated[int, typer.Option(help="Words of a checkpoint, 4 to 36.")] = 12,
    part: Annotated[str, typer.Option(metavar="K/N", help="The K-th of N processes that share the file.")] = "1/1",
    report: Annotated[Path | None, typer.Option(help="Write rungs and predictions here, as JSON.")] = None,
) -> None:
    """Measure the quantities of the chapters on Qwens of several sizes, and print what carries over.

    A checkpoint takes from half a minute (20k) to many minutes (1.2M) of one core; see the study.
    """
    import json

    from rlvr_lib.arguments import require
    from rlvr_lib.studies.scale import Plan, carry_out, collect, table, times

    index, slash, parts = part.partition("/")
    whole = slash == "/" and index.isdigit() and parts.isdigit() and 1 <= int(index) <= int(parts)
    require(whole, "part", part, "K/N with K from 1 to N")
    plan = Plan(tuple(name.strip() for name in rungs.split(",")), tuple(range(checkpoints)), noise, prompts)

    def say(record: dict[str, Any]) -> None:
        done = f"{record['rung']}, seed {record['seed']}: success {record['quantities']['success']:.3f}"
        typer.echo(f"{done} after {record['seconds']['measured']:.0f} s", err=True)

    found = collect(list(carry_out(plan, out, (int(index) - 1, int(parts)), say).values()))
    if report is not None:
        found["times"] = times()
        report.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    typer.echo(table(found))
