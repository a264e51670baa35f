"""Manual pages: roff, by man(7)."""

from __future__ import annotations

import re

from generator.commands import Command, Records, programs
from joblet import __version__

_GLYPHS = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}

_EXIT_STATUS: Records = [
    ("0", "Success."),
    ("1", "Failure, which one line on standard error names."),
    ("2", "The command line cannot be understood."),
    ("125", "A failure of joblet's own, where the other statuses are those of a job: run --wait, run --follow, wait."),
    ("130", "Interrupted by Ctrl-C. Jobs go on."),
    ("141", "Nobody reads the output any more."),
]
_ENVIRONMENT: dict[str, Records] = {
    "rnx": [
        ("JOBLET_SERVER", "HOST:PORT of the server."),
        ("JOBLET_CERT_PATH, JOBLET_KEY_PATH, JOBLET_CA_PATH", "The client's certificate and key, and the authority's."),
        ("NO_COLOR", "Nothing has colours."),
        ("JOBLET_DEBUG", "What is a bug in rnx shows its traceback."),
    ],
    "joblet": [("JOBLET_DEBUG", "What is a bug in joblet shows its traceback.")],
}
_FILES: dict[str, Records] = {
    "rnx": [("rnx-config.yml", "Named servers and certificates; in ., ./config, ~/.rnx or /etc/joblet.")],
    "joblet": [
        ("/opt/joblet/joblet-config.yml", "The configuration, if --config names no other; a link to /etc/joblet."),
        ("/etc/joblet/rnx-config.yml", "An admin's settings for rnx, which the first start makes."),
        ("/var/lib/joblet", "The state: database, job directories, logs."),
    ],
}


def pages() -> dict[str, str]:
    """The text of every manual page by its file's name: one of each program, and one of each command."""
    return {
        f"{'-'.join(command.words)}.1": _page(command, commands)
        for commands in programs().values()
        for command in commands
    }


def escaped(text: str) -> str:
    """Text of which no character means anything to roff."""
    text = "".join(_GLYPHS.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def _page(command: Command, commands: list[Command]) -> str:
    name, program = "-".join(command.words), command.words[0]
    text = f'.TH "{escaped(name.upper())}" "1" "" "{program} {__version__}" "joblet"\n'
    text += f".SH NAME\n{escaped(name)} \\- {escaped(command.summary.removesuffix('.'))}\n"
    text += f".SH SYNOPSIS\n.B {escaped(' '.join(command.words))}\n{escaped(command.usage)}\n"
    paragraphs = re.split(r"\n\s*\n", command.text)
    text += ".SH DESCRIPTION\n" + "".join(f".PP\n{escaped(' '.join(part.split()))}\n" for part in paragraphs)
    text += _section("ARGUMENTS", [record for record in command.arguments if record[1]])
    text += _section("OPTIONS", command.options)
    if command.group:
        inner = [each for each in commands if each.words[:-1] == command.words]
        text += _section("COMMANDS", [(" ".join(each.words), each.summary) for each in inner])
    if command.words == (program,):
        text += _section("EXIT STATUS", _EXIT_STATUS if program == "rnx" else _EXIT_STATUS[:3])
        text += _section("ENVIRONMENT", _ENVIRONMENT[program]) + _section("FILES", _FILES[program])
    if command.examples:
        text += ".SH EXAMPLES\n" + "".join(_example(about, line) for about, line in command.examples)
    return text + _see_also(command, commands)


def _section(title: str, records: Records) -> str:
    if not records:
        return ""
    return f".SH {title}\n" + "".join(f".TP\n.B {escaped(name)}\n{escaped(about)}\n" for name, about in records)


def _example(about: str, line: str) -> str:
    return f".PP\n{escaped(about[:1].upper() + about[1:])}:\n.PP\n.RS 4\n.nf\n{escaped(line)}\n.fi\n.RE\n"


def _see_also(command: Command, commands: list[Command]) -> str:
    others = [command.words[:-1]] if len(command.words) > 1 else []
    others += [each.words for each in commands if each.words[:-1] == command.words]
    if len(command.words) == 1:
        others.append(("joblet",) if command.words == ("rnx",) else ("rnx",))
    return ".SH SEE ALSO\n" + ",\n".join(f".BR {escaped('-'.join(words))} (1)" for words in others) + "\n"
