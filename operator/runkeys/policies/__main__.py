"""Writes the policies: ``python -m runkeys.policies write policies/ …`` (``make policies``), or prints them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from runkeys.planning.requirements import UNSEAL_RESOURCES, SealedSupport
from runkeys.policies import API, MUTATING, STORE_RULES, Account, build, build_asking
from runkeys.policies.asking import resources_cel
from runkeys.policies.cel import Object

HEADER = "# Generated from operator/runkeys/policies/ by `make policies`. Do not edit.\n"

_NAMESPACE, _NAME, _SERVED = "RELEASE-NAMESPACE", "ACCOUNT-NAME", "SERVED-NAMESPACE"
_IMAGE, _RESOURCES = "OPERATOR-IMAGE", "UNSEAL-RESOURCES"
_AUDIENCE = "STORE-AUDIENCE"
_ACCOUNT = Account.service_account(_NAMESPACE, _NAME, (_AUDIENCE,))
_SELECTOR = re.compile(r"( +)namespaceSelector:\n(?:\1 +.*\n|\1- .*\n)*?\1 +.*" + _SERVED + r"\n")


def plain_files(account: Account, namespaces: Sequence[str] = ()) -> dict[str, str]:
    """Return the files of ``policies/``, text by name: one for every server, one for servers since 1.36."""
    texts = {"validating.yaml": HEADER, "mutating.yaml": f"{HEADER}# For Kubernetes 1.36 and later.\n"}
    for item in build(account, namespaces):
        labelled = {**item, "metadata": {**item["metadata"], "labels": {"app.kubernetes.io/name": "runkeys"}}}
        texts["mutating.yaml" if _is_mutating(item) else "validating.yaml"] += f"---\n{_yaml(labelled)}"
    return texts


def chart_template() -> str:
    """Return the chart's template: the same policies for the release's own account and served namespaces."""
    return _template(
        ".Values.installPolicies", [item for item in build(_ACCOUNT, [_SERVED]) if not _is_for_stores(item)]
    )


def chart_template_for_stores() -> str:
    """Return the chart's template of the policy that is there only where SecretStores are used."""
    items = [item for item in build(_ACCOUNT, [_SERVED]) if _is_for_stores(item)]
    return _template("and .Values.installPolicies .Values.stores.enabled", items)


def chart_template_for_pods() -> str:
    """Return the chart's template of the policies on pods that ask for secrets themselves."""
    items = build_asking(_ACCOUNT, [_SERVED], support=SealedSupport(image=_IMAGE))
    text = _template("and .Values.installPolicies .Values.pods.enabled", items)
    resources = resources_cel(UNSEAL_RESOURCES)
    plain = re.sub(r"\s+".join(re.escape(part) for part in resources.split()), _RESOURCES, text)
    return plain.replace(_IMAGE, '{{ include "runkeys.image" $ }}').replace(
        _RESOURCES, '{{ include "runkeys.unsealResources" $ }}'
    )


def _template(condition: str, items: Sequence[Object]) -> str:
    text = HEADER + '{{- include "runkeys.defaults" . -}}\n' + f"{{{{- if {condition} }}}}\n"
    for item in items:
        served_here = _SELECTOR.sub(_served_by_the_release, _yaml(item))
        labels = '  labels:\n    {{- include "runkeys.labels" $ | nindent 4 }}\n'
        one = "---\n" + served_here.replace("\nspec:", f"\n{labels}spec:", 1)
        if _is_mutating(item):
            has = f'.Capabilities.APIVersions.Has "{API}/{MUTATING}"'
            one = f"{{{{- if {has} }}}}\n{one}{{{{- end }}}}\n"
        text += one
    text = text.replace(f'["{_AUDIENCE}"]', '{{ include "runkeys.storeAudiences" $ }}')
    text = text.replace(_NAMESPACE, "{{ $.Release.Namespace }}").replace(
        _NAME, '{{ include "runkeys.name" $ }}'
    )
    return text + "{{- end }}\n"


def _served_by_the_release(found: re.Match[str]) -> str:
    indent = found[1]
    include = f'{{{{- include "runkeys.served" $ | nindent {len(indent) + 2} }}}}'
    return f"{indent}namespaceSelector:\n{indent}  {include}\n"


def _is_for_stores(item: Object) -> bool:
    return bool(item["metadata"]["name"] in map(_ACCOUNT.name_of, STORE_RULES))


def _is_mutating(item: Object) -> bool:
    return str(item["kind"]).startswith(MUTATING)


def _yaml(item: Object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            del data
            return True

    text: str = yaml.dump(item, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text


def main(arguments: list[str]) -> int:
    """Write ``policies/`` and the chart's template, or print the policies for another account.

    :return: exit code: 0, or 2 for wrong arguments.
    """
    match arguments:
        case ["write", folder, template, for_pods, for_stores]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, text in plain_files(Account.service_account("runkeys-system", "runkeys")).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            Path(template).write_text(chart_template(), encoding="utf-8")
            Path(for_pods).write_text(chart_template_for_pods(), encoding="utf-8")
            Path(for_stores).write_text(chart_template_for_stores(), encoding="utf-8")
        case ["print", username, namespace, *namespaces] if not username.startswith("-"):
            files = plain_files(Account(username, namespace), namespaces)
            sys.stdout.write("".join(files.values()))
        case ["print-with-stores", audiences, username, namespace, *namespaces] if not audiences.startswith(
            "-"
        ):
            account = Account(username, namespace, tuple(audiences.split(",")))
            sys.stdout.write("".join(plain_files(account, namespaces).values()))
        case ["print-for-pods", image, username, namespace, *namespaces] if not image.startswith("-"):
            items = build_asking(Account(username, namespace), namespaces, support=SealedSupport(image=image))
            sys.stdout.write("".join(f"---\n{_yaml(item)}" for item in items))
        case _:
            sys.stderr.write(
                "usage: python -m runkeys.policies write FOLDER TEMPLATE TEMPLATE-FOR-PODS TEMPLATE-FOR-STORES\n"
                "       python -m runkeys.policies print USERNAME OPERATOR-NAMESPACE [SERVED-NAMESPACE...]\n"
                "       python -m runkeys.policies print-with-stores AUDIENCE[,AUDIENCE...] USERNAME OPERATOR-NAMESPACE"
                " [SERVED-NAMESPACE...]\n"
                "       python -m runkeys.policies print-for-pods OPERATOR-IMAGE USERNAME OPERATOR-NAMESPACE"
                " [SERVED-NAMESPACE...]\n"
            )
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
