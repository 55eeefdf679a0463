"""Fetches the clients, at the versions that this directory pins, into a cache outside of the tree."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("VEHICLE_PLATFORM_CACHE") or HOME / "vehicle-platform") / "clients"
ENVIRONMENT = os.environ | {"GOMAXPROCS": "2", "GOFLAGS": "-mod=readonly -buildvcs=false", "MAVEN_OPTS": "-Xmx256m"}
JAVA = ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]


def run(*command, cwd=HERE):
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"clients: {command[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def installed(name, files, install):
    """Returns the folder of these files' content. It gets its name only when it is complete."""
    content = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder = CACHE / f"{name}-{content}"
    if not folder.exists():
        print(f"clients: installing {name}", flush=True)
        part = CACHE / f"{name}-{content}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        install(part)
        part.rename(folder)
    return folder


def python(name):
    """Returns the interpreter of a Python client."""
    requirements = HERE / "python" / f"{name}.txt"

    def install(folder):
        run("python3", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target", folder, "-r", requirements)

    return installed(name, [requirements], install)


def node():
    sources = [HERE / "node" / "package.json", HERE / "node" / "package-lock.json"]

    def install(folder):
        for source in sources:
            shutil.copy(source, folder)
        run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    folder = installed("node", sources, install)
    # Node looks for packages next to the program.
    for program in (HERE / "node").glob("*.mjs"):
        shutil.copy(program, folder)
    return folder


def go():
    """Returns the folder of the Go programs. Go itself caches what it built."""
    folder = CACHE / "go"
    folder.mkdir(parents=True, exist_ok=True)
    run("go", "build", "-o", f"{folder}/", "./...", cwd=HERE / "go")
    return folder


def java(version):
    """Returns the class path of the libraries of a version of Apache Kafka and of the programs."""
    pom = HERE / "java" / "pom.xml"

    def libraries(folder):
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        run("mvn", "-q", "-B", "-f", pom, f"-Dkafka.version={version}", *copy)

    jars = installed(f"kafka-{version}", [pom], libraries)
    sources = sorted((HERE / "java").glob("*.java"))

    def classes(folder):
        run("javac", "-J-Xmx256m", "-nowarn", "-cp", f"{jars}/*", "-d", folder, *sources)

    return f"{installed(f'java-{version}', [pom, *sources], classes)}:{jars}/*"
