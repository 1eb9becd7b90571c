"""Variables of secret parameters, as services of the qhub runtime expect them."""

from __future__ import annotations

import pytest

from runkeys.names import secret_variable


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ("api_token", "SECRET_API_TOKEN"),
        ("ibmToken", "SECRET_IBM_TOKEN"),
        ("iqm_token", "SECRET_IQM_TOKEN"),
        ("database_password", "SECRET_DATABASE_PASSWORD"),
    ],
)
def test_row_06_names_of_the_documents(parameter: str, variable: str) -> None:
    assert secret_variable(parameter) == variable


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ("IBMToken", "SECRET_I_B_M_TOKEN"),
        ("userID", "SECRET_USER_I_D"),
        ("token2Value", "SECRET_TOKEN2_VALUE"),
        ("API_KEY", "SECRET_API_KEY"),
        ("APIKEY", "SECRET_APIKEY"),
    ],
)
def test_row_07_inner_capitals(parameter: str, variable: str) -> None:
    assert secret_variable(parameter) == variable


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ("api_Token", "SECRET_API__TOKEN"),
        ("_x", "SECRET__X"),
        ("ibmq-token", "SECRET_IBMQ_TOKEN"),
        ("my.token", "SECRET_MY_TOKEN"),
        ("my secret?", "SECRET_MY_SECRET_"),
    ],
)
def test_row_08_other_characters(parameter: str, variable: str) -> None:
    assert secret_variable(parameter) == variable
