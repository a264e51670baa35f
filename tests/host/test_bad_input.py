"""Bad input gets its code and a clear text, and the server goes on serving."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import raw_http2 as raw
from harness import Server, Stock
from hpack import Decoder
from hyperframe.frame import DataFrame, HeadersFrame

DANGEROUS = ";&|`$(){}[]<>\n\0"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.fixture(autouse=True)
def still_serving(client: Stock) -> Any:
    """After each test the server answers, and the refused calls have left no job behind."""
    before = len(client.list())
    yield
    assert len(client.list()) == before


def test_empty_command(client: Stock) -> None:
    assert refusal(lambda: client.run("")) == (INVALID, "invalid command: command cannot be empty")


@pytest.mark.parametrize("character", DANGEROUS)
def test_dangerous_characters_in_the_command(client: Stock, character: str) -> None:
    text = "invalid command: command contains dangerous characters"
    assert refusal(lambda: client.run(f"ls{character}x")) == (INVALID, text)


def test_nul_in_an_argument(client: Stock) -> None:
    text = "invalid argument: args[1] contains a NUL byte"
    assert refusal(lambda: client.run("echo", "a", "b\0c")) == (INVALID, text)


def test_an_argument_too_long_for_execve(client: Stock) -> None:
    text = "invalid argument: args[0] is 131072 bytes long (at most 131071)"
    assert refusal(lambda: client.run("echo", "x" * 131_072)) == (INVALID, text)


def test_a_command_too_long_for_a_path(client: Stock) -> None:
    text = "invalid command: command is 5000 bytes long (at most 4095)"
    assert refusal(lambda: client.run("x" * 5000)) == (INVALID, text)


def test_a_two_megabyte_argument_list(client: Stock) -> None:
    code, text = refusal(lambda: client.run("echo", *["x" * 1000] * 2100))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith("request message larger than max (")
    assert text.endswith(" vs. 524288 bytes, grpc.maxRecvMsgSize)")


@pytest.mark.parametrize("field", ["maxCPU", "maxMemory", "maxIOBPS"])
@pytest.mark.parametrize("value", [-1, -(2**31)])
def test_negative_limits(client: Stock, field: str, value: int) -> None:
    code, text = refusal(lambda: client.run("true", **{field: value}))
    assert code is INVALID
    assert text.startswith(f"job creation failed: {field} exceeds system limits ({value}, allowed 0 to ")


@pytest.mark.parametrize("field", ["maxCPU", "maxMemory"])
def test_absurd_limits(client: Stock, field: str) -> None:
    code, text = refusal(lambda: client.run("true", **{field: 2**31 - 1}))
    assert code is INVALID
    assert text.startswith(f"job creation failed: {field} exceeds system limits ({2**31 - 1}, allowed 0 to ")


@pytest.mark.parametrize("job_id", ["0", "999999999", "-1", "abc", "", "01", "1 ", "٣", "1e3", "9" * 40, "../1", "\0"])
def test_an_unknown_or_impossible_id(client: Stock, job_id: str) -> None:
    expected = (grpc.StatusCode.NOT_FOUND, f"job not found: {job_id}")
    assert refusal(lambda: client.status(job_id)) == expected
    assert refusal(lambda: client.stop(job_id)) == expected
    assert refusal(lambda: client.output(job_id)) == expected


def test_an_offset_beyond_any_log(client: Stock) -> None:
    code, text = refusal(lambda: b"".join(client.logs("1", offset=2**64 - 1)))
    assert (code, text.split()[0]) == (INVALID, "offset")


def raw_call(server: Server, method: str, body: bytes) -> tuple[grpc.StatusCode, str]:
    with server.channel() as channel:
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        return refusal(lambda: call(body))


@pytest.mark.parametrize("body", [b"\xff" * 64, b"\x0a\x7fshort", b"\x0a\x02\xff\xfe", b"\x08", b"\x0b\x0b\x0b"])
@pytest.mark.parametrize("method", ["RunJob", "StopJob", "GetJobStatus"])
def test_bytes_that_are_no_message(server: Server, method: str, body: bytes) -> None:
    code, text = raw_call(server, f"/joblet.JobletService/{method}", body)
    assert code is INVALID
    assert text


def test_random_bytes_as_a_request(server: Server) -> None:
    allowed = {INVALID, grpc.StatusCode.NOT_FOUND}
    for length in range(1, 200):
        code, _ = raw_call(server, "/joblet.JobletService/StopJob", os.urandom(length))
        assert code in allowed


@pytest.mark.parametrize("name", ["environment", "terminal", "schedule", "uploads", "args"])
def test_a_field_in_the_type_of_another_is_none(client: Stock, server: Server, name: str) -> None:
    """So says protobuf; betterproto2 takes it for the field."""
    number = client.pb.RunJobReq.DESCRIPTOR.fields_by_name[name].number
    tag = bytes([(number << 3) & 0x7F | 0x80, number >> 4]) if number > 15 else bytes([number << 3])
    body = client.pb.RunJobReq(command="a;b").SerializeToString() + tag + b"\1"
    text = "invalid command: command contains dangerous characters"
    assert raw_call(server, "/joblet.JobletService/RunJob", body) == (INVALID, text)


def test_a_message_that_ends_behind_its_length(server: Server) -> None:
    with raw.connect(server) as connection:
        connection.sendall(raw.greeting() + raw.headers(1))
        connection.sendall(DataFrame(1, data=b"\0\0\0\0\x09", flags=["END_STREAM"]).serialize())
        assert answer_to(connection) == (INVALID.value[0], "request message is incomplete")


def test_a_list_of_cores_that_stands_for_millions(client: Stock) -> None:
    text = f"invalid cpuCores: {7 * 1000 - 1} characters long (at most 1024)"
    assert refusal(lambda: client.run("true", cpuCores=",".join(["0-9999"] * 1000)[:6999])) == (INVALID, text)


def answer_to(connection: ssl.SSLSocket) -> tuple[int, str]:
    """Code and sentence of the one call on a connection."""
    decoder, data = Decoder(), bytearray()
    while received := connection.recv(65536):
        data += received
        for frame in raw.frames(data):
            if isinstance(frame, HeadersFrame):
                answer = dict(decoder.decode(frame.data))
                if "grpc-status" in answer:
                    return int(answer["grpc-status"]), answer.get("grpc-message", "")
    raise AssertionError("the connection has ended without an answer")


def test_a_deadline_that_is_over_when_the_call_comes(server: Server) -> None:
    seen = len(server.lines)
    with raw.connect(server) as connection:
        connection.sendall(raw.greeting() + raw.headers(1, grpc_timeout="1n") + raw.message(1, "1"))
        assert answer_to(connection) == (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "")
    assert not [line for line in server.lines[seen:] if "[ERROR]" in line]


def test_an_unknown_method(server: Server) -> None:
    code, _ = raw_call(server, "/joblet.JobletService/Nothing", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED


def connect(server: Server) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(server.certificates / "ca-cert.pem"))
    context.load_cert_chain(server.certificates / "admin-cert.pem", server.certificates / "admin-key.pem")
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port)), server_hostname="localhost")


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), b"\0" * 100_000])
def test_noise_inside_tls_ends_that_connection_only(server: Server, noise: bytes) -> None:
    with connect(server) as connection:
        try:
            connection.sendall(noise)
            while connection.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError, OSError):
            pass


def test_a_frame_header_that_promises_four_gigabytes(server: Server) -> None:
    """The message's own length field, not the transport's, is over the bound: refused before a byte of it is kept."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import ResponseReceived, StreamReset, TrailersReceived

    state = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    with connect(server) as connection:
        state.initiate_connection()
        headers = [
            (":method", "POST"), (":scheme", "https"), (":path", "/joblet.JobletService/RunJob"),
            (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        state.send_headers(1, headers)
        state.send_data(1, b"\0\xff\xff\xff\xff" + b"x" * 1000)
        connection.sendall(state.data_to_send())
        answer: dict[str, str] = {}
        while "grpc-status" not in answer:
            for event in state.receive_data(connection.recv(65536)):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    answer.update(event.headers)
                assert not isinstance(event, StreamReset) or "grpc-status" in answer
    assert int(answer["grpc-status"]) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "maxRecvMsgSize" in answer["grpc-message"]
