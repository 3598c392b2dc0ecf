"""The ``rlvr`` command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

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


def _settings(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--set must be name=value, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Notebooks; all when none is named.")
    ] = None,
    profile: Annotated[str, typer.Option(help="smoke, book, full or paper.")] = "book",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a parameter.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("_build/reproduced"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Execute also what is up to date.")] = False,
) -> None:
    """Execute notebooks through papermill and compare their claims with the published ones.

    Exit code 0: done; 1: a notebook failed, a check accepted a sabotage, or a verdict differs from the published one;
    2: bad input; 130: interrupted. A contradicted claim is a result, not a failure.
    """
    from rlvr_lib import reproduce as driver
    from rlvr_lib import results
    from rlvr_lib.notebooks import project_root, resolve

    root = project_root()
    parameters = resolve(names or [], profile, _settings(set_ or []), root / "notebooks")
    failures = driver.reproduce(parameters, root, out.absolute(), jobs, fresh, report=typer.echo)
    wrong = [name for name, message in failures.items() if message]
    agreeing = total = 0
    for name in (name for name in parameters if name not in wrong):
        result, published = results.Result(out, name, profile), results.Result(root / "results", name, profile)
        lines = results.accepted_sabotages(result)
        if published.files["claims"].is_file():
            n, m, differing = results.compare(result, published)
            agreeing, total, lines = agreeing + n, total + m, lines + differing
        for line in lines:
            typer.echo(line, err=True)
        wrong += lines
    if total:
        typer.echo(f"agrees with the published results: {agreeing} of {total}")
    else:
        typer.echo(f"no results are published for the profile {profile}")
    raise typer.Exit(FAILED if wrong else DONE)


@app.command()
def claims(
    json: Annotated[bool, typer.Option("--json", help="The claims as a JSON list.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of results; default: the published ones.")] = None,
) -> None:
    """Print the ledger: every claim of every finished result in a folder."""
    from rlvr_lib.claims import to_json
    from rlvr_lib.notebooks import project_root
    from rlvr_lib.results import finished_results

    found = [claim for result in finished_results(out or project_root() / "results") for claim in result.claims()]
    if json:
        typer.echo(to_json(found), nl=False)
        return
    for claim in found:
        typer.echo(f"[{claim.id}, {claim.testbed}, {claim.profile}] {claim!r}")
    typer.echo(
        f"{len(found)} claims; chance that any sampled one fails falsely: {sum(c.false_alarm for c in found):.1e}"
    )


@app.command()
def doctor() -> None:
    """Say what this installation runs on: versions, cores, GPU, caches, kernel, browser."""
    from rlvr_lib.doctor import findings

    for name, finding in findings().items():
        typer.echo(f"{name:>14}: {finding}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for metrics.jsonl, the trained model and checkpoints.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps in all; an interrupted run goes on from its checkpoint.")],
    model: Annotated[str, typer.Option(help="tiny, a folder with a checkpoint, or a name on the hub.")] = "tiny",
    task: Annotated[str, typer.Option(help="word (group word problem) or many (many correct answers).")] = "word",
    engine: Annotated[str, typer.Option(help="builtin: the loop in plain sight.")] = "builtin",
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and responses.")] = 0,
    group_size: Annotated[int, typer.Option(min=2, help="Responses to a prompt.")] = 16,
    estimator: Annotated[
        str, typer.Option(help="reinforce, dr_grpo, rloo, grpo, grpo_variance or grpo_batch.")
    ] = "grpo",
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Of the optimizer.")] = 0.02,
    length_normalize: Annotated[bool, typer.Option(help="Weight each response with its inverse length.")] = False,
) -> None:
    """Train with GRPO and log, for every step, what the theory says about it.

    Each line of metrics.jsonl has success_rate, gap_alignment, gradient_snr, critical_learning_rate and
    optimal_baseline, measured on a rollout that the step did not use; what is undefined there is null.
    """
    if engine != "builtin":
        raise ValueError(f"engine must be builtin in this version, got {engine!r}")
    from rlvr_lib.files import require_writable
    from rlvr_lib.testbeds.diagnostics import train_builtin
    from rlvr_lib.testbeds.grpo import GRPO

    require_writable(out)
    settings = GRPO(
        group_size=group_size,
        estimator=estimator,
        optimizer=optimizer,
        learning_rate=learning_rate,
        length_normalize=length_normalize,
    )
    records = train_builtin(task, steps, out, seed, model, settings, progress=True)
    first, last = records[0]["success_rate"], records[-1]["success_rate"]
    typer.echo(f"success {first:.2f} in the first step, {last:.2f} in the last; see {out / 'metrics.jsonl'}")


@app.command()
def z96(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, metrics.jsonl and report.json.")],
    horizons: Annotated[str, typer.Option(help="Chain lengths of the mixture, such as 5,15,45 or 5,35.")] = "5,15,45",
    updates: Annotated[
        int, typer.Option(min=1, help="In all; an interrupted run goes on from its checkpoint.")
    ] = 40000,
    batch: Annotated[int, typer.Option(min=1, help="Prompts an update.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of head, prompts and responses.")] = 0,
) -> None:
    """Train attention on chains over Z_96 at the published settings of the relay paper (chapter 3), and report.

    40,000 updates take one to two hours on one core. The folder keeps a checkpoint of every 200 updates.
    """
    from rlvr_lib.files import require_writable
    from rlvr_lib.testbeds.z96 import Settings, train

    lengths = horizons.split(",")
    if not all(length.strip().isdigit() for length in lengths):
        raise ValueError(f"horizons must be whole numbers separated by commas, got {horizons!r}")
    settings = Settings(horizons=tuple(map(int, lengths)), batch=batch)
    require_writable(out)
    report = train(settings, seed, updates, out)
    typer.echo(f"{report['updates']} updates of seed {seed}")
    for k, horizon in enumerate(report["horizons"]):
        final = {name: values[k] for name, values in report["final"].items()}
        typer.echo(
            f"horizon {horizon}: greedy success {final['greedy']:.3f}, all steps right {final['right_paths']:.3f}, "
            f"visible at {report['visible'][k]}, mastered at {report['mastered'][k]}"
        )
