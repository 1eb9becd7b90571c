"""The service. For the qhub runtime the import is `from qhub.commons.secret import SecretValue`."""

import hashlib
import hmac

from pydantic import BaseModel

from runkeys import SecretValue


class InputData(BaseModel):
    endpoint: str


class Result(BaseModel):
    endpoint: str
    signature: str


def run(data: InputData, api_token: SecretValue) -> Result:
    """Sign the endpoint with the token, as services do that do not send the token itself."""
    key = api_token.unwrap().encode()
    signature = hmac.new(key, data.endpoint.encode(), hashlib.sha256).hexdigest()
    return Result(endpoint=data.endpoint, signature=signature)
