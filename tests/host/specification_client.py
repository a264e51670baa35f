"""A client that knows only the specification's text makes all five calls; prints what it was told."""

import subprocess
import sys
from pathlib import Path

import grpc

target, port, certificates = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
here = Path(__file__).parent
tool = [sys.executable, "-m", "grpc_tools.protoc", f"-I{here}", f"--python_out={target}", f"--grpc_python_out={target}"]
subprocess.run([*tool, str(here / "specification.proto")], check=True)
sys.path.insert(0, str(target))
import specification_pb2 as pb  # noqa: E402
import specification_pb2_grpc as stubs  # noqa: E402

ca, key, cert = ((certificates / name).read_bytes() for name in ("ca-cert.pem", "admin-key.pem", "admin-cert.pem"))
with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca, key, cert)) as channel:
    stub = stubs.JobletServiceStub(channel)
    job = stub.RunJob(pb.RunJobReq(command="echo", args=["hello"]))
    print(job.status)
    chunks = stub.GetJobLogs(pb.GetJobLogsReq(id=job.id))
    print(b"".join(chunk.payload for chunk in chunks).decode().strip())
    print(stub.GetJobStatus(pb.GetJobStatusReq(id=job.id)).status)
    print("listed" if job.id in {listed.id for listed in stub.ListJobs(pb.EmptyRequest()).jobs} else "not listed")
    job = stub.RunJob(pb.RunJobReq(command="bash", args=["-c", "echo started; sleep 100"]))
    assert next(stub.GetJobLogs(pb.GetJobLogsReq(id=job.id))).payload == b"started\n"
    print(stub.GetJobStatus(pb.GetJobStatusReq(id=job.id)).status)
    stopped = stub.StopJob(pb.StopJobReq(id=job.id))
    print(stopped.status, stopped.exitCode)
