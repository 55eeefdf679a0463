"""Photographs the documentation of a role with Chromium and checks that the browser asks no other host.

usage: pages.py CHROMIUM URL DIRECTORY
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

SIZES = {"wide": "1280,1600", "narrow": "420,1600"}


def photograph(chromium, url, size, picture):
    """Returns the addresses that the page asked for. The browser itself may ask its vendor for others."""
    with tempfile.TemporaryDirectory() as profile:
        log = pathlib.Path(profile, "net.json")
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                f"--user-data-dir={profile}",
                f"--log-net-log={log}",
                "--virtual-time-budget=8000",
                f"--window-size={size}",
                f"--screenshot={picture}",
                url,
            ],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        events = json.loads(log.read_text())["events"]
    requests = [event["params"] for event in events if "url" in event.get("params", {})]
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    return {
        request["url"] for request in requests if request["url"] == url or request.get("initiator") == origin
    }


def main(chromium, url, directory):
    host = urlsplit(url).netloc
    pages = {"docs": "/docs/", "problem": "/problems/vehicle-exists"}
    for page, path in pages.items():
        for name, size in SIZES.items():
            picture = pathlib.Path(directory, f"{page}-{name}.png")
            asked = photograph(chromium, url + path, size, picture)
            foreign = {address for address in asked if urlsplit(address).netloc not in (host, "")}
            if foreign:
                sys.exit(f"{path} asked other hosts: {sorted(foreign)}")
            if url + path not in asked or not picture.is_file():
                sys.exit(f"{path} was not shown; asked: {sorted(asked)}")
            print(f"{picture}: {len(asked)} requests, none to another host")
            if page == "docs" and not any(address.endswith("/openapi.json") for address in asked):
                sys.exit(f"{path} did not load the document; asked: {sorted(asked)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
