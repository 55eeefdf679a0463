"""Creates the user of the test cluster's MongoDB with a single OP_MSG, using only the standard library."""

import socket
import struct
import sys


def element(kind: int, name: str, payload: bytes) -> bytes:
    return bytes([kind]) + name.encode() + b"\0" + payload


def string(name: str, value: str) -> bytes:
    data = value.encode() + b"\0"
    return element(2, name, struct.pack("<i", len(data)) + data)


def document(*elements: bytes) -> bytes:
    body = b"".join(elements) + b"\0"
    return struct.pack("<i", len(body) + 4) + body


command = document(
    string("createUser", "root"),
    string("pwd", "root"),
    element(4, "roles", document(string("0", "root"))),
    string("$db", "admin"),
)
message = struct.pack("<I", 0) + b"\0" + command
header = struct.pack("<iiii", 16 + len(message), 1, 0, 2013)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as connection:
    connection.sendall(header + message)
    answer = connection.recv(65536)
# `ok` is a double in the response; the code 51003 means that the user exists.
succeeded = b"\x01ok\0" + struct.pack("<d", 1.0) in answer
exists = struct.pack("<i", 51003) in answer
sys.exit(0 if succeeded or exists else f"MongoDB answered {answer!r}")
