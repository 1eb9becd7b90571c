"""A wrapper for a secret value. The value can be unwrapped once, and is not shown otherwise."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, NoReturn, Self

from runkeys import masking

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

REDACTED = masking.MASK

# With digests, two wrapped values can be compared after they were unwrapped, without keeping the values. The key exists
# only in this process, so that a digest in a core dump reveals nothing without it.
_KEY = secrets.token_bytes(32)


class SecretValue:
    """A secret as a task's parameter. :meth:`unwrap` returns the value once, all else shows ``[redacted]``.

    ``str``, ``repr``, ``format``, pydantic's ``model_dump`` and JSON never contain the value. Pickling raises
    TypeError. A copy is the same object, so that the value cannot be unwrapped a second time. Two objects are equal if
    their values and their lock states are equal. They cannot be hashed. In the input of a pydantic model, write
    ``{"value": "…"}``.
    """

    __slots__ = ("_digest", "_kept")

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a SecretValue wraps a str, not {type(value).__name__}")
        self._kept = [value]
        self._digest = hashlib.blake2b(value.encode(errors="surrogatepass"), key=_KEY).digest()

    def unwrap(self) -> str:
        """Return the value, but only the first time. From then on, it is masked in a task's output.

        :raises ValueError: the value was already unwrapped.
        """
        try:
            value = self._kept.pop()  # one step, so that of two threads one gets it
        except IndexError:
            value = None
        if value is None:
            raise ValueError(
                "Secret is locked and cannot be unwrapped: unwrap() returns the value only once, so keep it"
            )
        masking.remember(value)
        return value

    @property
    def is_locked(self) -> bool:
        """Whether the value was unwrapped."""
        return not self._kept

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretValue):
            return NotImplemented
        same = secrets.compare_digest(self._digest, other._digest)
        return same and self.is_locked == other.is_locked

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return REDACTED

    def __repr__(self) -> str:
        return f"{type(self).__name__}({REDACTED})"

    def __format__(self, spec: str) -> str:
        return format(REDACTED, spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a SecretValue cannot be pickled: pass on the name of the secret, and read the secret there"
        )

    # pydantic

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        # Two steps, since the message of an error shows what was given to the step that raised it.
        return core_schema.chain_schema(
            [
                core_schema.no_info_plain_validator_function(cls._take),
                core_schema.no_info_plain_validator_function(cls._refuse),
            ],
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        value = {"type": "string", "format": "password", "writeOnly": True}
        return {
            "type": "object",
            "properties": {"value": value},
            "required": ["value"],
            "additionalProperties": False,
        }

    @classmethod
    def _take(cls, given: Any) -> SecretValue | _Refused:
        if isinstance(given, cls):
            return given
        if isinstance(given, dict) and set(given) == {"value"} and isinstance(given["value"], str):
            return cls(given["value"])
        return _Refused(type(given).__name__)

    @classmethod
    def _refuse(cls, taken: SecretValue | _Refused) -> SecretValue:
        if isinstance(taken, _Refused):
            raise ValueError(  # noqa: TRY004 -- pydantic takes it for a wrong value
                f'a secret must be a SecretValue or {{"value": "…"}}; found type {taken.kind}'
            )
        return taken


class _Refused:
    """Stands for an input that is not a SecretValue but may contain a secret."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return REDACTED
