"""Many stock clients in one process follow a job's log, each on a connection of its own.

Arguments: port, certificates, job id, file with the expected bytes, seconds to pause after each MB and client.
Prints `N complete`.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

PORT, CERTIFICATES, JOB, EXPECTED = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).read_bytes()
PAUSES = [float(pause) for pause in sys.argv[5:]]
CA, KEY, CERT = ((CERTIFICATES / name).read_bytes() for name in ("ca-cert.pem", "admin-key.pem", "admin-cert.pem"))


def request(job_id: str) -> bytes:
    """GetJobLogsReq by hand: field 1, length, text."""
    return bytes([0x0A, len(job_id)]) + job_id.encode()


def payload(chunk: bytes) -> memoryview:
    """DataChunk by hand: field 1, length as a varint, bytes."""
    assert chunk[0] == 0x0A
    position, length, shift = 1, 0, 0
    while True:
        byte = chunk[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    assert position + length == len(chunk)
    return memoryview(chunk)[position:]


def follow(pause: float) -> bool:
    credentials = grpc.ssl_channel_credentials(CA, KEY, CERT)
    # Without its own pool, grpcio would put all channels of a process on one connection.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    received, paused_at = 0, 0
    with grpc.secure_channel(f"localhost:{PORT}", credentials, options) as channel:
        call = channel.unary_stream("/joblet.JobletService/GetJobLogs")
        for chunk in call(request(JOB)):
            data = payload(chunk)
            assert data == EXPECTED[received : received + len(data)], f"wrong bytes after {received}"
            received += len(data)
            if pause and received - paused_at >= 1 << 20:
                paused_at = received
                time.sleep(pause)
    assert received == len(EXPECTED), f"{received} of {len(EXPECTED)} bytes"
    return True


with ThreadPoolExecutor(len(PAUSES)) as pool:
    print(sum(pool.map(follow, PAUSES)), "complete")
