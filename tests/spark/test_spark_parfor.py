"""Parallel loops of DML and its parameter server as tasks of Spark."""

from __future__ import annotations

from parallel_scripts import check_training, check_turns


def test_turns_as_tasks_leave_what_turns_leave(make, tmp_path):
    check_turns(make(), tmp_path)


def test_workers_as_tasks_bring_the_model_that_workers_in_turns_bring(make):
    check_training(make())
