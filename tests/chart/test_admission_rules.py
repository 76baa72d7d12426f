"""The expressions of the chart's ValidatingAdmissionPolicy, without an API server: what they let through and what they refuse."""

import functools
from typing import Any

import pytest
from admission_cases import (
    ALLOWED,
    HERE,
    OWN,
    REFUSED,
    SOCIETIES_ALLOWED,
    SOCIETIES_REFUSED,
    STRICT,
    container,
    of_template,
    opened,
    pod,
)
from helm import rendered
from policy import refusals
from small import resource

from maft_operator.spec import schema

Json = dict[str, Any]


@functools.cache
def policy(strict: bool, over: str = "runs") -> Json:
    objects = rendered({"admission": STRICT if strict else OWN})
    [policy] = [o for o in objects if o["kind"] == "ValidatingAdmissionPolicy" and o["metadata"]["name"].endswith(f"-{over}")]
    return policy


def of(**spec: Any) -> Json:
    """A run as the API server has it when the policy sees it."""
    whole = resource("r", **{**HERE, **spec})
    whole["spec"]["storage"] = {name: value for name, value in whole["spec"]["storage"].items() if value is not None}
    return schema.checked(whole)


def compared(**spec: Any) -> Json:
    """The same as the template of a comparison."""
    whole = {**of(), "kind": schema.COMPARISON, "spec": {"template": of(**spec)["spec"], "methods": ["base"]}}
    return schema.checked(whole, schema.COMPARISON)


OVER = {"runs": of, "comparisons": compared}


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_passes(case: str, over: str) -> None:
    assert refusals(policy(True, over), OVER[over](**ALLOWED[case])) == []


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_refused_in_one_line(case: str, over: str) -> None:
    spec, line = REFUSED[case]
    lines = refusals(policy(True, over), OVER[over](**spec))
    assert any(of_template(line, over) in refusal for refusal in lines), lines
    assert not any("\n" in refusal for refusal in lines) and all(
        "or ask who installed maft (admission." in refusal for refusal in lines
    )


@pytest.mark.parametrize(
    "source", [" s3://b/q?endpoint=http://evil", "s\t3://b/q?endpoint=http://evil", "s3\n://b/q?endpoint=http://evil"]
)
def test_white_space_hides_no_server(source: str) -> None:
    """The definition of before did not refuse it, and programs pass over it."""
    whole = of()
    whole["spec"]["task"]["source"] = source
    [line] = refusals(policy(True), whole)
    assert "may not be used here" in line


def test_the_policy_holds_where_the_definition_is_older() -> None:
    """It may be installed by somebody else, and later: nobody could begin a run, otherwise."""
    whole = of()
    for name in ("export", "agentOverrides"):
        del whole["spec"][name]
    assert refusals(policy(True), whole) == []
    whole["spec"]["model"]["trustRemoteCode"] = True
    assert len(refusals(policy(True), whole)) == 1


def test_with_other_values_other_things_pass() -> None:
    assert (
        refusals(policy(False), of(storage={**HERE["storage"], "endpoint": "http://evil"}, model={"trustRemoteCode": True})) == []
    )
    volume = {"name": "v", "emptyDir": {}}
    assert refusals(policy(False), of(**pod(volumes=[volume], containers=[{"name": "proxy", "image": "x"}]))) == []


@pytest.mark.parametrize("empty", ["volumes", "initContainers", "containers"])
def test_a_heading_with_nothing_below_it_asks_for_nothing(empty: str) -> None:
    image = {"containers": [{"name": "proxy", "image": None}]}
    for over, asking in (("runs", of), ("comparisons", compared), ("societies", society)):
        assert refusals(policy(False, over), asking(**pod(**{**image, empty: None}))) == []
        assert refusals(policy(False, over), asking(**pod(**{**image, empty: [None]}))) == []


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("changed", [{"gpuResource": "r.io/kvm"}, {"model": {"cacheClaim": "payroll"}}, container(command=["sh"])])
def test_a_change_is_looked_at_and_what_was_there_stays(changed: Json, over: str) -> None:
    before = OVER[over](**changed)
    assert refusals(policy(True, over), OVER[over](**changed, suspend=True), before) == []
    assert refusals(policy(True, over), before, OVER[over]()) != []


# --- societies ---


def society(**spec: Any) -> Json:
    """As the API server has it when the policy sees it: no field of these has a default."""
    return {"apiVersion": "maft.dev/v1alpha1", "kind": "Society", "metadata": {"name": "s"}, "spec": {"run": "r", **spec}}


OF_PODS = [case for case in REFUSED if set(REFUSED[case][0]) == {"podTemplate"}]


@pytest.mark.parametrize("case", [case for case in ALLOWED if set(ALLOWED[case]) <= {"podTemplate"}])
def test_a_society_may_ask_for_the_same_of_its_pods(case: str) -> None:
    assert refusals(policy(True, "societies"), society(**ALLOWED[case])) == []


@pytest.mark.parametrize("case", OF_PODS)
def test_and_not_for_more(case: str) -> None:
    spec, line = REFUSED[case]
    lines = refusals(policy(True, "societies"), society(**spec))
    assert any(line in refusal for refusal in lines), lines


def test_keys_of_a_society_are_of_a_secret_that_may_be_named() -> None:
    [line] = refusals(policy(True, "societies"), society(apiKeysSecret={"name": "payroll"}))
    assert "the Secret payroll may not be used here, only " in line
    assert refusals(policy(True, "societies"), society(apiKeysSecret={"name": "hub"})) == []


@pytest.mark.parametrize("case", SOCIETIES_ALLOWED)
def test_what_a_society_may_name(case: str) -> None:
    assert refusals(policy(True, "societies"), society(**SOCIETIES_ALLOWED[case])) == []


@pytest.mark.parametrize("case", SOCIETIES_REFUSED)
def test_what_it_may_not_name(case: str) -> None:
    spec, line = SOCIETIES_REFUSED[case]
    assert any(line in refusal for refusal in refusals(policy(True, "societies"), society(**spec)))


@pytest.mark.parametrize("changed", [{"tls": {"secretName": "payroll"}}, opened("bank.io")])
def test_what_opens_a_society_is_looked_at_when_it_changes(changed: Json) -> None:
    assert refusals(policy(True, "societies"), society(**changed), society()) != []
    assert refusals(policy(True, "societies"), society(**changed, replicas=0), society(**changed)) == []


def test_a_society_that_was_there_can_be_scaled() -> None:
    before = society(**container(command=["sh"]))
    assert refusals(policy(True, "societies"), society(**container(command=["sh"]), replicas=0), before) == []
    assert refusals(policy(True, "societies"), before, society()) != []
