"""The committed policies are those of the code, and a policy that was changed does not pass for the one it was."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runkeys.api import WorkflowRun
from runkeys.planning.requirements import SealedSupport
from runkeys.policies import (
    STORE_RULES,
    VALIDATING,
    VALIDATING_RULES,
    Account,
    build,
    build_asking,
    difference,
    served,
)
from runkeys.policies.__main__ import (
    chart_template,
    chart_template_for_pods,
    chart_template_for_stores,
    main,
    plain_files,
)
from runkeys.policies.runs import MOST_BINDINGS

CHECKOUT = Path(__file__).resolve().parents[3]
TEMPLATES = CHECKOUT / "helm" / "runkeys" / "templates"
RUNKEYS = Account.service_account("runkeys-system", "runkeys")


def test_committed_files_are_those_of_the_code() -> None:
    found = {path.name: path.read_text() for path in (CHECKOUT / "policies").glob("*.yaml")}

    assert found == plain_files(RUNKEYS), (
        "the policies have changed: run `make policies` and commit what it writes"
    )


def test_the_committed_template_is_that_of_the_code() -> None:
    found = (TEMPLATES / "policies.yaml").read_text()

    assert found == chart_template(), (
        "the policies have changed: run `make policies` and commit what it writes"
    )
    assert (TEMPLATES / "policies-pods.yaml").read_text() == chart_template_for_pods()
    assert (TEMPLATES / "policies-stores.yaml").read_text() == chart_template_for_stores()


def test_the_operator_may_read_each_policy() -> None:
    rights = (TEMPLATES / "policies-rbac.yaml").read_text()
    listed, for_pods = re.findall(r"range list (.*) }}", rights)

    assert re.findall(r'"(\w+)"', listed) == list(VALIDATING_RULES)
    names = [
        item["metadata"]["name"]
        for item in build_asking(RUNKEYS, support=SealedSupport(image="i"))
        if item["kind"] == VALIDATING
    ]
    assert [f"runkeys-{name}.{RUNKEYS.suffix}" for name in re.findall(r'"([\w-]+)"', for_pods)] == names
    for name in STORE_RULES:
        assert f"- runkeys-{name}." in rights


def test_policies_on_the_kind_of_stores_are_there_only_where_stores_are_used() -> None:
    def names(account: Account) -> set[str]:
        return {item["metadata"]["name"] for item in build(account)}

    with_stores = Account.service_account("runkeys-system", "runkeys", ("bao",))
    assert names(with_stores) - names(RUNKEYS) == set(map(with_stores.name_of, STORE_RULES))
    assert names(RUNKEYS) >= {RUNKEYS.name_of("stores"), RUNKEYS.name_of("tokens")}


def test_there_is_a_check_for_each_binding_that_a_run_can_name() -> None:
    bindings = WorkflowRun.model_json_schema(by_alias=True)["$defs"]["WorkflowRunSpec"]["properties"][
        "bindings"
    ]

    assert bindings["maxItems"] == MOST_BINDINGS


def test_every_operator_has_policies_of_its_own() -> None:
    one, other = (
        {item["metadata"]["name"] for item in build(Account.service_account(namespace, "runkeys"))}
        for namespace in ("a", "b")
    )

    assert not one & other
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in one)


def test_a_user_can_be_the_operator() -> None:
    account = Account("https://id.example#Jo Doe", "here")

    assert account.suffix == "https-id-example-jo-doe"
    assert Account.home_of(account.username) == ""
    assert Account.home_of("system:serviceaccount:a:b") == "a"


def test_namespaces_are_named_in_every_binding_but_that_which_holds_the_operator() -> None:
    bindings = [item for item in build(RUNKEYS, ["b", "a"]) if item["kind"].endswith("Binding")]
    found = {item["metadata"]["name"].partition(".")[0]: served(item) for item in bindings}

    assert found.pop("runkeys-operator") is found.pop("runkeys-tokens") is None
    assert set(map(str, found.values())) == {"['a', 'b']"}
    assert {served(item) for item in build(RUNKEYS)} == {None}


def test_a_selector_of_another_shape_is_for_nobody() -> None:
    selector = {"matchLabels": {"team": "a"}}
    values = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a"]}

    assert served({"spec": {"matchResources": {"namespaceSelector": selector}}}) == []
    for other in (
        {"matchExpressions": [values], **selector},
        {"matchExpressions": [values, values]},
        {"matchExpressions": [{**values, "operator": "NotIn"}]},
        {"matchExpressions": [{**values, "key": "team"}]},
    ):
        assert served({"spec": {"matchResources": {"namespaceSelector": other}}}) == [], other


# what counts as a difference

Change = Callable[[dict[str, Any]], object]


def _narrowed(spec: dict[str, Any]) -> object:
    return spec.update(matchConditions=[{"name": "never", "expression": "false"}])


def _without_the_last_check(spec: dict[str, Any]) -> object:
    return spec["validations"].pop()


def _lenient(spec: dict[str, Any]) -> object:
    return spec.update(failurePolicy="Ignore")


def _for_some_objects(spec: dict[str, Any]) -> object:
    return spec["matchConstraints"].update(objectSelector={"matchLabels": {"a": "b"}})


def _with_exceptions(spec: dict[str, Any]) -> object:
    return spec["matchConstraints"].update(excludeResourceRules=[{"resources": ["*"]}])


def _another_expression(spec: dict[str, Any]) -> object:
    return spec["validations"][3].update(expression="true")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_narrowed, "spec.matchConditions"),
        (_without_the_last_check, "spec.validations"),
        (_lenient, "spec.failurePolicy"),
        (_for_some_objects, "spec.matchConstraints.objectSelector"),
        (_with_exceptions, "spec.matchConstraints.excludeResourceRules"),
        (_another_expression, "spec.validations[3].expression"),
    ],
)
def test_what_was_changed_is_told(change: Change, where: str) -> None:
    expected = build(RUNKEYS)[0]["spec"]
    found = copy.deepcopy(expected)
    assert difference(expected, found) is None
    change(found)

    told = difference(expected, found)

    assert told is not None
    assert told.startswith(where)


def test_what_a_later_server_adds_and_leaves_empty_is_no_difference() -> None:
    expected = build(RUNKEYS)[0]["spec"]
    found = {**copy.deepcopy(expected), "paramKind": None, "auditAnnotations": [], "more": {}}
    found["matchConstraints"]["excludeResourceRules"] = []

    assert difference(expected, found) is None


# by hand


def test_they_can_be_printed_for_another_account(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["print", "system:serviceaccount:ops:keys", "ops", "team-a"]) == 0
    printed = capsys.readouterr().out

    assert "runkeys-use.ops.keys" in printed
    assert "- team-a" in printed
    assert "runkeys-system" not in printed


@pytest.mark.parametrize("arguments", [[], ["print"], ["print", "--help", "x"], ["write", "x"]])
def test_how_it_is_used_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err
