"""Seal values and open them: see :mod:`runkeys.sealing.text`."""

from runkeys.sealing.text import (
    MAX_VALUE as MAX_VALUE,
)
from runkeys.sealing.text import (
    BindingEntry as BindingEntry,
)
from runkeys.sealing.text import (
    Context as Context,
)
from runkeys.sealing.text import (
    ContextMismatchError as ContextMismatchError,
)
from runkeys.sealing.text import (
    Keyring as Keyring,
)
from runkeys.sealing.text import (
    MalformedError as MalformedError,
)
from runkeys.sealing.text import (
    NamespaceEntry as NamespaceEntry,
)
from runkeys.sealing.text import (
    PersonalEntry as PersonalEntry,
)
from runkeys.sealing.text import (
    PrivateKey as PrivateKey,
)
from runkeys.sealing.text import (
    PublicKey as PublicKey,
)
from runkeys.sealing.text import (
    RevealAnswer as RevealAnswer,
)
from runkeys.sealing.text import (
    RunInput as RunInput,
)
from runkeys.sealing.text import (
    SealError as SealError,
)
from runkeys.sealing.text import (
    TooLargeError as TooLargeError,
)
from runkeys.sealing.text import (
    UnknownKeyError as UnknownKeyError,
)
from runkeys.sealing.text import (
    key_id_of as key_id_of,
)
from runkeys.sealing.text import (
    reseal as reseal,
)
from runkeys.sealing.text import (
    seal as seal,
)
