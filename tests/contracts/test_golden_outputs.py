"""Every command says of the shipped studies and cases what it said, through any rebuild."""

import os
import subprocess
import sys

import pytest

from golden_outputs import OUTPUTS, SUBJECTS, TESTS, Outputs, differences

QUICK = {"total-params.csv"}
"""Seconds of work. A study takes longer, and a report a quarter of a minute."""


@pytest.mark.parametrize(
    "subject",
    [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in SUBJECTS],
)
def test_what_was_said_is_said(subject):
    command = [sys.executable, "-m", "golden_outputs", "--compare", subject]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout[:4000]) == (0, ""), done.stderr[-2000:]


def test_a_difference_is_seen():
    kept = Outputs({"fit": "a\nb\n"}, {"fit": {"low": 1.0, "name": "x"}, "t.csv": [["1.0", "y"]]})
    near = Outputs(
        dict(kept.texts), {"fit": {"low": 1 + 1e-10, "name": "x"}, "t.csv": [["1", "y"]]}
    )
    assert not list(differences(kept, near))
    far = Outputs({"fit": "a\nc\n"}, {"fit": {"low": 1.001, "high": 2}, "t.csv": [["1.0", "z"]]})
    assert list(differences(kept, far)) == [
        "fit: ['b'] became ['c']",
        "/fit/low: 1.0 became 1.001",
        "/fit/name is gone",
        "/fit/high is new",
        "/t.csv[0][1]: 'y' became 'z'",
    ]


def test_the_kept_outputs_are_those_of_the_subjects_and_small():
    assert {path.name for path in OUTPUTS.iterdir()} == set(SUBJECTS)
    assert sum(path.stat().st_size for path in OUTPUTS.rglob("*.*") if path.is_file()) <= 2e6
