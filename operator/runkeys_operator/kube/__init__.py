"""The API server, as the operator asks it: see :mod:`runkeys_operator.kube.client`."""

from runkeys_operator.kube.client import (
    BEFORE_SENDING as BEFORE_SENDING,
)
from runkeys_operator.kube.client import (
    BINDINGS as BINDINGS,
)
from runkeys_operator.kube.client import (
    CONFIG_MAPS as CONFIG_MAPS,
)
from runkeys_operator.kube.client import (
    EVENTS as EVENTS,
)
from runkeys_operator.kube.client import (
    JOBS as JOBS,
)
from runkeys_operator.kube.client import (
    LEASES as LEASES,
)
from runkeys_operator.kube.client import (
    METADATA_LIST as METADATA_LIST,
)
from runkeys_operator.kube.client import (
    METADATA_ONLY as METADATA_ONLY,
)
from runkeys_operator.kube.client import (
    PODS as PODS,
)
from runkeys_operator.kube.client import (
    REQUESTS as REQUESTS,
)
from runkeys_operator.kube.client import (
    REVEALS as REVEALS,
)
from runkeys_operator.kube.client import (
    RUNS as RUNS,
)
from runkeys_operator.kube.client import (
    SECRETS as SECRETS,
)
from runkeys_operator.kube.client import (
    Connection as Connection,
)
from runkeys_operator.kube.client import (
    Json as Json,
)
from runkeys_operator.kube.client import (
    Kube as Kube,
)
from runkeys_operator.kube.client import (
    Resource as Resource,
)
