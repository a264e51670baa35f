"""Which modules hold Python's standard library together?

Parses every file of the standard library, draws the graph of who imports whom, and ranks the modules by PageRank.
Needs nothing but Python, so it runs as a job anywhere:

    rnx run python3 -uc "$(cat examples/import_rank.py)"
"""

import ast
import sysconfig
import time
from pathlib import Path

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SKIPPED = {"test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages", "lib2to3"}
DAMPING = 0.85


def imports(tree):
    """Names of the top-level modules that a parsed file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def rank(graph):
    """PageRank: a module counts for much when modules that count for much import it."""
    score = dict.fromkeys(graph, 1 / len(graph))
    for _ in range(60):
        fresh = dict.fromkeys(graph, (1 - DAMPING) / len(graph))
        for module, targets in graph.items():
            for target in targets or graph:
                fresh[target] += DAMPING * score[module] / len(targets or graph)
        score = fresh
    return score


def main():
    begin = time.monotonic()
    files = [p for p in sorted(LIBRARY.rglob("*.py")) if not SKIPPED & set(p.relative_to(LIBRARY).parts)]
    print(f"reading {len(files)} files below {LIBRARY}")
    graph, lines = {}, 0
    for number, path in enumerate(files, start=1):
        text = path.read_bytes()
        lines += text.count(b"\n")
        module = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        graph.setdefault(module, set()).update(imports(ast.parse(text)))
        if number % (len(files) // 10 or 1) == 0:
            print(f"parsed {number:4} files, {lines:7,} lines, {len(graph):3} modules")
    graph = {module: {t for t in targets if t in graph and t != module} for module, targets in graph.items()}
    score = rank(graph)
    print(f"{sum(map(len, graph.values()))} imports among {len(graph)} modules; the ten that matter most:")
    for place, module in enumerate(sorted(score, key=score.get, reverse=True)[:10], start=1):
        users = sum(module in targets for targets in graph.values())
        print(f"{place:4}. {module:17} {score[module]:6.1%}   imported by {users}")
    print(f"done in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
