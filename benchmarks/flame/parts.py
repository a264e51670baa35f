"""What the server's time is told apart by: the first pattern that fits a frame, from the innermost frame out."""

PARTS = (
    ("encryption and sockets, in uvloop", r"joblet/corked\.py"),
    ("HTTP/2: h2, hpack, hyperframe", r"\((h2|hpack|hyperframe)/"),
    ("guards in front of grpclib", r"server/guards\.py"),
    ("gRPC: grpclib", r"\(grpclib/"),
    ("messages: betterproto2", r"\(betterproto2/|proto/joblet/"),
    ("the start of the shim", r"local/spawn\.py"),
    ("a job's directory, groups, order, record", r"executor/"),
    ("the store", r"/store/"),
    ("events to clients", r"server/(feed|workflows)\.py"),
    ("logs to clients", r"joblet/logs/|server/log_stream\.py"),
    ("the server's own log", r"\(logging/|joblet/log\.py"),
    ("calls: roles, checks, views", r"joblet/server/"),
    ("the lives of jobs", r"\(joblet/"),
    ("event loop and threads", r"uvloop|\(asyncio/|\(concurrent/|threading\.py|MainThread"),
)
