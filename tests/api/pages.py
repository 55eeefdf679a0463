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
    """Returns the addresses that the browser asked for."""
    with tempfile.TemporaryDirectory() as profile:
        log = pathlib.Path(profile, "net.json")
        subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
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
    asked = {event.get("params", {}).get("url", "") for event in events}
    return {address for address in asked if urlsplit(address).scheme in ("http", "https", "ws", "wss")}


def main(chromium, url, directory):
    host = urlsplit(url).netloc
    pages = {"docs": "/docs/", "problem": "/problems/vehicle-exists"}
    for page, path in pages.items():
        for name, size in SIZES.items():
            picture = pathlib.Path(directory, f"{page}-{name}.png")
            asked = photograph(chromium, url + path, size, picture)
            foreign = {address for address in asked if urlsplit(address).netloc != host}
            if foreign:
                sys.exit(f"{path} asked other hosts: {sorted(foreign)}")
            if url + path not in asked or not picture.is_file():
                sys.exit(f"{path} was not shown; asked: {sorted(asked)}")
            print(f"{picture}: {len(asked)} requests, none to another host")
            if page == "docs" and not any(address.endswith("/openapi.json") for address in asked):
                sys.exit(f"{path} did not load the document; asked: {sorted(asked)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
