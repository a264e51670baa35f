"""A client that knows only the specification's text makes all of its calls; prints what it was told."""

import subprocess
import sys
import time
from pathlib import Path

import grpc

target, port, certificates = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
here = Path(__file__).parent
tool = [sys.executable, "-m", "grpc_tools.protoc", f"-I{here}", f"--python_out={target}", f"--grpc_python_out={target}"]
subprocess.run([*tool, str(here / "specification.proto")], check=True)
sys.path.insert(0, str(target))
import specification_pb2 as pb  # noqa: E402
import specification_pb2_grpc as stubs  # noqa: E402

WORKFLOW = """\
jobs:
  setup-data:
    command: "python3"
    args: ["setup.py"]
    uploads:
      files: ["setup.py"]

  process-data:
    command: "python3"
    args: ["process.py"]
    uploads:
      files: ["process.py"]
    requires:
      - setup-data: "COMPLETED"
"""
SETUP = b"import os, time\nwhile not os.path.exists('/workflow/go'): time.sleep(0.02)\n"
PROCESS = b"raise SystemExit(3)\n"

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

    state = Path(sys.argv[4])
    workflows = stubs.JobServiceStub(channel)
    files = [pb.FileUpload(path="setup.py", content=SETUP), pb.FileUpload(path="process.py", content=PROCESS)]
    order = pb.RunWorkflowRequest(workflow="workflow.yaml", yamlContent=WORKFLOW, workflowFiles=files)
    order.totalJobs, order.jobOrder[:] = 2, ["setup-data", "process-data"]
    started = workflows.RunWorkflow(order)
    print(started.status)
    asked = pb.GetWorkflowStatusRequest(workflowId=started.workflowId)
    listed = workflows.ListWorkflows(pb.ListWorkflowsRequest()).workflows
    print("listed" if started.workflowId in {workflow.id for workflow in listed} else "not listed")
    answer = workflows.GetWorkflowStatus(asked)
    print(answer.jobs[1].jobId, answer.jobs[1].jobName, answer.jobs[1].status, *answer.jobs[1].dependencies)
    shared = state / "workflows" / started.workflowId / "shared"
    while answer.workflow.status in ("PENDING", "RUNNING"):
        if shared.is_dir():
            (shared / "go").touch()
        time.sleep(0.02)  # this client knows no better way
        answer = workflows.GetWorkflowStatus(asked)
    print(answer.workflow.status, answer.workflow.completedJobs, answer.workflow.failedJobs, answer.workflow.totalJobs)
    jobs = workflows.GetWorkflowJobs(pb.GetWorkflowJobsRequest(workflowId=started.workflowId)).jobs
    print(*(f"{job.jobName} {job.status} {job.exitCode}" for job in jobs), sep=", ")
    print(stub.GetJobStatus(pb.GetJobStatusReq(id=jobs[1].jobId)).status)
    print("times" if all(0 < job.startTime.seconds <= job.endTime.seconds for job in jobs) else "no times")
