"""Runs `vehicle-platform dev` without roles: the embedded broker and the embedded schema registry."""

import os
import signal
import socket
import subprocess
import time


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Dev:
    """A broker on free ports, which keeps them and its data when it is killed and started again."""

    def __init__(self, binary, directory):
        self.kafka_port, self.registry_port = free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{self.kafka_port}"
        self.registry = f"http://127.0.0.1:{self.registry_port}"
        self.log = directory / "dev.log"
        self.command = [str(binary), "dev", "--roles", "none", "--data-dir", str(directory / "data")]
        self.command += ["--kafka-port", str(self.kafka_port), "--registry-port", str(self.registry_port)]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            environment = os.environ | {"NO_COLOR": "1"}
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 60
        for port in (self.kafka_port, self.registry_port):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError as error:
                    if time.monotonic() > deadline or self.process.poll() is not None:
                        raise SystemExit(f"dev does not start; see {self.log}") from error
                    time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
