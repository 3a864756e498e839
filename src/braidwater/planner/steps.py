"""The steps of a plan as a tree, each with its estimate."""

from __future__ import annotations

from dataclasses import replace

from braidwater.options import format_bytes
from braidwater.planner.alternatives import Candidate
from braidwater.planner.cost import Cost, Job, Setting, first_pass, later_pass
from braidwater.planner.gang_cost import GangCost
from braidwater.planner.tree import Node


def step_tree(job: Job, best: Candidate) -> Node:
    """What is going to happen, from the first reading of the table to the last pass."""
    children = _pass_steps(job, best.setting) if best.gang is None else _gang_steps(job, best.setting, best.gang)
    title = "train" if job.work.models <= 1 else f"train {job.work.models} models"
    return Node(title, best.cost, children=children)


def _pass_steps(job: Job, setting: Setting) -> list[Node]:
    passes = job.work.passes
    nodes = []
    if setting.kernel == "fused":
        nodes.append(Node("load the fused kernel", Cost(job.machine.compile, job.machine.compile)))
    if setting.cache == "none":
        title = "read, encode, compute" if passes == 1 else f"read, encode, compute, {passes} times"
        cost = first_pass(job, setting).times(passes)
        return [*nodes, Node(title, cost, role="first" if passes == 1 else "later")]
    nodes.append(Node("pass 1: read, encode, compute, keep blocks", first_pass(job, setting), role="first"))
    if passes > 1:
        number = "pass 2" if passes == 2 else f"passes 2 to {passes}"
        title = f"{number}: compute from {setting.cache}"
        nodes.append(Node(title, later_pass(job, setting).times(passes - 1), role="later"))
    return nodes


def _gang_steps(job: Job, setting: Setting, parts: GangCost) -> list[Node]:
    epochs = job.work.passes
    nodes = [Node(f"write blocks to {setting.cache}", parts.blocks, role="first")]
    if parts.start.seconds:
        nodes.append(Node(f"start {setting.workers + parts.step.others} processes", parts.start))
    training = Node(
        f"{epochs} epoch{'s' if epochs > 1 else ''} of {parts.steps:,} step{'s' if parts.steps > 1 else ''}",
        parts.compute + parts.exchange,
        role="later",
    )
    if setting.workers > 1:
        training.children = [
            Node("compute", parts.compute),
            Node(f"exchange {format_bytes(parts.exchange.bytes_moved)}", replace(parts.exchange, memory=0)),
        ]
    return [*nodes, training]
