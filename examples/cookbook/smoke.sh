#!/bin/sh
# Start a service, ask it once it answers, and end with what was found: 0 well, 1 a wrong answer, 2 none at all.
# The job's network is the host's, so the port has to be free there.
set -u
echo "version 1.4.2" > health
python3 -m http.server --bind 127.0.0.1 "$PORT" 2>/dev/null &

answer=$(python3 - <<'ASK'
import os, time, urllib.request
for attempt in range(100):
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/health", timeout=2).read().decode(), end="")
        break
    except OSError:
        time.sleep(0.05)
ASK
)
[ -n "$answer" ] || { echo "no answer"; exit 2; }
echo "answer: $answer"
[ "$answer" = "version $EXPECTED" ] || exit 1
# The service is still there. The job's end is its end too: no process outlives it.
