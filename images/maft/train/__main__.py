"""`python -m maft.train`: datasets in, PEFT adapter directories out. One copy of the base per GPU, adapters in turn.

An adapter that is committed already is not trained again, one that was begun goes on from its checkpoint; an agent with too few
examples keeps what it had.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from functools import partial

import msgspec
from torch.distributed import TCPStore

from maft import adapters, device, lora, models, program
from maft.chat_template import ChatTemplate
from maft.device import Device
from maft.pod import is_watched, processors
from maft.program import Assignment
from maft.records import Commit, Example, Role, trained_roles
from maft.spec import ModelSpec
from maft.store import layout
from maft.store.commits import committed, required
from maft.store.lines import iterate_lines
from maft.summaries import TrainSummary
from maft.train import memory, nodes, processes, sharded, workers
from maft.train.examples import Examples
from maft.train.jobs import Job, keep, train_one
from maft.train.links import Assigned, Link
from maft.train.nodes import Node
from maft.train.objectives import objective_of
from maft.train.samples import samples
from maft.train.sharded_trainer import ShardedTrainer
from maft.train.shown import loss_gauge, summary
from maft.train.trainer import Trainer, steps
from maft.train.workers import Place, Report, Started

ALONE = Started()


def main(assignment: Assignment, started: Started = ALONE) -> TrainSummary:
    """Trains and publishes what is not there yet; of a worker, what it was dealt."""
    store, run, iteration = assignment.store, assignment.run, assignment.iteration
    wanted = [(role, agent) for agent in assignment.agents for role in trained_roles(assignment.spec.debate)]
    node = None if started.place else nodes.found(assignment.spec.training.nodes, started.environment)
    if started.place:
        wanted = [(role, agent) for role, agent in wanted if f"{role}-{agent}" in started.place.adapters]
    used = _device(assignment, started)
    several = _workers(assignment, started, used, len(wanted))
    if node and not node.leads:
        _follow(assignment, started, several, wanted, node)
        return summary([])
    data = required(store, layout.datasets(run, iteration), "the debate of this iteration")
    template = models.chat_template(assignment.spec.model, assignment.spec.debate.thinking)
    own = models.own_templates(assignment.spec, assignment.spec.agents)
    missing = [(role, agent) for role, agent in wanted if committed(store, layout.adapter(run, iteration, role, agent)) is None]
    # A program that was lost between a commit and the end of its checkpoint left it.
    store.delete([layout.checkpoint(run, iteration, *other) for other in wanted if other not in missing])
    jobs = [_job(assignment, data, own.get(agent, template), role, agent) for role, agent in missing]
    _train_all(assignment, data, jobs, started, several, used, node)
    if node:
        store.delete([_meeting(assignment)])
    if started.place and not started.place.leads:
        return summary([])
    return summary([adapters.current(store, run, iteration, role, agent) for role, agent in wanted])


def _device(assignment: Assignment, started: Started) -> Device:
    """Finds where is trained, before anything is loaded; a worker has one GPU of those that its program was given."""
    return device.settled(min(assignment.gpus, 1) if started.place and assignment.gpus else assignment.gpus)


def _workers(assignment: Assignment, started: Started, used: Device, wanted: int) -> int:
    """Decides how many processes train; a worker starts none."""
    if started.place:
        return 1
    if assignment.spec.training.parallelism == "Sharded":
        return workers.count_ranks(assignment.gpus, used.count, started.environment, assignment.spec.training.nodes)
    return workers.count(assignment.gpus, used.count, wanted, started.environment)


def _job(assignment: Assignment, data: Commit, template: ChatTemplate, role: Role, agent: int) -> Job:
    store, run, training = assignment.store, assignment.run, assignment.spec.training
    read = iterate_lines(store, data, layout.dataset_file(role, agent), Example)
    examples = Examples(samples(training, template, read))
    return Job(role, agent, examples, adapters.current(store, run, assignment.iteration - 1, role, agent))


def _train_all(
    assignment: Assignment,
    data: Commit,
    jobs: Sequence[Job],
    started: Started,
    several: int,
    used: Device,
    node: Node | None,
) -> None:
    training = assignment.spec.training
    enough = [job for job in jobs if len(job.examples) >= training.min_examples]
    progress = program.Progress(assignment.metrics)
    progress.total.set(sum(steps(len(job.examples), training) for job in enough))
    shown = loss_gauge(progress)

    def step_done(value: float) -> None:
        progress.done.inc()
        shown.set(value)
        started.report(value)

    for job in jobs:
        if len(job.examples) < training.min_examples:
            keep(assignment, data, job)
    if not enough:
        return
    if started.place and started.place.ranks > 1:
        _train_together(assignment, data, enough, used, step_done, started.place)
    elif training.parallelism == "Sharded":
        _fetch(assignment, enough)
        _lead(assignment, tuple(job.name for job in enough), started, several, step_done, node)
    elif several > 1 and len(enough) > 1:
        _fetch(assignment, enough)
        _deal(enough, started, several, used, step_done)
    else:
        _train_here(assignment, data, enough, used, step_done)


def _fetch(assignment: Assignment, jobs: Sequence[Job]) -> None:
    """Has each base here before workers look for it: fetched once, and while nobody waits for it."""
    for source in dict.fromkeys(assignment.spec.model_of(job.agent).source for job in jobs):
        models.local(source)


def _deal(jobs: Sequence[Job], started: Started, several: int, used: Device, step_done: Report) -> None:
    """Has one worker per GPU train its share of the adapters."""
    places = [Place(share) for share in workers.dealt({job.name: job.tokens for job in jobs}, several)]
    environments = workers.environments(started.environment, len(places), gpus=used.count > 0, cores=processors(), amd=used.amd)
    processes.run(started.command, places, environments, step_done)


def _lead(
    assignment: Assignment, names: tuple[str, ...], started: Started, ranks: int, step_done: Report, node: Node | None
) -> None:
    """Has one process per GPU train all adapters together, with those of other pods if there are some; they meet here."""
    meeting = TCPStore(workers.HOST, 0, is_master=True, wait_for_workers=False)
    first = Place(names, ranks=ranks, port=meeting.port)
    if node is None:
        return _start_ranks(started, first, ranks, step_done)
    secret = nodes.made_secret(assignment.store, _meeting(assignment))
    with nodes.gathered(node, _task(assignment), secret, Assigned(names, meeting.port)) as links:
        _start_ranks(started, msgspec.structs.replace(first, ranks=ranks * node.nodes), ranks, step_done, links)


def _follow(assignment: Assignment, started: Started, ranks: int, wanted: Sequence[tuple[Role, int]], node: Node) -> None:
    """Does this pod's part of a training that another pod leads, to its end."""

    def all_done() -> bool:
        prefixes = (layout.adapter(assignment.run, assignment.iteration, *which) for which in wanted)
        return all(committed(assignment.store, prefix) is not None for prefix in prefixes)

    secret = partial(nodes.read_secret, assignment.store, _meeting(assignment))
    if (met := nodes.joined(node, _task(assignment), secret, all_done)) is None:
        return
    link, message = met
    with contextlib.closing(link):
        first = Place(message.adapters, rank=node.index * ranks, ranks=ranks * node.nodes, host=link.address, port=message.port)
        _start_ranks(started, first, ranks, _unseen, [link])
        link.wait_for_the_end()


def _task(assignment: Assignment) -> str:
    """Names the task to other pods: those of another one are strangers."""
    return f"{assignment.run} {assignment.iteration} {list(assignment.agents)}"


def _meeting(assignment: Assignment) -> str:
    """Names the object that holds the secret of the task's pods."""
    role = trained_roles(assignment.spec.debate)[0]
    return layout.meeting(assignment.run, assignment.iteration, role, assignment.agents[0])


def _start_ranks(started: Started, first: Place, here: int, step_done: Report, links: Sequence[Link] = ()) -> None:
    """Runs the ranks of this pod to their end; they see all its GPUs. first: the first one's place."""
    places = [msgspec.structs.replace(first, rank=first.rank + index) for index in range(here)]
    environments = workers.environments(started.environment, here, gpus=False, cores=processors())
    processes.run(started.command, places, environments, step_done, links)


def _train_here(assignment: Assignment, data: Commit, jobs: Sequence[Job], used: Device, step_done: Report) -> None:
    """One base after the other, where agents have several."""
    waiting = list(jobs)
    while waiting:
        model = assignment.spec.model_of(waiting[0].agent)
        alike = [job for job in waiting if assignment.spec.model_of(job.agent) == model]
        _train_on(model, assignment, data, alike, used, step_done)
        waiting = [job for job in waiting if job not in alike]
        gc.collect()  # PEFT's models hold themselves: the next base needs their memory


def _train_on(model: ModelSpec, assignment: Assignment, data: Commit, jobs: Sequence[Job], used: Device, step_done: Report) -> None:
    objective = objective_of(assignment.spec.training)
    memory.check_base(models.config(model), model, used, assignment.spec.training.base, alike=is_watched())
    base = lora.load_base(model, used, assignment.spec.training.base)
    for job in jobs:
        train_one(assignment, data, job, Trainer(base, assignment.spec.training_of(job.agent), step_done, objective))


def _train_together(
    assignment: Assignment, data: Commit, jobs: Sequence[Job], used: Device, step_done: Report, place: Place
) -> None:
    objective = objective_of(assignment.spec.training)
    with sharded.joined(place, cuda=used.kind == "cuda") as team:
        base = sharded.load_base(assignment.spec.model_of(jobs[0].agent), team, used)
        for job in jobs:
            training = assignment.spec.training_of(job.agent)
            trainer = ShardedTrainer(base, training, step_done if team.leads else _unseen, objective, team)
            train_one(assignment, data, job, trainer, leads=team.leads)


def _unseen(loss: float) -> None:
    """Leaves it to the first rank to say."""


PARSER = program.parser(
    "train", "Trains the LoRA adapters of one or several agents.", takes=("spec", "iteration", "agents", "gpus", "group")
)

if __name__ == "__main__":
    here = workers.started([sys.executable, "-m", "maft.train", *sys.argv[1:]], os.environ)
    program.run(partial(main, started=here), PARSER)
