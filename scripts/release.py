"""Makes everything that a release is, into one folder: `python -m scripts.release dist`.

Wheel and sdist, tried in a clean environment with the locked dependencies; the chart's package; the list of what is
inside (CycloneDX); checksums. The wheel is built from the sdist, so the sdist is known to be whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runkeys._version import __version__
from testing.cluster import build

ROOT = Path(__file__).resolve().parents[1]
_EXTRA = re.compile(r"\bextra\s*==")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Json = dict[str, Any]


def run(*command: str | Path, **environment: str) -> str:
    """Run a program in the checkout; its output is shown only if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"{Path(command[0]).name} {command[1] if len(command) > 1 else ''} failed")
    return done.stdout


def packages(folder: Path, made: datetime) -> Path:
    """Build sdist and wheel, check both, and return the wheel."""
    moment = {"SOURCE_DATE_EPOCH": str(int(made.timestamp()))}
    tools = Path(sys.executable).parent
    run(
        tools / "uv",
        "build",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        folder,
        **moment,
    )
    (folder / ".gitignore").unlink(missing_ok=True)
    run(tools / "twine", "check", "--strict", *sorted(folder.glob("runkeys-*")))
    [wheel] = folder.glob("*.whl")
    return wheel


def installed(wheel: Path) -> list[Json]:
    """Install the wheel and the operator's locked dependencies into a clean environment, try it, and say what is in it.

    :return: the metadata of each distribution, pip and the like apart.
    """
    with tempfile.TemporaryDirectory() as scratch:
        clean = Path(scratch) / "venv"
        run(sys.executable, "-m", "venv", clean)
        python, alone = clean / "bin" / "python", {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        before = {item["metadata"]["name"] for item in _inspect(python)}
        locked = ROOT / "requirements" / "operator.txt"
        run(*pip, "install", "--require-hashes", "--only-binary=:all:", "-r", locked, **alone)
        run(*pip, "install", "--no-deps", wheel, **alone)
        run(*pip, "check", **alone)
        told = run(python, "-m", "runkeys_operator", "--version", **alone)
        if __version__ not in told:
            raise SystemExit(f"the installed operator calls itself {told.strip()!r}, not {__version__}")
        found = [item["metadata"] for item in _inspect(python)]
    return [item for item in found if item["name"] not in before]


def _inspect(python: Path) -> list[Json]:
    printed = run(python, "-m", "pip", "--disable-pip-version-check", "inspect", PYTHONPATH="")
    found: list[Json] = json.loads(printed)["installed"]
    return found


def sbom(distributions: list[Json], made: datetime) -> Json:
    """What the wheel brings along, as a CycloneDX 1.6 document."""
    refs = {
        _canonical(item["name"]): f"pkg:pypi/{_canonical(item['name'])}@{item['version']}"
        for item in distributions
    }
    hashes = locked_hashes((ROOT / "requirements" / "operator.txt").read_text())
    components = [_component(item, refs, hashes) for item in distributions]
    [main] = [item for item in components if item["name"] == "runkeys"]
    text = json.dumps(sorted(refs.values()))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {
            "timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**main, "type": "application"},
        },
        "components": [item for item in components if item is not main],
        "dependencies": [
            {"ref": refs[_canonical(item["name"])], "dependsOn": sorted(_needed(item, refs))}
            for item in distributions
        ],
    }


def _component(item: Json, refs: dict[str, str], hashes: dict[str, list[str]]) -> Json:
    ref = refs[_canonical(item["name"])]
    licence = item.get("license_expression") or item.get("license") or ""
    component: Json = {
        "type": "library",
        "bom-ref": ref,
        "name": item["name"],
        "version": item["version"],
        "purl": ref,
    }
    if licence and len(licence) < 100:  # some put the whole text there
        component["licenses"] = [{"license": {"name": licence}}]
    digests = hashes.get(_canonical(item["name"]), [])
    if digests:
        # Of every file that the lock allows: for each Python and platform another wheel.
        component["properties"] = [{"name": "runkeys:locked-sha256", "value": digest} for digest in digests]
    return component


def _needed(item: Json, refs: dict[str, str]) -> set[str]:
    names = {
        _canonical(found[0])
        for text in item.get("requires_dist", [])
        if not (_EXTRA.search(text) and item["name"] != "runkeys") and (found := _NAME.match(text))
    }
    return {refs[name] for name in names & refs.keys()}


def locked_hashes(lock: str) -> dict[str, list[str]]:
    """SHA-256 digests of a lock file, by canonical name of the package."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = _canonical(pinned[1])
        elif digest := re.search(r"--hash=sha256:([0-9a-f]{64})", line):
            found.setdefault(name, []).append(digest[1])
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m scripts.release FOLDER\n")
        return 2
    folder = Path(arguments[0]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = datetime.fromtimestamp(int(run("git", "log", "-1", "--format=%ct")), UTC)
    build.ensure(("helm",), sys.stderr)
    wheel = packages(folder, made)
    run(build.program("helm"), "package", ROOT / "helm" / "runkeys", "--destination", folder)
    # helm gives its package the name that the sdist nearly has.
    (folder / f"runkeys-{__version__}.tgz").rename(folder / f"runkeys-chart-{__version__}.tgz")
    document = sbom(installed(wheel), made)
    (folder / f"runkeys-{__version__}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())
    ]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    for path in sorted(folder.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:>9}  {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
