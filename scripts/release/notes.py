"""The notes of a release: what CHANGELOG.md says of the version, how to install it, how to verify it."""

from __future__ import annotations

import re
from itertools import zip_longest

from scripts.release.reference import Image, Registry

UNRELEASED = "Unreleased"
_HEADING = re.compile(r"^## \[(?P<name>[^]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?\s*$", re.MULTILINE)
# Not of another host, not inside of the page, not inside of code.
_RELATIVE_LINK = re.compile(r"(?<!`)(\[[^]\n]*\])\((?![a-z]+:|#)([^)\s]+)\)")


def notes(
    changelog: str, version: str, registry: Registry | None, image: Image | None, page: str, repository: str
) -> str:
    """Return the notes of this version; of what is not released yet if CHANGELOG.md does not have the version.

    :param page: where files of this version can be read; empty: links stay as they are.
    :param repository: ``owner/name`` on GitHub; empty: there is nothing to verify.
    """
    text = section(changelog, version if version in sections(changelog) else UNRELEASED)
    parts = [with_links(text, page) if page else text]
    if registry is not None and image is not None:
        parts.append(installing(version, registry, image))
        if repository:
            parts.append(verifying(version, repository, image))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sections(changelog: str) -> dict[str, str]:
    """Return what stands below each heading of a version, by version. A version without a date is not released.

    :raises ValueError: a version stands there twice, or its heading has no date.
    """
    found: dict[str, str] = {}
    headings = list(_HEADING.finditer(changelog))
    for heading, following in zip_longest(headings, headings[1:]):
        end = following.start() if following else len(changelog)
        name = heading["name"]
        if name in found:
            raise ValueError(f"CHANGELOG.md has two sections [{name}]")
        if name != UNRELEASED and not heading["date"]:
            raise ValueError(f"CHANGELOG.md: [{name}] has no date; write: ## [{name}] - YYYY-MM-DD")
        found[name] = changelog[heading.end() : end].strip()
    return found


def section(changelog: str, version: str) -> str:
    """Return what users notice of a version.

    :raises ValueError: there is no such section, or nothing in it.
    """
    found = sections(changelog)
    if version not in found:
        raise ValueError(f"CHANGELOG.md has no section [{version}]; it has {', '.join(found) or 'none'}")
    if not found[version]:
        raise ValueError(f"CHANGELOG.md says nothing of [{version}]")
    return found[version]


def with_links(text: str, page: str) -> str:
    """Return the text with links from the root of the repository made whole, for a page that is elsewhere.

    :param page: where files of this version can be read, such as ``https://host/owner/name/blob/v1.0.0``.
    """
    return _RELATIVE_LINK.sub(lambda found: f"{found[1]}({page.rstrip('/')}/{found[2]})", text)


def installing(version: str, registry: Registry, image: Image) -> str:
    """Return how to install this version."""
    return f"""## Install

```sh
helm install runkeys {registry.chart} --version {version} --namespace runkeys-system --create-namespace
```

The chart names the image `{image}`. The command line and the client: `pip install 'runkeys[cli]=={version}'`
"""


def verifying(version: str, repository: str, image: Image) -> str:
    """Return how to see that the files come from this repository's workflow.

    :param repository: ``owner/name``, as the attestations spell it.
    """
    workflow = f"https://github.com/{repository}/.github/workflows/release.yml@refs/tags/v{version}"
    issuer = "https://token.actions.githubusercontent.com"
    return f"""## Verify

```sh
cosign verify {image} \\
  --certificate-identity {workflow} \\
  --certificate-oidc-issuer {issuer}
gh attestation verify oci://{image} --repo {repository}
cosign verify-blob SHA256SUMS --bundle SHA256SUMS.sigstore.json \\
  --certificate-identity {workflow} \\
  --certificate-oidc-issuer {issuer}
sha256sum --check --ignore-missing SHA256SUMS
```
"""
