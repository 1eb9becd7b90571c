"""The requirements of Pod Security's level baseline, for the Jobs that the operator creates.

All of them, as of Kubernetes 1.37: a namespace enforces a level only if it is labelled.
"""

from __future__ import annotations

from collections.abc import Iterator

from runkeys.policies.cel import Object, check, listed, text

LEVEL = "pod-security.kubernetes.io/enforce"

CAPABILITIES = [
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
]
SYSCTLS = [
    "kernel.shm_rmid_forced",
    *(
        f"net.ipv4.{name}"
        for name in (
            *("ip_local_port_range", "ip_local_reserved_ports", "ip_unprivileged_port_start"),
            *("ping_group_range", "tcp_syncookies", "tcp_fin_timeout", "tcp_rmem", "tcp_wmem"),
            *("tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes"),
            *("tcp_slow_start_after_idle", "tcp_notsent_lowat"),
        )
    ),
]
SELINUX_TYPES = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"]
PROFILES = ["RuntimeDefault", "Localhost"]
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""Annotations that begin with it say what `appArmorProfile` says."""

HANDLERS = ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"]

_POD = "object.spec.template.spec"
VARIABLES = {
    "containers": f"{_POD}.containers + {_POD}.?initContainers.orValue([])",
    "contexts": f"[{_POD}.?securityContext.orValue({{}})]"
    " + variables.containers.map(c, c.?securityContext.orValue({}))",
}


def checks(made: str) -> Iterator[Object]:
    """One for what brings a pod near its node, and two for what lets it, or the kubelet, do more than others.

    :param made: CEL: whether the request is about such a Job at all.
    """
    free = f"namespaceObject.metadata.?labels[?{text(LEVEL)}].orValue('') == 'privileged'"
    unless = f", unless the label {LEVEL} of the namespace is privileged"
    for terms, message in ((_near(), _NEAR), (_unconfined(), _UNCONFINED), (_calls(), _CALLS)):
        yield check(f"!({made}) || {free} || ({' && '.join(terms)})", message + unless)


_NEAR = "the operator creates no pod that shares namespaces, paths, ports or devices of its node"


def _near() -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        yield f"!{_POD}.?{field}.orValue(false)"
    yield f"{_POD}.?volumes.orValue([]).all(v, !has(v.hostPath))"
    yield "variables.contexts.all(s, !s.?privileged.orValue(false) && !s.?windowsOptions.?hostProcess.orValue(false))"
    added = f"s.?capabilities.?add.orValue([]).all(a, a in {listed(CAPABILITIES)})"
    yield f"variables.contexts.all(s, {added})"
    yield "variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))"


_UNCONFINED = (
    "the operator creates no pod that is confined less than Pod Security's baseline level requires: by"
    " seccompProfile, appArmorProfile, seLinuxOptions, sysctls, or procMount without hostUsers: false"
)


def _unconfined() -> Iterator[str]:
    profiles = [
        f"s.?{profile}.?type.orValue('RuntimeDefault') in {listed(PROFILES)}"
        for profile in ("seccompProfile", "appArmorProfile")
    ]
    selinux = [f"s.?seLinuxOptions.?type.orValue('') in {listed(SELINUX_TYPES)}"]
    selinux += [f"s.?seLinuxOptions.?{field}.orValue('') == ''" for field in ("user", "role")]
    yield f"variables.contexts.all(s, {' && '.join([*profiles, *selinux])})"
    notes = "object.spec.template.?metadata.?annotations.orValue({})"
    harmless = f"{notes}[k] in ['', 'runtime/default'] || {notes}[k].startsWith('localhost/')"
    yield f"{notes}.all(k, !k.startsWith({text(APPARMOR)}) || {harmless})"
    yield f"{_POD}.?securityContext.?sysctls.orValue([]).all(s, s.name in {listed(SYSCTLS)})"
    masked = "variables.contexts.all(s, s.?procMount.orValue('Default') == 'Default')"
    yield f"(!{_POD}.?hostUsers.orValue(true) || {masked})"


_CALLS = (
    "the operator creates no pod with a host in a probe or lifecycle handler (httpGet.host, tcpSocket.host), which the"
    " kubelet would call from the node"
)


def _calls() -> Iterator[str]:
    hosts = [
        f"c.?{handler.replace('.', '.?')}.?{how}.?host.orValue('') == ''"
        for handler in HANDLERS
        for how in ("httpGet", "tcpSocket")
    ]
    yield f"variables.containers.all(c, {' && '.join(hosts)})"
