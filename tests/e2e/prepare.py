"""Make beforehand whatever the end-to-end tests need and that takes long to make: ``python -m tests.e2e.prepare``.

Otherwise the first test that needs it would make it, with the other workers waiting behind and nothing to be seen.
"""

from __future__ import annotations

import sys

from testing.cluster import build, images, providers
from testing.cluster.__main__ import build_all
from testing.cluster.base import ClusterError
from testing.cluster.golang import GoMissing, build_module, module_folder
from testing.stores.csi import SOURCE as CSI_PROVIDER
from tests.e2e.gitops.test_definitions import DEFINITIONS, PINS
from tests.e2e.gitops.test_kstatus import SOURCES as KSTATUS
from tests.e2e.test_sealing_go import SOURCE as SEALING

TOOLS = ("kwok", "prometheus", "actionlint", "crane")


def main() -> int:
    """Exit status: 0 all is there, 1 something could not be made."""
    try:
        groups = providers.groups()
        build.ensure((*groups, *TOOLS), out=sys.stderr)
        for source in (KSTATUS, SEALING, CSI_PROVIDER):
            _say(f"Go program {source.name}")
            build_module(source)
        for module in DEFINITIONS:
            _say(f"Go module {module}")
            module_folder(PINS, module)
        build_all("")
        if providers.choose() != "existing":
            for make in (images.operator_image, images.sdk_image):
                _say(f"image {make().stem}")
    except (ClusterError, build.BuildError, GoMissing) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
