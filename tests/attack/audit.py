"""Ask an advisory service about every pinned dependency; say so loudly where none answers."""

import json
import subprocess
import sys

from tests.attack.common import ROOT

COMMAND = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
FILES = [
    part for name in ("requirements.txt", "requirements-tools.txt") for part in ("--requirement", str(ROOT / name))
]
LIMIT = 180
"""Seconds after which the service counts as not answering."""


def ask() -> tuple[list[dict], str]:
    """What the service says about each dependency, or why it says nothing."""
    command = [sys.executable, *COMMAND, *FILES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        return json.loads(done.stdout)["dependencies"], ""
    except subprocess.TimeoutExpired:
        return [], f"no answer within {LIMIT} seconds"
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["no output"])[-1]


def run() -> None:
    """Print what is known; exit code 1 where a pin has a known vulnerability, never for lack of a network."""
    dependencies, trouble = ask()
    answered = [found for found in dependencies if "skip_reason" not in found]
    unknown = [found["name"] for found in dependencies if "skip_reason" in found]
    if not answered:
        reason = trouble or "it knows none of the pinned versions"
        print(f"AUDIT SKIPPED: the advisory service did not answer ({reason}); no dependency was audited")
        return
    print(f"audited {len(answered)} of {len(dependencies)} pinned dependencies")
    if unknown:
        print(f"NOT AUDITED, unknown to the advisory service: {', '.join(unknown)}")
    known = [(found, advisory) for found in answered for advisory in found["vulns"]]
    for found, advisory in known:
        fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
        print(f"VULNERABLE: {found['name']} {found['version']}: {advisory['id']}, fixed in {fixed}")
    if known:
        sys.exit(1)
