"""Examples of the `rnx` command, for its help and its manual: of each command, what it is for and the line."""

from __future__ import annotations

from collections.abc import Mapping

Example = tuple[str, str]
"""what it is for, and the command line"""

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        ("run a command, see what it writes, and exit as it does", "rnx run --follow python3 train.py"),
        ("a shell in a job", "rnx run -it bash"),
        ("the jobs of the server that the settings file calls prod", "rnx --node=prod list"),
    ),
    "run": (
        (
            "half a core and 256 MB; flags stand before the command",
            "rnx run --max-cpu=50 --max-memory=256 python3 train.py --epochs 3",
        ),
        (
            "see its output and exit with its exit code; the token, from rnx's own environment, no answer shows",
            "rnx run --follow --upload=check.sh --secret-env=TOKEN bash check.sh",
        ),
        (
            "every night at half past three, and twice more when it fails",
            "rnx run --schedule='30 3 * * *' --retries=2 --timeout=30m python3 nightly.py",
        ),
        (
            "the jobs of a file, with a parameter, to their end",
            "rnx run --workflow=pipeline.yaml --param=rows=100 --follow",
        ),
    ),
    "attach": (
        ("at its input and output; ctrl-p,ctrl-q leaves it while the job goes on", "rnx attach 7"),
        ("only look, from the last 100 lines on", "rnx attach --no-stdin --tail=100 7"),
    ),
    "exec": (
        ("which processes it has", "rnx exec 7 ps aux"),
        ("a shell in it", "rnx exec -it 7 bash"),
        ("files into it", "rnx exec -i 7 tar xf - < files.tar"),
    ),
    "cp": (
        ("a result out of its work directory", "rnx cp 7:model.bin ."),
        ("a file of it, to stdout", "rnx cp 7:report.csv - | head -3"),
        ("all that the jobs of a workflow share, into a new directory", "rnx cp --workflow 3: shared"),
    ),
    "status": (
        ("what the server knows of a job", "rnx status 7"),
        ("with reasons, all limits and what it has used", "rnx status --verbose 7"),
        ("two fields of it, for a script", "rnx status --format='{status} {exitCode}' 7"),
        ("a workflow and its jobs", "rnx status --workflow=3"),
    ),
    "stop": (
        ("SIGTERM, and SIGKILL for the whole tree when that does not do", "rnx stop 7"),
        ("as Ctrl-C would, with half a minute to end", "rnx stop --signal=INT --grace=30s 7"),
        ("several, at once", "rnx stop --grace=0s 7 8"),
    ),
    "pause": (("both stand still, and keep their memory", "rnx pause 7 8"),),
    "resume": (("both go on", "rnx resume 7 8"),),
    "timeout": (("two hours from the start of its command", "rnx timeout 7 2h"),),
    "delete": (
        ("two jobs that have ended, and their logs", "rnx delete 7 8"),
        ("all that have ended, without being asked", "rnx delete --all --yes"),
    ),
    "list": (
        ("the newest jobs", "rnx list --limit=20"),
        (
            "what went wrong since yesterday, newest first",
            "rnx list --status=FAILED,STOPPED --since=24h --sort=-startTime",
        ),
        ("fields in columns", "rnx list --label=app=backup --format='{id:<6} {status:<10} {name}'"),
        ("drawn again whenever something happens", "rnx list --watch"),
    ),
    "log": (
        ("all of it, and what comes", "rnx log 7"),
        ("the last 20 lines as of now", "rnx log --tail=20 --follow=false 7"),
        (
            "lines of the last ten minutes that match, with times; the server looks for them",
            "rnx log --since=10m --grep='ERROR|WARN' --timestamps 7",
        ),
        ("what a job of rnx run --separate wrote to its stderr, and no header", "rnx log --stderr --raw 7"),
    ),
    "wait": (
        ("until both have ended", "rnx wait 7 8"),
        ("until one of them has", "rnx wait --any 7 8 9"),
    ),
    "top": (
        ("what running jobs use, live", "rnx top"),
        ("two jobs until they have ended", "rnx top 7 8"),
        ("one table, what uses most memory first", "rnx top --once --sort=memory"),
        ("a JSON object every ten seconds, for a program", "rnx top --json --interval=10s"),
    ),
    "monitor": (
        ("how the server and its host are, live", "rnx monitor"),
        ("one page of it, for a look", "rnx monitor --once"),
        ("a JSON object a minute, for a program", "rnx monitor --json --interval=1m"),
    ),
    "why": (
        ("what ended a job, or keeps it waiting", "rnx why 7"),
        ("the same of a workflow's jobs, for programs", "rnx why --workflow=3 --json"),
    ),
    "rerun": (
        ("the same order again, to its end", "rnx rerun --follow 7"),
        ("with the file and the secret that it had", "rnx rerun --upload=check.sh --secret-env=TOKEN 7"),
    ),
    "workflow": (
        ("check a file, and run it", "rnx workflow validate pipeline.yaml && rnx run --workflow=pipeline.yaml"),
        ("watch it, and draw how it stands", "rnx workflow follow 3; rnx workflow graph 3"),
    ),
    "workflow validate": (
        ("every fault of a file, with its line", "rnx workflow validate pipeline.yaml"),
        ("with a parameter of one's own", "rnx workflow validate --param=rows=100 pipeline.yaml"),
    ),
    "workflow follow": (("watch it to its end, with what its jobs write", "rnx workflow follow --logs 3"),),
    "workflow stop": (("start nothing more, and stop what runs", "rnx workflow stop 3"),),
    "workflow retry": (("run again what did not complete, and all below it", "rnx workflow retry 3"),),
    "workflow delete": (("two that have ended, with their jobs and logs", "rnx workflow delete 3 4"),),
    "workflow graph": (
        ("as it stands", "rnx workflow graph 3"),
        ("of a file, as a picture", "rnx workflow graph --format=svg --output=pipeline.svg pipeline.yaml"),
    ),
    "workflow schema": (("for an editor that checks YAML files", "rnx workflow schema > workflow-schema.json"),),
    "workflow events": (
        ("every change from now on and before, a JSON object a line", "rnx workflow events --follow --json"),
        ("what happened after event 120", "rnx workflow events --after=120"),
    ),
    "nodes": (
        ("which servers there are, and which one is chosen", "rnx nodes"),
        ("ask each one", "rnx nodes --check"),
    ),
    "completion": (
        ("for this bash", "source <(rnx completion bash)"),
        ("for fish, from now on", "rnx completion fish > ~/.config/fish/completions/rnx.fish"),
    ),
    "version": (("print the version", "rnx version"),),
}
"""by the words of a command after `rnx`"""
