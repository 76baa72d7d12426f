"""What pods ask for: always something, never more than they may take, what the model needs; and who has the last word."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import kube_objects
import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import IMAGES, STORAGE, owner, planned
from test_manifests import VARIED

from maft import models
from maft.preflight import cost
from maft.summaries import PrepareSummary
from maft_operator.cluster import manifests, resources
from maft_operator.cluster.images import Images
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.cluster.quantities import amount, of_bytes, of_thousandths
from maft_operator.plan import disk, exports
from maft_operator.plan.disk import GIB, MIB
from maft_operator.spec.parse import Run, parse
from maft_operator.spec.schema import Json

NAMED = ("cpu", "memory", "ephemeral-storage")
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml") if "\nkind: MultiAgentFinetune\n" in path.read_text())
CPU: Json = {"training": {"gpus": 0}, "inference": {"gpus": 0}}


def example(name: str) -> Run:
    """As it would be on a cluster."""
    documents = yaml.safe_load_all((ROOT / "examples" / f"{name}.yaml").read_text())
    run = next(document for document in documents if document["kind"] == "MultiAgentFinetune")
    return parse({**run, "spec": {"storage": STORAGE, **run["spec"]}})


def a_run(**spec: Any) -> Run:
    """Of a model that has to be fetched."""
    return kube_objects.a_run(**{**spec, "model": {"source": "org/model", **spec.get("model", {})}})


def templates(run: Run, images: Images = IMAGES) -> dict[str, Json]:
    """The pods of a run by the name of their Job or Deployment."""
    graph = planned(run)
    things = [thing for item in (*graph.tasks, *graph.servers) for thing in manifests.objects(item, owner(run), images)]
    return {t["metadata"]["name"]: t["spec"]["template"] for t in things if "template" in t["spec"]}


def asked(template: Json) -> Json:
    [container] = template["spec"]["containers"]
    section: Json = container["resources"]
    return section


def of(run: Run, name: str, model_bytes: int = 0) -> Json:
    return asked(templates(run, Images("p", "1", model_bytes=model_bytes))[name])


def number(part: Json, name: str) -> Decimal:
    value = amount(part[name])
    assert value is not None
    return value


def volumes(template: Json) -> Iterator[tuple[str, Json]]:
    yield from ((volume["name"], volume["emptyDir"]) for volume in template["spec"]["volumes"] if "emptyDir" in volume)


# --- every pod ---


@pytest.mark.parametrize("run", [*map(example, EXAMPLES), *(a_run(**spec) for spec in VARIED.values())], ids=[*EXAMPLES, *VARIED])
@pytest.mark.parametrize("model_bytes", [0, 3_396_032, 16 * GIB])
def test_nothing_is_best_effort(run: Run, model_bytes: int) -> None:
    for template in templates(run, Images("p", "1", model_bytes=model_bytes)).values():
        section = asked(template)
        bounded = model_bytes or "ephemeral-storage" in section["limits"]  # the disk of what loads a model of unknown size is not
        for name in NAMED:
            assert number(section["requests"], name) > 0
            if bounded or name in section["limits"]:
                assert number(section["requests"], name) <= number(section["limits"], name)
        for name, folder in volumes(template):
            if not bounded and folder.get("medium") != "Memory":
                assert folder == {}
                continue
            assert amount(folder["sizeLimit"]), name
            counted = "memory" if folder.get("medium") == "Memory" else "ephemeral-storage"
            assert number(folder, "sizeLimit") < number(section["limits"], counted)
        assert template["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_the_demo_fits_on_two_processors_and_eight_gib() -> None:
    """Beside Kubernetes itself, which takes a processor and a GiB there."""
    images = Images("p", "1", model_bytes=3_396_032)
    requests = {name: asked(template)["requests"] for name, template in templates(example("arithmetic-cluster"), images).items()}
    server = requests.pop("arithmetic-server")
    for name, most in (("cpu", Decimal(1)), ("memory", Decimal(6 * GIB)), ("ephemeral-storage", Decimal(8 * GIB))):
        assert number(server, name) + max(number(task, name) for task in requests.values()) < most


def test_the_figures_of_the_demo() -> None:
    """As they stand in docs/operations.md."""
    server = of(example("arithmetic-cluster"), "arithmetic-server", 3_396_032)
    assert server["requests"] == {"cpu": "250m", "memory": "3264Mi", "ephemeral-storage": "192Mi"}
    assert server["limits"] == {"cpu": "4", "memory": "10368Mi", "ephemeral-storage": "16320Mi"}


# --- the model ---


@pytest.mark.parametrize("name", ["r-server", "r-1-train"])
@pytest.mark.parametrize("spec", [{}, CPU, {"training": {"gpus": 4}, "inference": {"gpus": 8}}], ids=["open", "cpu", "many"])
def test_a_larger_model_asks_for_more(name: str, spec: Json) -> None:
    run = a_run(**spec)
    small, large = of(run, name, GIB), of(run, name, 40 * GIB)
    assert number(large["limits"], "memory") >= number(small["limits"], "memory") + 2 * 39 * GIB
    for part in ("requests", "limits"):
        assert number(large[part], "ephemeral-storage") > number(small[part], "ephemeral-storage") + 38 * GIB


@pytest.mark.parametrize("name", ["r-0-prepare", "r-1-debate", "r-1-report", "r-0-preflight"])
def test_what_loads_no_model_asks_for_the_same_whatever_its_size(name: str) -> None:
    assert of(a_run(), name, GIB) == of(a_run(), name, 400 * GIB)


def test_weights_fit_into_the_memory_of_processors_that_hold_them_in_single_precision() -> None:
    for name in ("r-server", "r-1-train"):
        assert number(of(a_run(**CPU), name, 10 * GIB)["requests"], "memory") > 20 * GIB


def test_preflight_has_the_limit_of_a_trainer_on_processors() -> None:
    """It refuses what will not fit there, and reads its own limit for that."""
    limits = [of(a_run(**CPU), name, 4 * GIB)["limits"] for name in ("r-0-preflight", "r-1-train")]
    assert number(limits[0], "memory") >= number(limits[1], "memory") - GIB
    assert number(of(a_run(), "r-0-preflight", 4 * GIB)["limits"], "memory") < 10 * GIB


def test_gpus_ask_for_processors() -> None:
    section = of(a_run(inference={"gpus": 4}), "r-server", GIB)
    assert (section["requests"]["cpu"], section["limits"]["cpu"], section["limits"]["nvidia.com/gpu"]) == ("4", "32", "4")
    assert "nvidia.com/gpu" not in section["requests"]  # Kubernetes requests what is the limit


def test_shared_memory_counts_as_the_pods() -> None:
    before, after = (of(a_run(inference={"sharedMemory": size}), "r-server", GIB) for size in ("1Gi", "100Gi"))
    assert number(after["limits"], "memory") - number(before["limits"], "memory") == 99 * GIB


def test_a_claim_keeps_the_model() -> None:
    free, claimed = (of(a_run(model={"cacheClaim": claim}), "r-server", 40 * GIB) for claim in ("", "models"))
    assert number(claimed["requests"], "ephemeral-storage") < GIB < 40 * GIB < number(free["requests"], "ephemeral-storage")


ELSEWHERE: dict[str, Json] = {
    "hostPath": {"hostPath": {"path": "/var/cache/maft"}},
    "ephemeral": {"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Ti"}}}}}},
    "claim": {"persistentVolumeClaim": {"claimName": "theirs"}},
    "csi": {"csi": {"driver": "example.com"}},
    "memory": {"emptyDir": {"medium": "Memory"}},
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("admins", [True, False])
@pytest.mark.parametrize("name", ["r-server", "r-1-train"])
def test_whatever_volume_keeps_the_model_its_size_is_not_asked_of_the_nodes_disk(kind: str, admins: bool, name: str) -> None:
    template = {"spec": {"volumes": [{"name": "cache", **ELSEWHERE[kind]}]}}
    images = Images("p", "1", model_bytes=131 * GIB, pods=PodSettings(defaults=template if admins else {}))
    section = asked(templates(a_run() if admins else a_run(podTemplate=template), images)[name])
    claimed = of(a_run(model={"cacheClaim": "models"}), name, 131 * GIB)
    assert all(section[part]["ephemeral-storage"] == claimed[part]["ephemeral-storage"] for part in ("requests", "limits"))
    assert number(section["requests"], "ephemeral-storage") < GIB


@pytest.mark.parametrize("volume", [{"emptyDir": {"sizeLimit": "200Gi"}}, {"emptyDir": {}}])
def test_an_empty_folder_on_the_nodes_disk_keeps_the_model_there(volume: Json) -> None:
    template = {"spec": {"volumes": [{"name": "cache", **volume}]}}
    assert number(of(a_run(podTemplate=template), "r-server", 131 * GIB)["requests"], "ephemeral-storage") > 131 * GIB


@pytest.mark.parametrize("volume", ["", None, [], {"name": "cache"}, {"name": "cache", "$patch": "delete"}])
def test_volumes_that_are_none_are_the_api_servers_to_refuse(volume: Any) -> None:
    template = {"spec": {"volumes": [volume] if volume is not None else None}}
    assert number(of(a_run(podTemplate=template), "r-server", 131 * GIB)["requests"], "ephemeral-storage") > 0


def test_a_volume_of_another_name_may_be_the_cache() -> None:
    """For one kind of pod only."""
    mount = {"name": "inference", "volumeMounts": [{"name": "disks", "mountPath": "/cache"}]}
    template = {"spec": {"volumes": [{"name": "disks", "hostPath": {"path": "/d"}}], "containers": [mount]}}
    server, trainer = (of(a_run(podTemplate=template), name, 131 * GIB) for name in ("r-server", "r-1-train"))
    assert number(server["requests"], "ephemeral-storage") < GIB < number(trainer["requests"], "ephemeral-storage")


@pytest.mark.parametrize("name", ["r-server", "r-1-train"])
def test_a_model_that_is_mounted_is_not_fetched(name: str) -> None:
    fetched, there = (of(a_run(model={"source": source}), name, 131 * GIB) for source in ("org/model", "/models/large"))
    assert number(there["requests"], "ephemeral-storage") < GIB < 131 * GIB < number(fetched["requests"], "ephemeral-storage")
    assert there["limits"]["memory"] == fetched["limits"]["memory"]  # it is loaded all the same


@pytest.mark.parametrize("source", ["/models/a", "./a", "../a", "org/a", "a", "s3://bucket/a", "https://a/b"])
def test_what_is_mounted_is_what_the_programs_take_for_a_folder(source: str) -> None:
    assert disk.mounted(source) == models.is_path(source)


def test_adapters_that_a_server_keeps_have_room() -> None:
    def disk(**spec: Any) -> Decimal:
        return number(of(a_run(**spec), "r-server", 16 * GIB)["limits"], "ephemeral-storage")

    each = 170 * MIB  # at rank 16 of eight billion weights, in single precision
    assert disk(iterations=100, inference={"lifetime": "Run"}) - disk(iterations=1, inference={"lifetime": "Run"}) > 4 * 99 * each
    assert disk(iterations=100, inference={"lifetime": "Phase"}) == disk(iterations=1, inference={"lifetime": "Phase"})
    assert disk(training={"lora": {"rank": 512}}) > disk(training={"lora": {"rank": 16}})


@pytest.mark.parametrize(
    "spec",
    [
        {"task": {"kind": "jsonl", "source": "s3://b/q.jsonl?region=x"}},
        {"task": {"kind": "gsm8k", "source": "openai/gsm8k"}},
        {"evaluation": {"task": {"kind": "jsonl", "source": "/data/other.jsonl"}}},
    ],
)
def test_a_source_of_gigabytes_is_read_as_a_whole_however_few_are_asked(spec: Json) -> None:
    """Of three, with signs of four bytes, which make 5.4 times as many of it."""
    made = {"task": {"kind": "arithmetic", "source": ""}}
    assert number(of(a_run(**made), "r-0-prepare")["limits"], "memory") < 5 * GIB
    assert number(of(a_run(**{**made, **spec}), "r-0-prepare")["limits"], "memory") > 5.4 * 3e9


def test_a_source_of_many_questions_has_room_in_memory() -> None:
    few, many = (of(a_run(task={"train": train}), "r-0-prepare")["limits"] for train in (20, 1_000_000))
    assert number(many, "memory") - number(few, "memory") > 7 * GIB


def test_many_questions_have_room_for_their_scratch_files() -> None:
    few, many = (a_run(task={"train": train}, debate={"maxTokens": 1000}) for train in (20, 100_000))
    for name in ("r-1-debate", "r-1-train"):
        more = number(of(many, name, GIB)["limits"], "ephemeral-storage") - number(
            of(few, name, GIB)["limits"], "ephemeral-storage"
        )
        assert more > 100_000 * 2 * 2 * 1000 * 31 * 3  # agents, rounds, tokens, bytes each, three times


def test_many_validation_questions_have_room_for_theirs() -> None:
    few, many = (a_run(evaluation={"validation": count}, debate={"maxTokens": 1000}) for count in (20, 100_000))
    sizes = [number(of(run, "r-1-validate", GIB)["limits"], "ephemeral-storage") for run in (few, many)]
    assert sizes[1] - sizes[0] > 100_000 * 2 * 2 * 1000 * 31 * 3


def test_a_token_takes_as_much_disk_as_room_in_the_store() -> None:
    assert disk.TOKEN == cost.TOKEN


@pytest.mark.parametrize(
    "model", [{}, {"cacheClaim": "models"}, {"source": "/models/large"}], ids=["fetched", "claimed", "mounted"]
)
def test_a_plan_says_beforehand_what_pods_ask_of_their_nodes_disk(model: Json) -> None:
    run, beside = a_run(model=model), " beside model.cacheClaim" if "cacheClaim" in model else ""
    asked_for = [of(run, name, 131 * GIB) for name in ("r-server", "r-1-train")]
    server, trainer = (
        " to ".join(f"{number(section[part], 'ephemeral-storage') / GIB:.1f}" for part in ("requests", "limits"))
        for section in asked_for
    )
    line = disk.disk_line(planned(run), 131 * GIB)
    assert line == (f"disk of a node, at least and at most: a server {server} GiB{beside}, a training task {trainer} GiB{beside}")
    assert disk.disk_line(planned(run), 0) == ""


def test_a_report_keeps_one_file_at_a_time_however_many_there_are() -> None:
    large = {"task": {"train": 100_000}, "debate": {"maxTokens": 1000}}
    one, many, more = (a_run(iterations=i, **spec) for i, spec in ((1, large), (50, large), (1, {**large, "agents": 8})))
    assert of(one, "r-1-report") == of(many, "r-50-report") == of(more, "r-1-report")
    assert number(of(many, "r-50-report")["limits"], "ephemeral-storage") < 16 * GIB


@given(
    st.integers(-5, 2**70),
    st.sampled_from([None, 0, 1]),
    st.sampled_from(["", "1", "7k", "3Gi", "9999999999Ti"]),
    st.integers(1, 100),
)
def test_requests_never_exceed_limits(model_bytes: int, gpus: int | None, shared: str, agents: int) -> None:
    place = {"sharedMemory": shared, **({} if gpus is None else {"gpus": gpus})}
    run = a_run(agents=agents % 8 + 1, training=place, inference=place, debate={"rounds": 1, "critics": False})
    size = resources.model_bytes({"model": {"bytes": model_bytes}}, ())
    for template in templates(run, Images("p", "1", model_bytes=size)).values():
        section = asked(template)
        assert all(
            number(section["requests"], name) <= number(section["limits"], name) for name in section["limits"] if name in NAMED
        )
        assert {"cpu", "memory"} <= set(section["limits"])


@pytest.mark.parametrize(
    ("status", "reported", "size"),
    [
        ({}, (), 0),
        ({}, (7,), 7),
        ({"model": {"bytes": 5}}, (7,), 5),  # what was counted on stays
        ({"model": {"bytes": "5"}}, (7,), 7),
        ({"model": None}, (0,), 0),
        ({"model": {"bytes": -5}}, (), 0),
        ({"model": {"bytes": 2**60}}, (), disk.LARGEST),
        ({}, (2**62,), disk.LARGEST),
    ],
)
def test_whose_word_counts_about_the_size(status: Json, reported: tuple[int, ...], size: int) -> None:
    summaries = [PrepareSummary(train=1, held_out=1, model_bytes=each) for each in reported]
    assert resources.model_bytes(status, summaries) == size


@pytest.mark.parametrize("name", ["r-server", "r-1-train"])
@pytest.mark.parametrize("spec", [CPU, {}, {"training": {"gpus": 2}, "inference": {"gpus": 2}}], ids=["cpu", "one", "two"])
def test_a_model_of_unknown_size_is_not_put_out_for_what_it_weighs(name: str, spec: Json) -> None:
    template = templates(a_run(**spec), Images("p", "1"))[name]
    unknown, small = asked(template), of(a_run(**spec), name, GIB)
    assert dict(volumes(template)) == {"tmp": {}, "cache": {}, "shm": {"medium": "Memory", "sizeLimit": ANY}}
    assert "ephemeral-storage" not in unknown["limits"]
    assert number(unknown["requests"], "ephemeral-storage") <= number(small["requests"], "ephemeral-storage")
    assert number(unknown["requests"], "memory") <= number(small["requests"], "memory")


def test_memory_of_a_model_of_unknown_size_is_limited_by_what_its_devices_may_hold() -> None:
    two = {"training": {"gpus": 2}, "inference": {"gpus": 2}}
    for name in ("r-server", "r-1-train"):
        for spec, size in ((two, 131 * GIB), (CPU, 15 * GIB)):
            unknown, known = (of(a_run(**spec), name, model_bytes) for model_bytes in (0, size))
            assert number(unknown["limits"], "memory") >= number(known["limits"], "memory")


def test_a_disk_limit_of_a_pod_template_holds_for_a_model_of_unknown_size() -> None:
    """As a quota of limits.ephemeral-storage asks for one."""
    limits = {"name": "inference", "resources": {"limits": {"ephemeral-storage": "300Gi"}}}
    section = of(a_run(podTemplate={"spec": {"containers": [limits]}}), "r-server")
    assert section["limits"]["ephemeral-storage"] == "300Gi" and "ephemeral-storage" in section["requests"]


# --- who has the last word ---


def settled(theirs: Any, name: str = "r-server", container: str = "inference") -> Json:
    """The resources of a container of which a podTemplate says that."""
    template = {"spec": {"containers": [{"name": container, "resources": theirs}]}}
    return of(a_run(podTemplate=template, **CPU), name, MIB)


OURS = of(a_run(**CPU), "r-server", MIB)


@pytest.mark.parametrize("part", ["requests", "limits"])
@pytest.mark.parametrize(
    ("name", "value"), [("memory", "1Ti"), ("memory", "1Mi"), ("cpu", "0.5"), ("cpu", 64), ("ephemeral-storage", "1k")]
)
def test_a_pod_template_may_ask_for_more_than_our_limit_and_allow_less_than_we_ask_for(part: str, name: str, value: Any) -> None:
    section = settled({part: {name: value}})
    assert section[part][name] == value
    assert number(section["requests"], name) <= number(section["limits"], name)
    for other in set(NAMED) - {name}:
        assert all(section[p][other] == OURS[p][other] for p in ("requests", "limits"))


@pytest.mark.parametrize(
    ("theirs", "requests", "limits"),
    [
        ({"limits": {"cpu": None}}, set(NAMED), {"memory", "ephemeral-storage"}),
        ({"limits": None}, set(NAMED), set()),
        ({"requests": {"ephemeral-storage": None}, "limits": {"ephemeral-storage": None}}, {"cpu", "memory"}, {"cpu", "memory"}),
        ({"limits": {"example.com/gpu": "1"}}, set(NAMED), {*NAMED, "example.com/gpu"}),
    ],
)
def test_null_takes_ours_away(theirs: Json, requests: set[str], limits: set[str]) -> None:
    section = settled(theirs)
    assert (set(section.get("requests", {})), set(section.get("limits", {}))) == (requests, limits)


def test_what_is_wrong_in_a_pod_template_is_the_api_servers_to_refuse() -> None:
    both = {"requests": {"memory": "3Gi"}, "limits": {"memory": "2Gi"}}
    assert {part: settled(both)[part]["memory"] for part in both} == {"requests": "3Gi", "limits": "2Gi"}
    for value in ("much", "", None, [], {"a": 1}, True, "1e999", "NaN", "Infinity"):
        settled({"requests": {"memory": value}})
    assert settled("x") == "x" and settled({"limits": "x"})["limits"] == "x"


@pytest.mark.parametrize("disk", [True, False])
@pytest.mark.parametrize("cpu_limits", [True, False])
def test_whoever_runs_the_operator_may_leave_out_limits_of_processors_and_the_disk(cpu_limits: bool, disk: bool) -> None:
    images = Images("p", "1", model_bytes=GIB, pods=PodSettings(cpu_limits=cpu_limits, disk=disk))
    for template in templates(a_run(), images).values():
        section = asked(template)
        assert ("cpu" in section["limits"]) == cpu_limits and "cpu" in section["requests"]
        assert all(("ephemeral-storage" in section[part]) == disk for part in section)


# --- amounts ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250m", "0.25"),
        ("2", "2"),
        (3, "3"),
        (0.5, "0.5"),
        ("1.5Gi", "1610612736"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("12E", "12e18"),
        ("100n", "1e-7"),
        ("64Ki", "65536"),
        ("7k", "7000"),
        ("+1", "1"),
        ("-1Mi", "-1048576"),
    ],
)
def test_amounts_are_read_as_kubernetes_reads_them(text: Any, value: str) -> None:
    assert amount(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1Gi ", "1KiB", "1K", "--1", "x", None, True, [], {}, "1e", "nan"])
def test_what_is_no_amount(text: Any) -> None:
    assert amount(text) is None


@given(st.integers(0, 2**62))
def test_amounts_are_written_as_they_are_read(count: int) -> None:
    assert amount(of_bytes(count)) == count
    assert amount(of_thousandths(count)) == Decimal(count) / 1000


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1, "1"), (1024, "1Ki"), (GIB, "1Gi"), (1536 * MIB, "1536Mi"), (1000, "1000"), (2**60, "1Ei")]
)
def test_the_largest_unit_is_written(count: int, text: str) -> None:
    assert of_bytes(count) == text


def test_the_disk_of_an_export_holds_the_adapters_that_it_hands_on() -> None:
    """They lie in /tmp while they are sent; a pod that writes more than its limit is ended, and so would be each one after it."""
    run = a_run(training={"lora": {"rank": 64}}, export=[{"to": "hub", "address": "team/agents"}])

    def disk(model_bytes: int) -> tuple[Decimal | None, Any]:
        images = Images("p", "1", model_bytes=model_bytes)
        objects = manifests.objects(exports.last(planned(run), run.spec.export[0]), owner(run), images)
        [template] = [thing["spec"]["template"] for thing in objects if thing["kind"] == "Job"]
        return amount(asked(template)["limits"].get("ephemeral-storage")), dict(volumes(template))["tmp"].get("sizeLimit")

    unknown, small, large = disk(0), disk(GIB), disk(64 * GIB)
    assert unknown == (None, None)
    adapters = run.spec.agents * 2 * 63 * GIB // 4
    assert large[0] is not None and small[0] is not None and large[0] - small[0] >= adapters
    assert (amount(large[1]) or 0) - (amount(small[1]) or 0) >= adapters
