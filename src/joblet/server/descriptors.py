"""The protocol as google's protobuf library knows it: for reflection, malformed requests, and what must be fast."""

from __future__ import annotations

from importlib import resources

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClassesForFiles


class Descriptors:
    """The files of protos/, in a pool of their own."""

    def __init__(self) -> None:
        content = (resources.files("joblet.proto") / "joblet.binpb").read_bytes()
        files = FileDescriptorSet.FromString(content).file
        self.pool = DescriptorPool()
        for file in files:
            self.pool.Add(file)
        self._messages = GetMessageClassesForFiles([file.name for file in files], self.pool)

    def message(self, name: str) -> type[Message]:
        """The class of `joblet.NAME`."""
        return self._messages[f"joblet.{name}"]

    def known(self, name: str, data: bytes) -> bytes:
        """Of a message `joblet.NAME` the fields that it has, as they are written. Raises ValueError unless well-formed.

        betterproto2 reads a message that is cut off inside a field as if the field ended there, and what comes under a
        field's number in another type as if it were the field's.
        """
        try:
            message = self.message(name).FromString(data)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        message.DiscardUnknownFields()
        return message.SerializeToString()
