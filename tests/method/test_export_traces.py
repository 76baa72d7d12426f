"""The stages of a run as a trace, received as a collector does: by OTLP's own schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collectors import Collector, collecting
from committed import RUN, put_iteration, put_run, put_validations
from conftest import free_port

from maft import committed_run
from maft.errors import BadInput
from maft.export import targets, traces
from maft.export.target import Request, Sent
from maft.store.base import Store
from maft.store.files import FileStore
from maft.summaries import Gain, Score, Validation


@pytest.fixture(name="collector")
def collector_fixture() -> Iterator[tuple[str, type[Collector]]]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "runs")


def hand_on(store: Store, to: str) -> Sent:
    return targets.send("otel", Request(store, committed_run.read(store, RUN), to))


def seconds(span: Any) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_each_stage_is_a_span_of_one_trace_and_is_sent_once(store, collector):
    url, handler = collector
    put_run(store, iterations=1)
    assert hand_on(store, url).new == len(handler.spans) == 1 + 1 + 4 + 1 + 1  # evaluation, debate, adapters, evaluation, run
    spans = {span.name: span for span in handler.spans}
    assert seconds(spans["debate, iteration 1"]) == pytest.approx(12.0)
    assert seconds(spans["training of critic-1, iteration 1"]) == pytest.approx(2.5)
    root = spans[f"maft run {RUN}"]
    assert {span.parent_span_id for span in handler.spans if span is not root} == {root.span_id}
    assert len({span.trace_id for span in handler.spans}) == 1
    assert root.start_time_unix_nano == min(span.start_time_unix_nano for span in handler.spans)
    assert hand_on(store, url).new == 0
    assert handler.seen == ["/v1/traces application/json "]


def test_an_unfinished_run_has_its_stages_and_no_whole(store, collector):
    url, handler = collector
    put_run(store, iterations=2)
    store.delete(list(store.list(f"{RUN}/iterations/2/evaluation/")))
    hand_on(store, url)
    assert f"maft run {RUN}" not in {span.name for span in handler.spans}


def test_a_run_that_stopped_at_its_best_is_whole(store, collector):
    url, handler = collector
    put_run(store, iterations=2, evaluation={"validation": 8}, stopWhen={"patience": 1})
    put_validations(store, Validation(accuracy=Score(0.5, 0.1)), Validation(accuracy=Score(0.5, 0.1), gain=Gain(0.0, 0.1, 1)))
    store.delete(list(store.list(f"{RUN}/iterations/2/evaluation/")))  # held-out questions are the best iteration's
    hand_on(store, url)
    spans = {span.name: span for span in handler.spans}
    assert f"maft run {RUN}" in spans
    facts = {attribute.key: attribute.value.double_value for attribute in spans["validation, iteration 2"].attributes}
    assert (facts["validation/accuracy"], facts["validation/gain_stderr"]) == (0.5, 0.1)


def test_a_marker_that_was_lost_gives_the_same_ids(store, collector):
    url, handler = collector
    put_run(store)
    hand_on(store, url)
    store.delete(list(store.list(f"{RUN}/export/otel-")))
    hand_on(store, url)
    ids = [(span.trace_id, span.span_id) for span in handler.spans]
    assert len(ids) == 2 * len(set(ids))


def test_a_run_whose_id_is_another_one_now_is_a_whole_trace_of_its_own(store, collector):
    url, handler = collector
    put_run(store, iterations=1)
    hand_on(store, url)
    first = len(handler.spans)
    store.delete([f"{RUN}/export/identity.json"])
    put_iteration(store, 2)
    assert hand_on(store, url).new == first + 6
    assert {span.trace_id for span in handler.spans[:first]}.isdisjoint({span.trace_id for span in handler.spans[first:]})
    assert len({span.trace_id for span in handler.spans[first:]}) == 1


def test_a_run_of_the_same_name_and_questions_in_another_store_is_another_trace(tmp_path, collector):
    url, handler = collector
    for folder in ("a", "b"):
        put_run(FileStore(tmp_path / folder))
        hand_on(FileStore(tmp_path / folder), url)
    ids = [(span.trace_id, span.span_id) for span in handler.spans]
    assert len(ids) == len(set(ids)) == 2 * 8
    assert len({trace for trace, _ in ids}) == 2


def test_what_was_refused_is_sent_again(store, collector):
    url, handler = collector
    put_run(store)
    handler.answer = (200, b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}')
    with pytest.raises(BadInput, match="rejected 2 spans: too old"):
        hand_on(store, url)
    handler.answer = (503, b"")
    with pytest.raises(OSError, match="status 503"):
        hand_on(store, url)
    handler.answer = (200, b"")
    assert hand_on(store, url).new == 8


def test_the_key_comes_from_the_usual_variable(store, collector, monkeypatch):
    url, handler = collector
    put_run(store)
    monkeypatch.setenv(traces.HEADERS, "x-key=hun%20ter2, other=1")
    hand_on(store, url)
    assert handler.seen[0].endswith("hun ter2")
    assert not any(b"ter2" in store.read(key) for key in store.list(""))
    for wrong in ("hunter2", "x-key=hunter2%0Ax", "x-key=hunter2\N{LOCK}"):
        with pytest.raises(BadInput, match=traces.HEADERS) as error:
            traces.headers(wrong)
        assert "hunter2" not in str(error.value)


def test_the_whole_address_is_the_same_collector(store, collector):
    url, _ = collector
    put_run(store)
    assert hand_on(store, f"{url}/v1/traces").new
    assert hand_on(store, url).new == 0


def test_a_collector_that_is_away(store):
    put_run(store)
    with pytest.raises(OSError, match="is away"):
        hand_on(store, f"http://127.0.0.1:{free_port()}")


def test_a_newer_iteration_sends_what_is_new(store, collector):
    url, handler = collector
    put_run(store, iterations=1)
    hand_on(store, url)
    before = len(handler.spans)
    put_iteration(store, 2)
    assert hand_on(store, url).new == len(handler.spans) - before == 6 + 1  # and the whole, which is longer now
