"""`runkeys seal` and `runkeys reseal`."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from runkeys import sealing
from runkeys._text.times import to_seconds
from runkeys._text.words import kubectl, shell
from runkeys.api.binding import NAMESPACE, PERSONAL_SCOPE, STRICT
from runkeys.cli._binding_files import SEALED, BindingFile, Entry
from runkeys.cli._documents import read_documents
from runkeys.cli._framework import Settings, command
from runkeys.cli._in_the_clear import Report
from runkeys.cli._input import read_text, read_value
from runkeys.cli._printing import data, echo
from runkeys.client.trusted_keys import write_whole
from runkeys.problems import Invalid, NotFound, Usage
from runkeys.sealing import Keyring, PrivateKey, PublicKey
from runkeys.sealing.parameter import seal_parameter

_DURATION = re.compile(r"([0-9]{1,4})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_STORED_KEY = re.compile(r"[0-9]{8}T[0-9]{6}Z\.[0-9a-f]{16}")


@command(
    epilog="An unsealed entry has `value: …` or `valueFrom: {file: …}` in place of `sealed: rk1.…`. Keep it only in"
    " your own copy of the file. Seal the file before you apply or commit it."
)
@click.argument("files", nargs=-1, type=click.Path())
@click.option("-f", "--file", "more_files", multiple=True, type=click.Path(), help="Same as FILES.")
@click.option("-w", "--write", is_flag=True, help="Write the files in place instead of printing them.")
@click.option(
    "--check",
    is_flag=True,
    help="Only list values that are not sealed, and fail if there are any: of SecretBindings, WorkflowRuns, Secrets,"
    " and $secrets in files for --input.",
)
@click.option(
    "--public-key", type=click.Path(), help="File with the cluster's public key. No cluster is needed then."
)
@click.option("--binding", help="Seal one value for an entry of this binding.")
@click.option("--entry", help="Name of the entry.")
@click.option(
    "--owner", help="Seal one value for an entry of this user's personal binding, instead of --binding."
)
@click.option(
    "--scope",
    type=click.Choice([STRICT, NAMESPACE]),
    default=None,
    help="What the one value is bound to. Strict (default): this binding and entry. Namespace: the entry's name in any"
    " binding of the namespace.",
)
@click.option("--from-file", type=click.Path(), help="Read the one value from this file, byte for byte.")
@click.option(
    "--for-pods",
    is_flag=True,
    help="Seal one value as a parameter that pods bring along themselves: for annotation runkeys.dev/sealed.",
)
@click.option("--service-account", help="With --for-pods: the service account of these pods.")
@click.option(
    "--expires",
    help="With --for-pods: for how long new pods may bring it, e.g. 30m, 2h or 7d (default 24h). A pod keeps what it"
    " has.",
)
def seal(
    settings: Settings,
    files: tuple[str, ...],
    more_files: tuple[str, ...],
    *,
    write: bool,
    check: bool,
    public_key: str | None,
    binding: str | None,
    entry: str | None,
    owner: str | None,
    scope: str | None,
    from_file: str | None,
    for_pods: bool,
    service_account: str | None,
    expires: str | None,
) -> None:
    """Seal the unsealed values in FILES, or one value from a prompt or standard input.

    \b
      runkeys seal -f binding.yaml -w
      pass show ibm | runkeys seal -n team-a --binding ibm-quantum --entry ibmq-token
      runkeys seal --check binding.yaml
      runkeys seal --for-pods -n team-a --service-account runner --expires 2h
    """  # noqa: D301 -- click wants the character itself
    paths = [*more_files, *files]
    if check:
        _check(settings, paths)
        return
    if for_pods:
        if paths or entry or binding or owner or scope:
            raise Usage("--for-pods seals one value for pods of a service account; leave the others out")
        _seal_for_pods(settings, public_key, service_account or "", expires or "24h", from_file)
        return
    if service_account or expires:
        raise Usage("--service-account and --expires are for --for-pods; add it, or leave them out")
    if paths and (entry or binding or owner or from_file):
        raise Usage("give either files, or one value with --binding and --entry")
    if not paths and not entry:
        raise Usage("give files to seal (-f), or --binding and --entry for one value")
    if not paths:
        context = _context(settings, binding or "", owner or "", entry or "", scope or STRICT)
        # The key first: nobody types a password to learn then that it cannot be used.
        single = _public_key(settings, public_key)
        echo(sealing.seal(read_value(f"entry {entry}", from_file), context, single))
        return
    if scope is not None:
        raise Usage("--scope is for one value; in a file write `scope: Namespace` into the entry")
    opened = [BindingFile(Path(path), read_text(path)) for path in paths]
    key: PublicKey | None = None
    if any(item.source for file in opened for item in file.entries()):
        key = _public_key(settings, public_key)
    else:
        settings.say(f"there is nothing to seal: {_looked_at(settings, opened).summary}")
    for file in opened:
        _seal_file(settings, file, key, write=write)
    left = [item for item in _looked_at(settings, opened).findings if not item.sealable]
    if left:
        raise Invalid(
            "this is in the clear still, since a file with it cannot be sealed:\n"
            + "\n".join(f"  {item}" for item in left)
        )


def _seal_for_pods(
    settings: Settings, public_key: str | None, account: str, expires: str, from_file: str | None
) -> None:
    if settings.namespace is None or not account:
        raise Usage(
            "a parameter of pods is bound to their namespace and service account; give -n and --service-account"
        )
    found = _DURATION.fullmatch(expires)
    if found is None or int(found[1]) == 0:
        raise Usage(f"--expires must be a number and a unit, such as 30m, 2h or 7d; found {expires!r}")
    until = datetime.now(UTC) + timedelta(**{_UNITS[found[2]]: int(found[1])})
    place = sealing.PodParameter(settings.namespace, account)
    key = _public_key(settings, public_key)
    echo(seal_parameter(read_value("the parameter", from_file), place, until, key))
    settings.say(f"pods of {account} that are created before {to_seconds(until)} may bring it")


def _looked_at(settings: Settings, files: list[BindingFile]) -> Report:
    report = Report()
    for file in files:
        report.add(str(file.path), file.text, settings.namespace)
    return report


def _seal_file(settings: Settings, file: BindingFile, key: PublicKey | None, *, write: bool) -> None:
    done: list[str] = []

    def sealed(item: Entry) -> str | None:
        if not item.source or key is None:
            return None
        context = _context_in_file(settings, file, item)
        try:
            text = sealing.seal(file.value(item), context, key)
        except sealing.SealError as error:
            raise Invalid(f"{file.path}, line {item.line}: {item.where}: {error}") from None
        done.append(item.name)
        if item.file:
            settings.say(f"{file.path}: {item.where} is sealed with the content of {item.file}")
        return text

    text = file.sealed(sealed)
    if not write or str(file.path) == "-":
        data(text)
    elif done:
        write_whole(file.path, text)
        settings.say(f"{file.path}: sealed {', '.join(done)}")


def _context_in_file(settings: Settings, file: BindingFile, item: Entry) -> sealing.Context:
    namespace = item.namespace or settings.namespace or ""
    where = f"{file.path}, line {item.line}: {item.where}"
    if item.namespace and settings.namespace not in (None, item.namespace):
        raise Invalid(f"{where}: it is in namespace {item.namespace}, and -n says {settings.namespace}")
    if not namespace:
        raise Invalid(f"{where}: a value is bound to its namespace; write metadata.namespace, or give -n")
    if not item.name:
        raise Invalid(f"{where}: an entry needs a name; write it")
    if item.scope not in ("", STRICT, NAMESPACE):
        raise Invalid(f"{where}: scope must be {STRICT} or {NAMESPACE}")
    if item.owner:
        if item.scope == NAMESPACE:
            raise Invalid(f"{where}: {PERSONAL_SCOPE}")
        return sealing.PersonalEntry(namespace, item.owner, item.name)
    if item.scope == NAMESPACE:
        return sealing.NamespaceEntry(namespace, item.name)
    if not item.binding:
        raise Invalid(f"{where}: a value is bound to its binding; write metadata.name")
    return sealing.BindingEntry(namespace, item.binding, item.name)


def _context(settings: Settings, binding: str, owner: str, entry: str, scope: str) -> sealing.Context:
    if settings.namespace is None:
        raise Usage("a value is bound to its namespace; give -n")
    if owner:
        if binding:
            raise Usage(
                "a value is for a shared binding (--binding) or a personal one (--owner); give one of the two"
            )
        if scope == NAMESPACE:
            raise Usage(f"--scope: {PERSONAL_SCOPE}")
        return sealing.PersonalEntry(settings.namespace, owner, entry)
    if scope == NAMESPACE:
        return sealing.NamespaceEntry(settings.namespace, entry)
    if not binding:
        raise Usage("a value is bound to its binding; give --binding, or --owner, or --scope Namespace")
    return sealing.BindingEntry(settings.namespace, binding, entry)


def _public_key(settings: Settings, path: str | None) -> PublicKey:
    if path is None:
        return settings.client().public_key(settings.say)
    try:
        key = PublicKey.parse(read_text(path))
    except sealing.SealError as error:
        raise Invalid(f"{path}: {error}") from None
    if settings.verbose:
        settings.say(f"sealing with key {key.key_id}, fingerprint {key.fingerprint}")
    return key


def _check(settings: Settings, paths: list[str]) -> None:
    if not paths:
        raise Usage("give files to look at, e.g. runkeys seal --check binding.yaml")
    report = Report()
    for path in paths:
        report.add(path, read_text(path), settings.namespace)
    if report.findings:
        raise Invalid("not everything is sealed:\n" + "\n".join(f"  {item}" for item in report.findings))
    if settings.verbose and report.passed_over:
        settings.say(f"not looked at: {', '.join(report.passed_over)}")
    if report.kinds:
        rest = f", nor the other {len(report.passed_over)} files" if report.passed_over else ""
        settings.say(
            f"{report.summary}: nothing is in the clear there. Other fields and kinds were not looked at{rest}"
        )
    else:
        settings.say(report.summary)


@command()
@click.argument("files", nargs=-1, type=click.Path())
@click.option("-f", "--file", "more_files", multiple=True, type=click.Path(), help="Same as FILES.")
@click.option("-w", "--write", is_flag=True, help="Write the files in place instead of printing them.")
@click.option("--keys", type=click.Path(), help="Backup of the cluster's private keys: a Secret as YAML.")
def reseal(
    settings: Settings,
    files: tuple[str, ...],
    more_files: tuple[str, ...],
    *,
    write: bool,
    keys: str | None,
) -> None:
    """Seal the values in FILES again with the newest key. Each value stays bound to its own place.

    Resealing needs the private keys. If you have their backup, give it with --keys. Without --keys, the command prints
    how to reseal in the operator's pod.
    """
    paths = [*more_files, *files]
    if not paths:
        raise Usage("give files to seal again (-f)")
    if keys is None:
        keys_there = (
            "exec",
            "-i",
            "deploy/runkeys",
            "--",
            "python",
            "-m",
            "runkeys_operator",
            "keys",
            "reseal",
        )
        raise Usage(
            "only the private keys open sealed values, and only the operator has them. Run this where they are:\n"
            f"  {shell('cat', *paths)} | {kubectl(settings.operator(), *keys_there)} > resealed.yaml\n"
            "or this here, with a backup of the keys:"
            f" {shell('runkeys', 'reseal', '--keys', 'keys.yaml', '-w', *paths)}"
        )
    keyring = _keyring(keys)
    for path in paths:
        _reseal_file(settings, BindingFile(Path(path), read_text(path)), keyring, write=write)


def _reseal_file(settings: Settings, file: BindingFile, keyring: Keyring, *, write: bool) -> None:
    done: list[str] = []

    def resealed(item: Entry) -> str | None:
        text = item.text(SEALED)
        if text is None:
            return None
        context = _context_in_file(settings, file, item)
        try:
            fresh = sealing.reseal(text, context, keyring)
        except sealing.SealError as error:
            raise Invalid(f"{file.path}, line {item.line}: {item.where}: {error}") from None
        if fresh == text:
            return None
        done.append(item.name)
        return fresh

    text = file.sealed(resealed)
    if not write:
        data(text)
        return
    if done:
        write_whole(file.path, text)
    settings.say(f"{file.path}: sealed again {', '.join(done) or 'nothing'}")


def _keyring(path: str) -> Keyring:
    """Return the keys of a backup. The key whose name sorts last is the newest."""
    stored = next(iter(read_documents(path, read_text(path))), None)
    data = stored.get("data") if isinstance(stored, dict) else None
    names = sorted(name for name in data or {} if _STORED_KEY.fullmatch(str(name)))
    if not names or data is None:
        raise NotFound(
            f"{path} has no keys: it must be the Secret runkeys-sealing-keys as"
            " `kubectl get secret runkeys-sealing-keys -o yaml` prints it"
        )
    newest, *older = [_private(path, name, data[name]) for name in reversed(names)]
    return Keyring(newest, older)


def _private(path: str, name: str, text: object) -> PrivateKey:
    try:
        return PrivateKey.from_seed(base64.b64decode(str(text), validate=True))
    except (ValueError, sealing.SealError):
        problem = Invalid(f"{path}: key {name} is damaged; use another copy of the backup")
    raise problem
