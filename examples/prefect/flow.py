"""A flow as Prefect 1 has it: a secret as an argument, one read directly, and a key-value pair."""

import hashlib

from runkeys.compat.prefect import Flow, PrefectSecret, Secret, get_key_value, set_key_value, task


@task
def log_in(credentials: dict) -> str:
    """Credentials are stored as JSON, so they come as a dictionary."""
    return hashlib.sha256(credentials["token"].encode()).hexdigest()


@task
def note(digest: str) -> str:
    same = hashlib.sha256(Secret("MYSECRET").get()["token"].encode()).hexdigest() == digest
    set_key_value(key="last", value={"digest": digest, "same": same})
    return get_key_value(key="last")["digest"]


with Flow("example") as flow:
    note(log_in(credentials=PrefectSecret("MYSECRET")))


if __name__ == "__main__":
    print("sha256", flow.run()["note"])
