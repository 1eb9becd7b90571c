"""The operator's client of the API server."""

from runkeys_operator.kube.answers import Json as Json
from runkeys_operator.kube.client import METADATA_LIST as METADATA_LIST
from runkeys_operator.kube.client import METADATA_ONLY as METADATA_ONLY
from runkeys_operator.kube.client import Kube as Kube
from runkeys_operator.kube.resources import BINDINGS as BINDINGS
from runkeys_operator.kube.resources import CONFIG_MAPS as CONFIG_MAPS
from runkeys_operator.kube.resources import EVENTS as EVENTS
from runkeys_operator.kube.resources import JOBS as JOBS
from runkeys_operator.kube.resources import LEASES as LEASES
from runkeys_operator.kube.resources import PODS as PODS
from runkeys_operator.kube.resources import REQUESTS as REQUESTS
from runkeys_operator.kube.resources import REVEALS as REVEALS
from runkeys_operator.kube.resources import RUNS as RUNS
from runkeys_operator.kube.resources import SECRETS as SECRETS
from runkeys_operator.kube.resources import STORES as STORES
from runkeys_operator.kube.resources import Resource as Resource
