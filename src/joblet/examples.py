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
    "audit": (
        ("whether the log of who asked for what is as it was written", "joblet audit verify"),
        ("who ran job 17, and why it ended", "joblet audit show --job 17"),
    ),
    "audit verify": (
        ("the log of this server, with all its files", "joblet audit verify"),
        ("copies of it on another machine", "joblet audit verify audit.log.000000000001 audit.log"),
        (
            "that a line told of before is still there, whatever root has done since",
            "joblet audit verify --expect 4711:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        ),
    ),
    "audit show": (
        ("who ran job 17, and why it ended", "joblet audit show --job 17"),
        ("what was denied since yesterday", "joblet audit show --denied --since 1d"),
        ("all that alice asked for, for programs", "joblet audit show --client alice --json"),
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
        (
            "make the server's certificate again, for other hosts",
            "joblet certs init --force --host new.example.com --dir /opt/joblet/certs",
        ),
    ),
    "certs issue": (
        ("a client who may do everything", "joblet certs issue alice --role admin"),
        ("one who may look, for a month", "joblet certs issue dashboard --role viewer --days 30"),
        ("one for a pipeline, for a working day", "joblet certs issue pipeline --role admin --hours 8 --force"),
    ),
    "certs renew": (
        ("a client's, for as long as before", "joblet certs renew alice"),
        ("the server's, which a running server then shows", "joblet certs renew server --dir /opt/joblet/certs"),
    ),
    "certs revoke": (
        ("all certificates of a client; a running server ends its streams", "joblet certs revoke alice"),
        ("one, by its serial number", "joblet certs revoke 2D0B3F1C5A77E9D40C1B6E8F9A3D52714C8E6F05"),
    ),
    "certs list": (("see what was issued, and what has become of it", "joblet certs list --dir /opt/joblet/certs"),),
    "certs rotate-ca": (("trust a new authority beside the present one", "joblet certs rotate-ca"),),
    "certs retire-ca": (("end the trust in the former one", "joblet certs retire-ca"),),
    "version": (("print the version", "joblet version"),),
}
"""by the words of a command after `joblet`"""
