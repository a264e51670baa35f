"""`rnx completion`: scripts that make a shell complete commands, options, and the ids of live jobs and workflows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from joblet.command_line import one_line, write
from rnx.columns import cut
from rnx.later import CATCH_UPS, OVERLAPS
from rnx.light import spare_pydantic
from rnx.plain import PlainCommand
from rnx.program import Program
from rnx.render import JOB_FIELDS
from rnx.render import command as command_line
from rnx.selection import STATUSES
from rnx.session import FLAGS
from rnx.signals import SIGNALS
from rnx.usage_text import Order
from rnx.workflow import Form

_SECONDS = 1.0
"""that a server has to name its jobs"""
_NEWEST = 50
"""ids that are offered at most"""
_WIDEST = 60
"""columns of what stands beside an id"""
_ENDED = frozenset({"attach", "exec", "pause", "resume", "stop", "timeout", "top", "wait"})
"""commands for which ended jobs are of no use"""


class Shell(StrEnum):
    """What can be made to complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_SCRIPTS = {
    Shell.BASH: """\
_rnx() {
    local IFS=$'\\n'
    COMPREPLY=($(rnx complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _rnx rnx
""",
    Shell.ZSH: """\
#compdef rnx
_rnx() {
    local -a found
    found=("${(@f)$(rnx complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then
        _describe rnx found
    else
        _files
    fi
}
# A file that compinit finds by its first line is the function itself when it is first called.
if [[ ${funcstack[1]} == _rnx ]]; then
    _rnx "$@"
else
    compdef _rnx rnx
fi
""",
    Shell.FISH: """\
function __rnx_complete
    set -l found (rnx complete fish -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c rnx -f -a '(__rnx_complete)'
""",
}

_WORDS = {
    "shell": tuple(Shell),
    "form": tuple(Form),
    "status": STATUSES,
    "sort": tuple(JOB_FIELDS),
    "overlap": OVERLAPS,
    "catch_up": CATCH_UPS,
    "order": tuple(Order),
    "signal": SIGNALS,
}
"""what parameters of these names may be"""

Candidates = list[tuple[str, str]]
"""words, and what is said of each"""


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)]) -> None:
    """Print a script that makes a shell complete rnx's commands, options, and ids of jobs and workflows.

    For bash: source <(rnx completion bash). For zsh the same in .zshrc, after compinit. For fish:
    rnx completion fish | source.
    """
    write(_SCRIPTS[shell])


def complete(
    ctx: typer.Context,
    shell: Shell,
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS")] = None,
) -> None:
    """What may stand for the last of the words; for the scripts."""
    line = _joined(words or [""]) if shell is Shell.BASH else words or [""]
    *before, current = line
    found = _candidates(ctx.find_root().command, before, current)
    write("".join(f"{_form(shell, word, about, current)}\n" for word, about in found if word.startswith(current)))


def _joined(words: list[str]) -> list[str]:
    """The words without bash's breaks at `=`."""
    joined: list[str] = []
    for word in words:
        if joined and (word == "=" or joined[-1].endswith("=")) and joined[-1].startswith("--"):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _form(shell: Shell, word: str, about: str, current: str) -> str:
    about = cut(one_line(about), _WIDEST)
    if shell is Shell.FISH:
        return f"{word}\t{about}" if about else word
    if shell is Shell.ZSH:
        word = word.replace("\\", "\\\\").replace(":", "\\:")
        return f"{word}:{about}" if about else word
    option, equals, _ = current.partition("=")
    return word.removeprefix(option + equals) if equals and current.startswith("--") else word


def _candidates(program: Any, before: list[str], current: str) -> Candidates:
    """Walk along the words to the command that they are of; then what it takes at the place of `current`."""
    command, arguments, pending = program, 0, None
    globals_ = [param for param in program.params if param.param_type_name == "option"]
    flags: dict[str, str] = {}
    bare = False  # after `--`
    for word in before:
        if pending is not None:
            flags[pending.name], pending = word, None
        elif bare or not word.startswith("-") or word == "-":
            if hasattr(command, "commands"):
                if word not in command.commands:
                    return []
                command = command.commands[word]
                continue
            arguments += 1
            if not command.context_settings.get("allow_interspersed_args", True):
                return []  # the rest is the job's command line
        elif word == "--":
            bare = True
        else:
            name, equals, value = word.partition("=")
            option = _option([*command.params, *globals_], name)
            if option is not None and equals:
                flags[option.name] = value
            elif option is not None and option.is_flag:
                flags[option.name] = ""
            elif option is not None:
                pending = option
    if pending is not None:
        return _values(command, pending, flags)
    if current.startswith("-") and not bare:
        name, equals, _ = current.partition("=")
        if equals:
            option = _option([*command.params, *globals_], name)
            found = _values(command, option, flags) if option is not None else []
            return [(f"{name}={word}", about) for word, about in found]
        return _options([*command.params, *([] if command is program else globals_)])
    if isinstance(command, Program):
        return command.abouts(_WIDEST)
    if hasattr(command, "commands"):
        shown = (sub for sub in command.commands.values() if not sub.hidden)
        return [(sub.name, sub.get_short_help_str(_WIDEST)) for sub in shown]
    places = [param for param in command.params if param.param_type_name == "argument"]
    if not places or (arguments >= len(places) and places[-1].nargs != -1):
        return []
    return _values(command, places[min(arguments, len(places) - 1)], flags)


def _option(options: list[Any], name: str) -> Any | None:
    return next((option for option in options if name in (*option.opts, *option.secondary_opts)), None)


def _options(options: list[Any]) -> Candidates:
    shown = [option for option in options if option.param_type_name == "option" and not option.hidden]
    return [(name, option.help or "") for option in shown for name in option.opts if name.startswith("--")] + [
        ("--help", "Show this message and exit.")
    ]


def _values(command: Any, param: Any, flags: dict[str, str]) -> Candidates:
    """What a parameter may be; nothing where the shell knows better, as of files."""
    if param.name in _WORDS:
        return [(word, "") for word in _WORDS[param.name]]
    if param.name == "node":
        return _nodes(flags.get("config"))
    if param.name in ("workflow_id", "what") or (param.name == "workflow" and param.metavar == "ID"):
        return _live(flags, workflows=True)
    if param.name == "source":
        return [(f"{found}:", about) for found, about in _live(flags, workflows="workflow" in flags)]
    if param.name in ("job_id", "job_ids") or (param.name == "schedule" and param.metavar == "ID"):
        return _live(flags, without_ended=command.name in _ENDED)
    return []


def _nodes(config: str | None) -> Candidates:
    spare_pydantic()
    from joblet.client import SettingsError
    from joblet.client.config import NodeFile

    try:
        file = NodeFile.find(config)
    except SettingsError:
        return []
    return [(str(name), "") for name in (file.nodes if file else ())]


def _live(flags: dict[str, str], *, workflows: bool = False, without_ended: bool = False) -> Candidates:
    """Ids, newest first. None when no server tells them at once: to complete a word is no time for complaints."""
    import asyncio
    import dataclasses

    spare_pydantic()
    from joblet.client import Client, ClientConfig, JobletError

    async def ask() -> Candidates:
        given: dict[str, Any] = {name: flags.get(name) for name in FLAGS}
        config = ClientConfig.resolve(**given)
        config = dataclasses.replace(config, connect_timeout=_SECONDS, timeout=_SECONDS, patience=0)
        async with asyncio.timeout(_SECONDS), Client(config) as client:
            if workflows:
                newest = reversed(await client.list_workflows(limit=_NEWEST))
                return [(info.id, f"{info.status} {info.name or info.workflow}") for info in newest]
            jobs = [job for job in await client.list(limit=_NEWEST) if not (without_ended and job.ended)]
            return [(job.id, f"{job.status} {job.name or command_line(job)}") for job in reversed(jobs)]

    try:
        return asyncio.run(ask())
    except (JobletError, TimeoutError, OSError):
        return []


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(cls=PlainCommand)(completion)
    app.command(cls=PlainCommand, hidden=True)(complete)
