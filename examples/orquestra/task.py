"""A task that asks for a secret by its name."""

import hashlib

from runkeys.compat import orquestra as sdk


def run_circuit() -> str:
    # On a laptop config_name says which cluster; in a pod it is ignored.
    token = sdk.secrets.get("ibm_token", config_name="lab")
    return hashlib.sha256(token.encode()).hexdigest()


if __name__ == "__main__":
    print("sha256", run_circuit())
