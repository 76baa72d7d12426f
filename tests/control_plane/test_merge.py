"""podTemplate is merged as `kubectl patch --type=strategic` would merge it."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maft_operator.cluster.merge import merged

A = {"name": "a", "image": "x"}
B = {"name": "b", "image": "y"}
OURS = {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "emptyDir": {}}]}
SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}

# what happens: ours, the patch, the result
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a field is added": ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    "a field is replaced": ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
    "objects are merged key by key, at any depth": (
        {"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 1}}},
        {"spec": {"securityContext": {"runAsUser": 2}, "nodeSelector": {"a": "b"}}},
        {"spec": {"securityContext": {"runAsUser": 2, "fsGroup": 1}, "nodeSelector": {"a": "b"}}},
    ),
    "an object replaces what is none": ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "what is none replaces an object": ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
    "false, zero and empty are values": (
        {"a": True, "b": 1, "c": "x"},
        {"a": False, "b": 0, "c": ""},
        {"a": False, "b": 0, "c": ""},
    ),
    "null removes a field": ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
    "null removes at any depth": ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
    "null removes nothing that is not there": ({"a": 1}, {"b": None, "c": {"d": None}}, {"a": 1, "c": {}}),
    "lists without a key are replaced": (
        {"args": ["-m", "x"], "tolerations": [{"key": "a"}]},
        {"args": ["y"], "tolerations": [{"key": "b"}]},
        {"args": ["y"], "tolerations": [{"key": "b"}]},
    ),
    "a list is emptied by an empty list only without a key": (
        {"tolerations": [{"key": "a"}], "containers": [A]},
        {"tolerations": [], "containers": []},
        {"tolerations": [], "containers": [A]},
    ),
    "containers are merged by name, in our order": (
        {"containers": [A, B]},
        {"containers": [{"name": "b", "image": "z"}, {"name": "a", "tty": True}]},
        {"containers": [{**A, "tty": True}, {"name": "b", "image": "z"}]},
    ),
    "a container of another name is added": ({"containers": [A]}, {"containers": [B]}, {"containers": [A, B]}),
    "lists in lists": (
        {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}]},
        {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "Z", "value": "2"}]}]},
        {"containers": [{"name": "a", "env": [{"name": n, "value": v} for n, v in (("X", "1"), ("Y", "2"), ("Z", "2"))]}]},
    ),
    "mounts are merged by path": (
        {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
        {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/other"}]},
        {"volumeMounts": [{"name": "big", "mountPath": "/tmp"}, {"name": "tmp", "mountPath": "/other"}]},
    ),
    "ports are merged by number and protocol, which is TCP where it is not written": (
        {"ports": [{"containerPort": 53, "protocol": "TCP", "name": "dns-tcp"}]},
        {"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "hostPort": 53}]},
        {
            "ports": [
                {"containerPort": 53, "protocol": "TCP", "name": "dns-tcp", "hostPort": 53},
                {"containerPort": 53, "protocol": "UDP"},
            ]
        },
    ),
    "ports are merged by number": (
        {"ports": [{"containerPort": 1, "name": "http"}]},
        {"ports": [{"containerPort": 1, "hostPort": 2}, {"containerPort": 3}]},
        {"ports": [{"containerPort": 1, "name": "http", "hostPort": 2}, {"containerPort": 3}]},
    ),
    "a volume of another kind, the old source removed": (
        OURS,
        {"volumes": [{"name": "cache", "emptyDir": None, "hostPath": {"path": "/c"}}]},
        {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "hostPath": {"path": "/c"}}]},
    ),
    "a volume of another kind": (
        OURS,
        {"volumes": [{"name": "cache", "hostPath": {"path": "/c"}}]},
        {"volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cache", "hostPath": {"path": "/c"}}]},
    ),
    "a volume without a kind that it does not have": (
        OURS,
        {"volumes": [{"name": "cache", "hostPath": None}]},
        OURS,
    ),
    "a variable from a Secret gets a value": (
        {"env": [{"name": "A", "valueFrom": SECRET}, {"name": "B", "value": "1"}]},
        {"env": [{"name": "A", "value": "2"}]},
        {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}]},
    ),
    "a variable with a value gets an empty one": (
        {"env": [{"name": "A", "valueFrom": SECRET}]},
        {"env": [{"name": "A", "value": ""}]},
        {"env": [{"name": "A", "value": ""}]},
    ),
    "a variable with a value comes from a Secret": (
        {"env": [{"name": "A", "value": "1"}]},
        {"env": [{"name": "A", "valueFrom": SECRET}]},
        {"env": [{"name": "A", "valueFrom": SECRET}]},
    ),
    "a variable from a Secret comes from the pod": (
        {"env": [{"name": "A", "valueFrom": SECRET}]},
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
    ),
    "a variable from the same Secret's other key": (
        {"env": [{"name": "A", "valueFrom": SECRET}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "l"}}}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "l"}}}]},
    ),
    "a probe asks otherwise, as often as before": (
        {"livenessProbe": {"httpGet": {"path": "/"}, "periodSeconds": 5}},
        {"livenessProbe": {"exec": {"command": ["true"]}}},
        {"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}},
    ),
    "a probe asks more seldom, in the same way": (
        {"startupProbe": {"httpGet": {"path": "/"}, "periodSeconds": 5}},
        {"startupProbe": {"periodSeconds": 9}},
        {"startupProbe": {"httpGet": {"path": "/"}, "periodSeconds": 9}},
    ),
    "a handler does something else": (
        {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {}}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["true"]}}, "postStart": {"exec": {}}}},
    ),
    "a profile of another type": (
        {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a"}, "runAsUser": 1}},
        {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
        {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1}},
    ),
    "$patch: delete removes an item": (
        OURS,
        {"volumes": [{"name": "cache", "$patch": "delete"}]},
        {"volumes": [{"name": "tmp", "emptyDir": {}}]},
    ),
    "$patch: delete of what is not there is nothing": (OURS, {"volumes": [{"name": "other", "$patch": "delete"}]}, OURS),
    "a keyed list that we do not have": (
        {},
        {"initContainers": [{**A, "tty": None}, {"name": "b", "$patch": "delete"}]},
        {"initContainers": [A]},
    ),
    "what has no names replaces the list, for the API server to refuse": (
        {"containers": [A], "volumes": [{"name": "tmp"}]},
        {"containers": ["text", {"name": "b"}], "volumes": [{"emptyDir": {}}]},
        {"containers": ["text", {"name": "b"}], "volumes": [{"emptyDir": {}}]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_merge(name: str) -> None:
    ours, patch, result = CASES[name]
    assert merged(ours, patch) == result


keyed = ["name", "mountPath", "containers", "env", "volumes", "ports", "containerPort", "protocol"]
alternatives = ["value", "valueFrom", "livenessProbe", "exec", "httpGet"]
names = st.sampled_from(["a", "b", "$patch", "args", *keyed, *alternatives])
leaves = st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "b", "delete"])
values = st.recursive(leaves, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=3), max_leaves=12)
objects = st.dictionaries(names, values, max_size=4)


@given(objects)
def test_an_empty_patch_changes_nothing(ours: dict[str, Any]) -> None:
    assert merged(ours, {}) == ours


@given(objects, objects)
def test_whatever_comes_in_a_merge_ends_and_settles(ours: dict[str, Any], patch: dict[str, Any]) -> None:
    """Users write podTemplate, and its schema lets everything pass."""
    once = merged(ours, patch)
    assert merged(once, patch) == once


@given(objects, objects)
def test_what_comes_in_is_not_changed_and_not_shared(ours: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((ours, patch))
    result = merged(ours, patch)
    spoil(result)
    assert (ours, patch) == before


def spoil(value: Any) -> None:
    """Changes every object and list in it."""
    children = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    for child in children:
        spoil(child)
    if isinstance(value, dict):
        value["spoilt"] = True
    elif isinstance(value, list):
        value.append("spoilt")
