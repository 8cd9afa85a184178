"""Committed runs begin and end as recorded; what was changed is found.

`make test` replays the delivered chain, `make replay` every run. A run is replayed by a process
that computes with the instruction set that the run recorded, where this machine can.
"""

import atexit
import dataclasses
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest
import replaying
import torch
from helpers import contents, edit

from conftest import SHRUNKEN
from hw2 import data, networks
from hw2.errors import InputError
from hw2.experiments import environment, profiles
from hw2.experiments.obtain import obtain
from hw2.experiments.run import Run, root
from hw2.experiments.store import Store
from hw2.files import sha256

CPU = torch.device("cpu")
CHAIN = {run.name for run in replaying.chain(Store())}
#: instruction set that a run recorded -> variables with which a process computes so, where its
#: processor knows more
SETS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def lowering(recorded):
    """Variables with which a process computes as one did that recorded this environment."""
    if recorded["device"] != "cpu":
        return {}
    return recorded["lowered_by"] or SETS.get(recorded["instruction_set"], {})


@cache
def pool(variables):
    """A process that computes with the instruction set that these variables name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables:
            patch.setenv(name, value)
        process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        process.submit(int).result()  # variables are read when it starts
    atexit.register(process.shutdown)
    return process


def committed(run):
    """A finished run; those that `make test` leaves out are marked."""
    return pytest.param(run, id=run.name, marks=[] if run.name in CHAIN else [pytest.mark.weekly])


@pytest.mark.parametrize("run", [*map(committed, Store().every())])
def test_a_committed_run_is_as_recorded(run, record_property):
    process = pool(tuple(lowering(run.environment).items()))
    result = process.submit(replaying.replay, Run(run.folder), CPU).result()
    record_property("replay", tuple(result))
    assert result.problems == []


def test_the_page_on_trust_tells_the_tolerances():
    page = (data.PROJECT / "docs/trust.md").read_text("utf-8")
    for kind, (first, growth, most) in replaying.TOLERANCES.items():
        assert f"| {kind} | {first:g} | {growth:g} | {most:g} |" in page


def test_every_run_of_a_walk_is_as_recorded(walk_done):
    before = contents(root("smoke"))
    for run in {run.stage: run for run in Store("smoke").every()}.values():  # one of each row
        result = replaying.replay(run, CPU)
        assert (result.problems, result.difference, result.alike) == ([], 0, True), result
    assert contents(root("smoke")) == before
    chain = [run.name for run in replaying.chain(Store("smoke"))]
    assert chain == ["teacher/smoke-s0", "distilled/smoke-s0", "compressed/smoke-s0"]


def problems_of(run):
    try:
        return replaying.replay(Run(run.folder), CPU).problems
    except InputError as error:
        return [str(error)]


def test_what_was_changed_is_told(walk_done):
    distilled = Store().require("distilled").folder
    scratch = Store().require("scratch")
    edit(distilled / "steps.csv", (1, 1), lambda loss: loss * 1.0002)
    assert any("the loss of step 0 is" in line for line in problems_of(Run(distilled)))
    networks.save(networks.ResNet14((11, 11, 22, 45)), scratch.weights)
    assert any("the last loss of history.csv is" in line for line in problems_of(scratch))
    edit(distilled / "recipe.json", "seed", lambda seed: seed + 1)
    assert "its digest is not that of" in problems_of(Run(distilled))[0]


def test_first_steps_in_bfloat16_are_left_out_where_the_processor_lacks_it(walk_done, monkeypatch):
    monkeypatch.setattr(environment, "lacks_bfloat16", lambda device: True)
    assert replaying.replay(Store().require("plain"), CPU).difference == 0
    slow = dataclasses.replace(SHRUNKEN["student"]["fit"], precision="bfloat16")
    monkeypatch.setitem(profiles.PROFILES, "smoke", SHRUNKEN | {"student": {"fit": slow}})
    result = replaying.replay(obtain("plain", 7), CPU)
    assert (result.problems, result.difference) == ([], None)


def test_soft_targets_and_phases_that_no_kept_answer_tells_of_are_computed_again(walk_done):
    teacher, pruned = Store().require("teacher"), Store().require("compressed")
    path = teacher.folder / "soft_targets.npy"
    targets = np.load(path)
    targets[1] += np.float16(0.5)  # another view than the one that is validated
    np.save(path, targets)
    edit(path.with_suffix(".json"), "sha256", lambda _: sha256(path))
    assert problems_of(teacher) == ["soft targets of view 1 are not what the weights say"]
    name = "recalibrated_without_sparse_learning"
    edit(pruned.folder / "metrics.json", f"phases.{name}", lambda count: count + 3)
    assert [line.partition(" of ")[0] for line in problems_of(pruned)] == [f"phase {name}"]


def capability():
    return os.environ.get("ATEN_CPU_CAPABILITY")


def test_processes_get_the_instruction_set_that_was_recorded(monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    cpu = {"device": "cpu", "lowered_by": {}}
    variables = lowering(cpu | {"instruction_set": "AVX2"})
    assert pool(tuple(variables.items())).submit(capability).result() == "avx2"
    assert capability() is None
    assert lowering(cpu | {"instruction_set": "AVX512"}) == lowering({"device": "cuda"}) == {}
