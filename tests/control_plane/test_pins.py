"""A run keeps the images that it began with: upgrades, rollbacks, a lost status, lost children, tags that move."""

import asyncio
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from kube_objects import START, a_run, at, owner, planned
from test_cluster_backend import Server, stored

from maft_operator.cluster import images, kinds, manifests
from maft_operator.cluster.backend import ClusterBackend
from maft_operator.cluster.images import Images, Pins
from maft_operator.cluster.manifests import Json
from maft_operator.cluster.pod_settings import PodSettings
from maft_operator.plan.reconcile import reconcile
from maft_operator.spec.parse import Run

OLD = Images("registry/maft", "1.0", release="1.0")
NEW = Images("mirror.example:5000/maft", "2.0", release="2.0")
DIGEST = "sha256:" + 64 * "a"
OTHER = "sha256:" + 64 * "b"
RUN = a_run()
NAMES = {role: f"registry/maft/{role}:1.0" for role in images.ROLES}


def children(*things: Json) -> dict[str, list[Json]]:
    by_kind: dict[str, list[Json]] = {}
    for thing in things:
        by_kind.setdefault(thing["kind"], []).append(thing)
    return by_kind


def made_by(used: Images, run: Run = RUN, *, names: Sequence[str] = ("r-0-prepare", "r-server")) -> list[Json]:
    """Children as an operator of that release made them, and as a server stores them."""
    run_images = images.pins(used, {"inference": run.spec.inference.image}, {}, {}).used_by(used)
    graph = planned(run)
    items = [item for item in (*graph.tasks, *graph.servers) if item.name in names]
    return [stored(made) for item in items for made in manifests.objects(item, owner(run), run_images)]


def pod_of(role: str, image: str, image_id: str, *, number: int = 0) -> Json:
    status = {"name": role, "image": image, "imageID": image_id}
    about = {"name": f"p{number}", "creationTimestamp": at(number)}
    spec = {"containers": [{"name": role, "image": image}]}
    return {"kind": "Pod", "metadata": about, "spec": spec, "status": {"containerStatuses": [status]}}


def settled(used: Images, entries: Mapping[str, Json] | None = None, *things: Json, asked: str = "") -> Pins:
    return images.pins(used, {"inference": asked}, entries or {}, children(*things))


def names_of(pins: Pins) -> dict[str, str]:
    return {role: pin.image for role, pin in pins.roles.items()}


def without_notes(thing: Json) -> Json:
    """As a release made it that wrote no annotations."""
    bare = copy.deepcopy(thing)
    bare["metadata"].pop("annotations", None)
    return bare


# --- which images ---


def test_a_new_run_begins_with_those_of_the_operator() -> None:
    pins = settled(OLD)
    assert names_of(pins) == NAMES
    assert (pins.presumed, pins.warnings) == ((), ())
    assert pins.status == {role: {"image": name} for role, name in NAMES.items()}


def test_the_image_that_the_spec_names_counts_for_servers() -> None:
    assert names_of(settled(OLD, asked="vllm/vllm-openai:v0.32.0"))["inference"] == "vllm/vllm-openai:v0.32.0"


@pytest.mark.parametrize("later", [NEW, Images("registry/maft", "0.9", release="0.9")], ids=["upgrade", "rollback"])
def test_another_release_of_the_operator_uses_what_the_status_says(later: Images) -> None:
    entries = settled(OLD).status
    pins = settled(later, entries)
    assert pins.status == entries
    assert pins.used_by(later).of("trainer") == NAMES["trainer"]
    assert not pins.presumed


def test_a_lost_status_is_found_on_the_children() -> None:
    [prepare, *_] = made_by(OLD)
    pins = settled(NEW, None, prepare)  # the Job of one role names all three
    assert (names_of(pins), pins.presumed) == (NAMES, ())


def test_of_children_without_annotations_the_templates_count() -> None:
    """Those of a release before this one; a role of which there is no child has to be presumed, and that is said."""
    pins = settled(NEW, None, *map(without_notes, made_by(OLD)))
    assert names_of(pins) == {**NAMES, "trainer": NEW.of("trainer")}
    [line] = pins.warnings
    assert NEW.of("trainer") in line and NAMES["debate"] not in line and "\n" not in line


def test_lost_children_change_nothing() -> None:
    assert settled(NEW, settled(OLD).status) == settled(OLD, settled(OLD).status)


def test_where_both_are_lost_those_of_this_operator_count() -> None:
    pins = settled(NEW, None, *({**thing, "spec": {}} for thing in map(without_notes, made_by(OLD))))
    assert names_of(pins) == {role: NEW.of(role) for role in images.ROLES}
    assert set(pins.presumed) == set(images.ROLES)
    [line] = pins.warnings
    assert line.startswith(images.PRESUMED) and all(NEW.of(role) in line for role in images.ROLES)


@pytest.mark.parametrize("note", ["", "no json", "[]", "3", '{"debate": 7}', '{"debate": ""}', '{"somebody": "x"}', "[" * 10_000])
def test_an_annotation_that_says_nothing_is_passed_over(note: str) -> None:
    [prepare, *_] = made_by(OLD)
    prepare["metadata"]["annotations"] = {images.IMAGES: note}
    assert names_of(settled(NEW, None, prepare))["debate"] == NAMES["debate"]  # of its template


# --- digests ---


@pytest.mark.parametrize(
    ("image", "image_id", "reference"),
    [
        ("registry/maft/debate:1.0", f"docker.io/registry/maft/debate@{DIGEST}", f"registry/maft/debate@{DIGEST}"),
        ("ghcr.io/o/debate:1.0", f"ghcr.io/o/debate@{DIGEST}", f"ghcr.io/o/debate@{DIGEST}"),
        ("localhost:5001/debate:1.0", f"localhost:5001/debate@{DIGEST}", f"localhost:5001/debate@{DIGEST}"),
        ("debate", f"docker.io/library/debate@{DIGEST}", f"debate@{DIGEST}"),
        ("debate:1.0", f"docker-pullable://docker.io/library/debate@{DIGEST}", f"debate@{DIGEST}"),
        (f"ghcr.io/o/debate@{OTHER}", f"ghcr.io/o/debate@{OTHER}", f"ghcr.io/o/debate@{OTHER}"),
        (f"ghcr.io/o/debate:1.0@{OTHER}", "", f"ghcr.io/o/debate@{OTHER}"),
        # What lies on a node alone, or in another place, cannot be pulled by digest.
        ("ghcr.io/o/debate:1.0", DIGEST, "ghcr.io/o/debate:1.0"),
        ("ghcr.io/o/debate:1.0", f"docker.io/library/import-2026@{DIGEST}", "ghcr.io/o/debate:1.0"),
        ("ghcr.io/o/debate:1.0", f"mirror/o/debate@{DIGEST}", "ghcr.io/o/debate:1.0"),
        ("ghcr.io/o/debate:1.0", "", "ghcr.io/o/debate:1.0"),
    ],
)
def test_a_pod_tells_the_digest(image: str, image_id: str, reference: str) -> None:
    entries = {"debate": {"image": image}}
    pins = settled(NEW, entries, pod_of("debate", image, image_id))
    assert pins.used_by(NEW).of("debate") == reference
    again = settled(NEW, pins.status)  # the pod has gone
    assert again.roles["debate"] == pins.roles["debate"]


def test_the_first_pod_counts_and_a_tag_that_moved_changes_nothing() -> None:
    image = NAMES["debate"]
    ids = [(f"docker.io/registry/maft/debate@{OTHER}", 9), (f"docker.io/registry/maft/debate@{DIGEST}", 3)]
    pods = [pod_of("debate", image, image_id, number=number) for image_id, number in ids]
    pins = settled(NEW, {"debate": {"image": image}}, *pods)
    assert pins.roles["debate"].digest == DIGEST
    assert settled(NEW, pins.status, pods[0]).roles["debate"].digest == DIGEST


def test_a_pod_that_nothing_of_the_run_made_says_nothing() -> None:
    """Its labels say that it is the run's: anybody may make one, and its digest would count to the run's end."""
    stranger = labelled("debate", "r-1-debate", OTHER, number=1)
    of_job = {"kind": "Job", "uid": "uid-r-1-debate", "controller": True}
    owned = labelled("debate", "r-1-debate", DIGEST, of_job, number=2)
    other = labelled("debate", "r-1-debate", OTHER, {**of_job, "uid": "uid-of-a-namesake"}, number=0)
    serves = labelled("inference", "r-server", DIGEST, {"kind": "ReplicaSet", "name": "r-server-5f6d8c", "controller": True})
    serves["metadata"]["labels"]["pod-template-hash"] = "5f6d8c"
    assert seen(stranger, other) == dict.fromkeys(images.ROLES, "")
    assert seen(stranger, owned, other, serves) == {"debate": DIGEST, "inference": DIGEST, "trainer": ""}


def labelled(role: str, child: str, digest: str, *owners: Json, number: int = 0) -> Json:
    pod = pod_of(role, NAMES[role], f"docker.io/registry/maft/{role}@{digest}", number=number)
    about = {"labels": {manifests.RUN: "r", manifests.CHILD: child}, "ownerReferences": list(owners), "uid": f"uid-p{number}"}
    return {**pod, "metadata": {**pod["metadata"], **about}}


def seen(*pods: Json) -> dict[str, str]:
    """The digests that a look at a run under way finds, by role."""
    server = Server(*under_way(OLD), *pods)
    backend = ClusterBackend(server, owner(RUN), planned(RUN), OLD, now=START, applied={})  # type: ignore[arg-type]
    return {role: pin.digest for role, pin in asyncio.run(backend.observe()).pins.roles.items()}


def test_pods_of_other_images_say_nothing() -> None:
    """A user's podTemplate may name another one."""
    image = "ghcr.io/o/debate:1.0"
    pods = [pod_of("debate", "ghcr.io/o/debate:theirs", f"ghcr.io/o/debate@{DIGEST}"), {**pod_of("debate", image, ""), "spec": {}}]
    assert settled(NEW, {"debate": {"image": image}}, *pods).roles["debate"].digest == ""


def test_what_is_never_pulled_is_named_by_its_tag() -> None:
    entries = {"debate": {"image": NAMES["debate"], "digest": DIGEST}}
    assert settled(NEW, entries).used_by(replace(NEW, policy="Never")).of("debate") == NAMES["debate"]


# --- children that exist, through the backend ---


def looked(server: Server, used: Images, entries: Mapping[str, Json], run: Run = RUN, **more: Any) -> list[Json]:
    """Reconciles once; what was applied. more: of the status."""
    applied: list[Json] = []
    whole = server.apply

    async def apply(body: Json) -> Json:
        applied.append(body)
        return await whole(body)

    server.apply = apply  # type: ignore[method-assign]
    backend = ClusterBackend(server, owner(run), planned(run), used, now=START, applied={}, status={"images": entries, **more})  # type: ignore[arg-type]
    asyncio.run(reconcile(backend, planned(run)))
    return applied


def under_way(used: Images, run: Run = RUN) -> list[Json]:
    """A debate with its server, of a run whose checks are done."""
    things = made_by(used, run, names=("r-0-prepare", "r-0-preflight", "r-0-evaluate", "r-1-debate", "r-server"))
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    for thing in things:
        if thing["kind"] == "Job" and thing["metadata"]["name"].startswith("r-0"):
            thing["status"] = ended
    return things


@pytest.mark.parametrize("noted", [True, False], ids=["annotated", "of a release without annotations"])
@pytest.mark.parametrize("kept", [True, False], ids=["status", "status lost"])
def test_an_upgrade_and_a_rollback_write_nothing_to_what_runs(noted: bool, kept: bool) -> None:
    things = under_way(OLD) if noted else [without_notes(thing) for thing in under_way(OLD)]
    status = settled(OLD).status if kept else {}
    assert [looked(Server(*things), later, status) for later in (NEW, OLD, NEW)] == [[], [], []]


def test_a_newer_release_with_other_manifests_leaves_a_server_alone() -> None:
    things = under_way(OLD)
    for thing in things:
        if "template" in thing["spec"]:  # as an older operator made it: without a variable, with another flag
            container = thing["spec"]["template"]["spec"]["containers"][0]
            container["env"] = [e for e in container["env"] if e["name"] != "OMP_WAIT_POLICY"]
            container["args"] = [*container["args"], "--of-the-older-release"]
    status = settled(OLD).status
    assert looked(Server(*things), NEW, status) == []
    assert [body["kind"] for body in looked(Server(*things), OLD, status)] == ["Deployment"]  # its own release takes it back


def test_another_build_of_the_same_version_is_another_release() -> None:
    things = under_way(replace(OLD, tag="1.0-a"))
    for thing in things:
        if thing["kind"] == "Deployment":
            thing["spec"]["template"]["spec"]["containers"][0]["args"] += ["--of-the-other-build"]
    status = settled(replace(OLD, tag="1.0-a")).status
    assert looked(Server(*things), replace(OLD, tag="1.0-b"), status) == []
    assert [body["kind"] for body in looked(Server(*things), replace(OLD, tag="1.0-a"), status)] == ["Deployment"]


def test_the_next_child_is_made_with_the_images_of_the_run() -> None:
    things = [thing for thing in under_way(OLD) if thing["metadata"]["name"] != "r-1-debate"]
    for thing in things:
        if thing["kind"] == "Deployment":
            thing["status"] = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}
    entries = {**settled(OLD).status, "debate": {"image": NAMES["debate"], "digest": DIGEST}}
    [job] = looked(Server(*things), NEW, entries)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry/maft/debate@{DIGEST}"
    assert json.loads(job["metadata"]["annotations"][images.IMAGES])["trainer"] == NAMES["trainer"]
    assert job["metadata"]["annotations"][images.RELEASE] == "2.0"


def test_a_digest_that_becomes_known_restarts_no_server() -> None:
    things = under_way(OLD)
    entries = {role: {"image": name, "digest": DIGEST} for role, name in NAMES.items()}
    assert looked(Server(*things), OLD, entries) == []


def test_a_size_that_becomes_known_or_is_lost_restarts_no_server() -> None:
    large = 40 * 2**30
    for made_for, known in ((0, large), (large, 0), (large, 2 * large)):
        things = under_way(replace(OLD, model_bytes=made_for))
        assert looked(Server(*things), OLD, settled(OLD).status, model={"bytes": known}) == []


def test_a_server_is_made_for_the_size_that_the_status_says() -> None:
    things = [thing for thing in under_way(OLD) if thing["kind"] != "Deployment"]
    for known, memory in ((0, "223Gi"), (40 * 2**30, "104Gi")):
        made = looked(Server(*things), OLD, settled(OLD).status, model={"bytes": known})
        [server] = [thing for thing in made if thing["kind"] == "Deployment"]
        assert server["metadata"]["annotations"][images.MODEL] == str(known)
        [container] = server["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["memory"] == memory


@pytest.mark.parametrize("note", ["", "-5", "1e9", "9" * 25, None, 7, "x"])
def test_a_size_that_somebody_wrote_on_a_child_is_no_reason_to_fail(note: Any) -> None:
    [prepare, *_] = made_by(OLD)
    prepare["metadata"]["annotations"][images.MODEL] = note
    assert images.of_child(OLD, prepare).model_bytes == 0


def test_other_settings_of_the_operator_restart_no_server() -> None:
    things = under_way(OLD)
    changed = replace(OLD, pods=PodSettings(cpu_limits=False))
    assert looked(Server(*things), changed, settled(OLD).status) == []
    assert looked(Server(*under_way(changed)), OLD, settled(OLD).status) == []


def test_a_server_is_made_anew_for_another_pod_template_with_the_images_of_the_run() -> None:
    other = a_run(podTemplate={"spec": {"nodeSelector": {"gpu": "yes"}}})
    [body] = [b for b in looked(Server(*under_way(OLD)), NEW, settled(OLD).status, other) if b["kind"] == "Deployment"]
    pod = body["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "yes"}
    assert pod["containers"][0]["image"] == NAMES["inference"]
    assert body["metadata"]["annotations"][images.RELEASE] == "2.0"


def test_what_may_change_of_a_job_still_changes_under_a_newer_release() -> None:
    [body] = looked(Server(*under_way(OLD)), NEW, settled(OLD).status, a_run(backoffLimit=9))
    assert (body["kind"], body["spec"]["backoffLimit"]) == ("Job", 9)
    before = next(t for t in under_way(OLD) if t["metadata"]["name"] == "r-1-debate")
    assert body["spec"]["template"] == before["spec"]["template"]
    assert body["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_what_a_queue_has_set_stays_the_queues() -> None:
    """Of a Job of another release that is changed, too."""
    things = under_way(OLD)
    job = next(thing for thing in things if thing["metadata"]["name"] == "r-1-debate")
    fields = {"f:spec": {"f:backoffLimit": {}, "f:template": {"f:spec": {"f:restartPolicy": {}}}}}
    job["metadata"]["managedFields"] = [{"manager": "maft", "operation": "Apply", "fieldsV1": fields}]
    job["spec"]["suspend"] = True
    [body] = looked(Server(*things), NEW, settled(OLD).status, a_run(backoffLimit=9))
    assert body["spec"] == {"backoffLimit": 9, "template": {"spec": {"restartPolicy": "Never"}}}


def test_an_image_that_somebody_sets_by_hand_is_taken_back() -> None:
    things = under_way(OLD)
    for thing in things:
        if thing["kind"] == "Deployment":
            thing["spec"]["template"]["spec"]["containers"][0]["image"] = "somebody/else:1"
    [body] = looked(Server(*things), OLD, settled(OLD).status)
    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == NAMES["inference"]


@pytest.mark.parametrize("kind", [k.name for k in kinds.children(isolated=True) if k != kinds.POD])
def test_jobs_and_deployments_carry_the_annotations(kind: str) -> None:
    everything: list[Any] = made_by(replace(OLD, isolated=True))
    noted = [set(t["metadata"].get("annotations", {})) for t in everything if t["kind"] == kind]
    expected = {images.IMAGES, images.RELEASE, images.TEMPLATE, images.MODEL} if kind in ("Job", "Deployment") else set()
    assert noted and all(keys == expected for keys in noted)
