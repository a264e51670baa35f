"""Examples of the `joblet` command, for its help and its manual: of each command, what it is for and the line."""

from __future__ import annotations

from collections.abc import Mapping

Example = tuple[str, str]
"""what it is for, and the command line"""

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        ("see whether this host can run jobs, then serve", "joblet doctor && joblet serve"),
        (
            "make the certificates of a server and of a client",
            "joblet certs init && joblet certs issue alice --role admin",
        ),
    ),
    "serve": (
        ("serve with the configuration of the installation", "joblet serve"),
        ("with another one, which is checked before anything starts", "joblet serve --config ./joblet-config.yml"),
    ),
    "init": (
        ("certificates for this machine and an admin's settings, unless they are there", "joblet init"),
        ("clients reach it by another name", "joblet init --host prod.example.com"),
    ),
    "install": (
        ("see what would be written", "joblet install --systemd --dry-run"),
        (
            "make this installation the service of this machine",
            "joblet install --systemd --host prod.example.com && systemctl enable --now joblet",
        ),
        ("lay it out below a directory, for an image", "joblet install --systemd --prefix /mnt/image"),
    ),
    "uninstall": (("stop the service and remove it; jobs and certificates stay", "joblet uninstall"),),
    "doctor": (
        ("say what this host offers, and what to do about each gap", "joblet doctor"),
        ("the same, for programs", "joblet doctor --json"),
        ("try to break out of jobs of the running server", "joblet doctor --escape"),
    ),
    "backup": (("copy the record of all jobs while the server runs", "joblet backup /var/backups/joblet.db"),),
    "restore": (
        (
            "put a copy in place of a damaged record; the server is stopped",
            "systemctl stop joblet && joblet restore /var/backups/joblet.db",
        ),
    ),
    "certs": (
        ("an authority and a server's certificate", "joblet certs init --host prod.example.com"),
        ("a client's, whose role is in it", "joblet certs issue alice --role admin"),
    ),
    "certs init": (
        (
            "an authority, and a certificate for this host and one more name",
            "joblet certs init --host prod.example.com",
        ),
        ("renew the server's certificate for the same hosts", "joblet certs init --force --dir /opt/joblet/certs"),
    ),
    "certs issue": (
        ("a client who may do everything", "joblet certs issue alice --role admin"),
        ("one who may look, for a month", "joblet certs issue dashboard --role viewer --days 30"),
    ),
    "version": (("print the version", "joblet version"),),
}
"""by the words of a command after `joblet`"""
