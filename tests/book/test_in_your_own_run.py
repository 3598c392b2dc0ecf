"""The page "in your own run": its commands and its script are run as they are printed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import PATIENCE, ROOT

from rlvr_lib.trl.reward_watch import UNSEEN
from rlvr_lib.trl.step import Along, Groups, Scores

PAGE = (ROOT / "book" / "in_your_own_run.md").read_text()


def test_the_example_runs_as_printed(tmp_path):
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.M | re.S)
    assert [language for language, _ in blocks] == ["bash", "python", "bash", "bash", "python"]
    script = []
    for language, text in blocks:
        script.append(text if language == "bash" else f"python - <<'END_OF_SCRIPT'\n{text}END_OF_SCRIPT\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    lines = (tmp_path / "runs/first/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]
    assert "rlvr/gap_alignment" in ran.stdout
    assert "scores were taken of all: 75,136 numbers" in ran.stdout
    assert "groups of 8" in ran.stdout
    assert re.search(r"^0\.\d\d of the critical rate, error 0\.\d\d$", ran.stdout, re.M)
    assert (tmp_path / "runs/groups.png").stat().st_size > 5000
    assert "<svg" in (tmp_path / "runs/groups.html").read_text()
    assert json.loads((tmp_path / "runs/groups.json").read_text())["groups"] > 0


def test_every_number_is_explained():
    import numpy as np

    groups = Groups(np.full(3, 4.0), np.arange(1.0, 4.0))
    along = Along(groups, *np.ones((2, 3)), np.eye(3), 1.0, 1.0)
    scores = Scores(groups, *np.ones((3, 3)), np.eye(3), np.eye(3))
    for name in {*groups.values(), *along.values(), *scores.values(), *UNSEEN}:
        assert f"`{name}`" in PAGE, name
