"""Sockets that reach past the network's ordinary use, and other processes' sockets on this host."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from joblet.escape.attempts.calls import landlock_abi
from joblet.escape.attempts.frame import Context, Gap, attempt, preparing, reached, try_each

AF_ALG, AF_VSOCK, AF_XDP = 38, 40, 44
IPPROTO_SCTP, IPPROTO_MPTCP = 132, 262
NETLINK_AUDIT, NETLINK_NETFILTER, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC = 9, 12, 15, 16
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
SO_MARK = 36
SOCK_DIAG = 4

SCOPES = Gap(
    "Landlock ABI 6 (Linux 6.12), which keeps a job from abstract unix sockets outside of it",
    "run no service that trusts whoever connects to its abstract unix socket, or use Linux 6.12 or newer",
    lambda: landlock_abi() < 6,
)


def open_socket(family: int, kind: int, protocol: int = 0) -> str:
    socket.socket(family, kind, protocol).close()
    return "have one"


@attempt("open a socket to the hypervisor (AF_VSOCK)", "EPERM")
def vsock(context: Context) -> str:
    return open_socket(AF_VSOCK, socket.SOCK_STREAM)


@attempt("write network packets by hand (AF_INET, SOCK_RAW)", "EPERM")
def raw(context: Context) -> str:
    return open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attempt("read the host's network traffic (AF_PACKET)", "EPERM")
def packet(context: Context) -> str:
    return open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@attempt("take packets before the host does (AF_XDP)", "EPERM")
def xdp(context: Context) -> str:
    return open_socket(AF_XDP, socket.SOCK_RAW)


@attempt("use the kernel's ciphers (AF_ALG)", "EPERM")
def alg(context: Context) -> str:
    return open_socket(AF_ALG, socket.SOCK_SEQPACKET)


@attempt("write to the host's audit (netlink)", "EPERM")
def audit(context: Context) -> str:
    return open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)


@attempt("change the host's firewall (netlink)", "EPERM")
def netfilter(context: Context) -> str:
    return open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


@attempt("listen to and send device events (netlink)", "EPERM")
def uevent(context: Context) -> str:
    return open_socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)


@attempt("list the host's sockets (netlink)", "EPERM")
def diagnose(context: Context) -> str:
    return open_socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG)


@attempt("talk to drivers (generic netlink)", "EPERM")
def generic(context: Context) -> str:
    return open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)


@attempt("have the kernel load a protocol (SCTP)", "EPERM")
def load_protocol(context: Context) -> str:
    """The kernel looks for a module before it says that there is none."""
    return reached([errno.EPROTONOSUPPORT], lambda: open_socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP))


@attempt("change a network interface of the host (SIOCSIFFLAGS)", "EPERM")
def interface(context: Context) -> str:
    with preparing("read the flags of lo"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        flags = fcntl.ioctl(one, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, flags)
    return "set the flags that lo had"


@attempt("mark packets to get past the firewall (SO_MARK)", "EPERM")
def mark(context: Context) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, SO_MARK, 1)
    return "marked them"


@attempt("pretend to be a service of the host (a port below 1024)", "EACCES")
def privileged_port(context: Context) -> str:
    for port in range(1023, 900, -1):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
            return f"bound port {port}"
    raise RuntimeError("every port is in use")


@attempt("connect to an abstract socket of the host", "EPERM", gap=SCOPES)
def abstract_host(context: Context) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + context["host"]["abstract"])
    return "connected"


@attempt("connect to an abstract socket of another job", "EPERM", gap=SCOPES)
def abstract_job(context: Context) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + context["job"]["abstract"])
    return "connected"


@attempt("send a datagram to an abstract socket of the host", "EPERM", gap=SCOPES)
def abstract_datagram(context: Context) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", "\0" + context["host"]["abstract_datagram"])
    return "sent it"


@attempt("connect to a socket in the host's /tmp", "ENOENT")
def host_socket(context: Context) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(context["host"]["socket"])
    return "connected"


@attempt("connect to a socket in another job's work directory", "absent")
def job_socket(context: Context) -> str:
    def connect(path: str) -> str:
        place = os.open(os.path.dirname(path), os.O_PATH)  # a path of any length
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(f"/proc/self/fd/{place}/{os.path.basename(path)}")
        return "connected"

    name = context["job"]["name"] + ".socket"
    return try_each([context["job"]["directory"] + "/work/" + name, "/work/" + name], connect)


@attempt("connect to a service of the host by its socket (docker, dbus, systemd)", "absent")
def services(context: Context) -> str:
    def connect(path: str) -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
        return f"connected to {path}"

    return try_each(
        [
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/dbus/system_bus_socket",
            "/run/systemd/private",
            "/run/systemd/journal/stdout",
            "/dev/log",
        ],
        connect,
    )
