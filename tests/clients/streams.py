"""Counts words with Kafka Streams exactly_once_v2, while the application and the broker are killed."""

import queue
import subprocess
import threading

RECORDS = 12000
KILLS = 3
TIMEOUT = 180


def count(java, dev, prefix, directory):
    """Returns what happened; raises an error when the counts are not exact."""

    def start(mode, argument):
        command = [*java, "Streams", mode, dev.bootstrap, prefix, str(argument)]
        log = (directory / f"{prefix}{mode}.log").open("ab")
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    feed = start("feed", RECORDS)
    application = None
    try:
        lines(feed).get(timeout=TIMEOUT)
        for kill in range(KILLS + 1):
            application = start("count", directory / f"{prefix}state")
            output = lines(application)
            # Let it count some more words, so that the next kill is in the midst of them.
            for _ in range(2):
                output.get(timeout=TIMEOUT)
            if kill == 0:
                kill_broker(dev, feed, output)
            if kill < KILLS:
                application.kill()
                application.wait()
        if feed.wait(TIMEOUT) != 0:
            raise AssertionError("the words could not be written")
        check = start("check", RECORDS)
        result = check.communicate(timeout=300)[0].strip()
        if check.returncode != 0:
            raise AssertionError(result)
        return f"{RECORDS} of {RECORDS} words counted once, with {KILLS} kills of the application and one of the broker"
    finally:
        for process in (feed, application):
            if process and process.poll() is None:
                process.kill()
                process.wait()


def kill_broker(dev, feed, output):
    """Kills the broker while words are written and counted, and waits until further words are counted."""
    if feed.poll() is not None:
        raise AssertionError("the words were written before the broker was killed")
    dev.kill()
    while not output.empty():
        output.get()
    dev.start()
    output.get(timeout=TIMEOUT)


def lines(process):
    """Returns a queue of the lines that a process prints."""
    received = queue.Queue()
    threading.Thread(target=lambda: [received.put(line) for line in process.stdout], daemon=True).start()
    return received
