"""Parameter -> variable, and names of objects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runkeys.naming import attempt_name, is_variable_name, object_labels, run_uid_of, secret_variable


@given(st.text(min_size=1, max_size=60))
def test_every_parameter_gives_a_valid_variable(parameter: str) -> None:
    assert is_variable_name(secret_variable(parameter))


_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?", fullmatch=True)


@given(_names, st.uuids(), st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
def test_names_of_attempts_are_names_of_jobs_and_pods(run: str, uid: object, task: str) -> None:
    name = attempt_name(run, str(uid), task, 1)
    assert name.startswith("rk-")
    assert len(name) <= 57, "a Job's pods are named after it with six more characters"
    assert name.replace("-", "").isalnum()
    assert name != attempt_name(run, str(uid), task, 2)
    assert name != attempt_name(run, f"{uid}x", task, 1)


@given(
    _names,
    st.uuids(),
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True),
    st.integers(1, 100),
)
def test_a_job_tells_of_its_run_by_its_name_and_not_by_its_labels_alone(
    run: str, uid: object, task: str, attempt: int
) -> None:
    name, labels = attempt_name(run, str(uid), task, attempt), object_labels(run, str(uid), task)
    assert run_uid_of({"name": name, "labels": labels}) == str(uid)
    for label in ("runkeys.dev/run-uid", "runkeys.dev/task"):
        assert run_uid_of({"name": name, "labels": {**labels, label: "another"}}) == ""
    for other in (name[:-1], f"{name}0", "nightly", f"rk-nightly-{attempt}-0123456789"):
        assert run_uid_of({"name": other, "labels": labels}) == ""
    assert run_uid_of({"name": name}) == ""
