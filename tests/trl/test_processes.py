"""Two processes measure, and follow, what one does: torchrun with gloo, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT

RUNS = int(os.environ.get("RLVR_PROCESS_RUNS", "3"))
PROMPTS, SIZE = (3, 20, 31), 4
"""Three groups of four on two processes: the second group lies on both."""


def torchrun(processes, *arguments):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), *arguments
    ]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same stored responses for every number of processes, for two steps and two fresh rollouts."""
    from trl_runs import replayed, warm

    _, replay, task = replayed(warm(), PROMPTS, SIZE, sets=4)
    folder = tmp_path_factory.mktemp("processes")
    stored = {
        "prompts": replay.prompts, "tokens": replay.tokens, "mask": replay.mask, "group_size": SIZE,
        "data": {name: list(task.data[name]) for name in task.data.column_names}, "loss_type": "dapo",
    }  # fmt: skip
    torch.save(stored, folder / "rollout.pt")
    ran = torchrun(1, ROOT / "tests" / "two_processes.py", folder)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


@pytest.mark.parametrize("run", [0, *(pytest.param(run, marks=pytest.mark.slow) for run in range(1, RUNS))])
def test_two_processes_are_one(folder: Path, run):
    (folder / "2.pt").unlink(missing_ok=True)
    ran = torchrun(2, ROOT / "tests" / "two_processes.py", folder)
    assert ran.returncode == 0, ran.stderr[-3000:]
    one, two = torch.load(folder / "1.pt"), torch.load(folder / "2.pt")
    for name in ("gradient", "parameters"):
        difference = (one[name] - two[name]).norm() / one[name].norm()
        assert difference < 1e-5, name
    assert [entry.get("rlvr/world_size") for entry in two["logs"]] == [2, None]
    assert len(one["logs"]) == len(two["logs"]) == 2
    for alone, together in zip(one["logs"], two["logs"], strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {"rlvr/world_size"}:
            if alone[name] is None:
                assert together[name] is None, name
            else:
                assert together[name] == pytest.approx(alone[name], rel=2e-3, abs=1e-6), name
    assert one["logs"][0]["rlvr/gap_alignment"] is not None
