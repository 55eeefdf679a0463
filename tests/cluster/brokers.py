"""Prints how many brokers a broker of the test cluster knows, using only the standard library."""

import socket
import struct
import sys

# Metadata, version 1, with a correlation id, without a client id, for no topic.
request = struct.pack(">hhihi", 3, 1, 1, -1, 0)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as connection:
    connection.sendall(struct.pack(">i", len(request)) + request)
    answer = connection.makefile("rb").read(12)
# Their number follows the length of the response and the correlation id.
print(struct.unpack(">iii", answer)[2])
