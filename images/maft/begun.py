"""What says that a run has begun: `problems/` with the spec that it began with, and `run.json` with the same and their hashes."""

from typing import Any

import msgspec

from maft import records
from maft.records import Commit
from maft.spec import FORMAT, Spec, immutable_spec_json
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch, publish


def described(spec: Spec) -> Any:
    """Writes the spec as the commit of the questions has it: what may change while a run goes on is left out."""
    return msgspec.json.decode(immutable_spec_json(spec))


def hashes(questions: Commit | None) -> dict[str, str]:
    """Lists the hashes of the questions' files, by name; none where there are no questions."""
    return {entry.name: entry.sha256 for entry in questions.files} if questions else {}


def run_json(questions: Commit | None) -> bytes:
    """Makes the content of run.json. questions: the run's own, or those that it is about to adopt."""
    meta = questions.meta if questions else {}
    return records.encode({"format": FORMAT, **meta, "problems": hashes(questions)})


def adopt(store: Store, run: str, spec: Spec, questions: Commit) -> None:
    """Gives a run of a comparison the comparison's questions as its own: whoever reports, serves or exports it need not know of
    that. On a cluster each run's `prepare` has done it; on one machine there is one for all, and the first debate does it.

    questions: as the comparison has them."""
    prefix = f"{run}/{layout.PROBLEMS}"
    if committed(store, prefix) is not None:
        return
    own = msgspec.structs.replace(questions, meta={**questions.meta, "spec": described(spec)})
    store.write(f"{run}/{layout.RUN}", run_json(own))  # first: what is committed is not looked at again
    publish(store, prefix, {entry.name: fetch(store, questions, entry.name) for entry in questions.files}, meta=own.meta)
