"""Debates of several programs where there is no Indexed Job: a task for each of them, of which nothing else has to know. Pure."""

from dataclasses import replace

from maft_operator.plan.graph import Graph, Task


def spread(graph: Graph) -> Graph:
    """Makes a task for each program of a debate; what waits for the debate waits for all of them."""
    made = {task.name: _programs(task) for task in graph.tasks}
    return replace(graph, tasks=tuple(_waiting(task, made) for several in made.values() for task in several))


def _programs(task: Task) -> tuple[Task, ...]:
    if task.programs == 1:
        return (task,)
    return tuple(replace(task, name=f"{task.name}-{shard}", shard=shard) for shard in range(task.programs))


def _waiting(task: Task, made: dict[str, tuple[Task, ...]]) -> Task:
    return replace(task, needs=tuple(one.name for need in task.needs for one in made[need]))
