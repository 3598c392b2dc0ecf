"""Kill -9 at random moments of the real notebooks' smoke profile: whatever is finished is whole, and the rest resumes.

Six kills by default, every other one together with its kernels; RLVR_KILLS sets another number.
"""

import os
import random
import subprocess
import sys
import time

import pytest
from conftest import PATIENCE, ROOT

from rlvr_lib.reproduction.notebooks import notebook_names
from rlvr_lib.reproduction.results import Result
from tests.attack.kills import kill

KILLS = int(os.environ.get("RLVR_KILLS", "6"))
LONGEST = 45.0


def reproduce(out, *options):
    command = [sys.executable, "-m", "rlvr_lib", "reproduce", "--profile", "smoke", "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def story(claims):
    """What a claim says, without its run time."""
    return [claim.model_dump(exclude={"runtime_s"}) for claim in claims]


@pytest.mark.slow
def test_kills_leave_nothing_corrupt_and_lose_nothing_finished(tmp_path):
    moments, results = (
        random.Random(1),
        [Result(tmp_path, name, "smoke") for name in notebook_names(ROOT / "notebooks")],
    )
    finished = {}
    for number in range(KILLS):
        # Once all is finished only a forced run can be killed at work; it must leave the old results whole.
        forced = ["--fresh"] if len(finished) == len(results) else []
        child = reproduce(tmp_path, *forced)
        time.sleep(moments.uniform(0.5, LONGEST))
        kill(child, with_children=number % 2 == 1)
        for result in results:
            if result.stamp_file.exists():
                assert result.stamp(), f"after kill {number} a stamp vouches for files that are not whole"
                finished.setdefault(result.name, story(result.claims()))
            assert result.name not in finished or result.stamp(), f"kill {number} lost a finished notebook"
    assert reproduce(tmp_path).wait(timeout=PATIENCE) == 0
    for result in results:
        assert finished.get(result.name, story(result.claims())) == story(result.claims())
