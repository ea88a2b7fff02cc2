"""Fetch Flink and Beam's Flink job server into a cache folder, and check every file: `make flink`.

`FLINK=1.19 make flink` fetches another line of Flink than the default.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"

RELEASES = {"1.19": "1.19.3", "1.20": "1.20.5", "2.2": "2.2.1"}
"""The last release of each line of Flink that can be asked for."""

LINE = os.environ.get("FLINK") or "1.20"
if LINE not in RELEASES:
    sys.exit(f"FLINK={LINE}: no such line of Flink here; known: {', '.join(RELEASES)}")
RELEASE = RELEASES[LINE]
FROM_PARTS = LINE.startswith("1.")
"""Whether the job server is put together from what pom.xml names; else it is the jar that Beam publishes."""

SUMS = HERE / f"SHA256SUMS-{LINE}"
CACHE = Path(os.environ.get("AUGNET_FLINK") or Path.home() / ".cache/augnet/flink") / LINE
JOB_SERVER = CACHE / "flink-job-server.jar"

COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"  # as in pom.xml
MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"
MANIFEST_LINE_BYTES = 72


def main() -> None:
    for part, fetch in (("job-server", _fetch_job_server), ("flink", _fetch_flink)):
        if list(damaged(part)):
            fetch(CACHE / part)
        if wrong := list(damaged(part)):
            sys.exit(
                f"make flink: {CACHE / wrong[0]} is not the file that {SUMS.name} names ({len(wrong)} such)"
            )
    if FROM_PARTS:
        _write_job_server()
    elif not JOB_SERVER.is_file():
        _fetch_whole_job_server()
    print(f"Flink {RELEASE} and Beam's job server are in {CACHE}; {len(checksums())} files checked")
    print(f"--flink_version={LINE} --flink_job_server_jar={JOB_SERVER}")


def missing() -> str | None:
    """Why Flink cannot run here, or None when it can."""
    if not shutil.which("java"):
        return "Java is not installed"
    if not JOB_SERVER.is_file() or not all((CACHE / name).is_file() for name in checksums()):
        return f"no Flink in {CACHE}: FLINK={LINE} make flink"
    return None


def checksums(part: str = "") -> dict[str, str]:
    """File below the cache folder -> sha256, for the files whose names begin with `part`."""
    lines = (line.split() for line in SUMS.read_text().splitlines())
    return {name: digest for digest, name in lines if name.startswith(part)}


def damaged(part: str) -> Iterator[str]:
    """The part's files that are missing or differ from their checksum."""
    for name, digest in checksums(f"{part}/").items():
        path = CACHE / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield name


def _fetch_job_server(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    _maven("--file", str(POM), f"-Dflink.version={RELEASE}", *goal)


def _fetch_whole_job_server() -> None:
    """Beam's own jar for this line of Flink, of the version of Beam that is installed."""
    name, version = f"beam-runners-flink-{LINE}-job-server", metadata.version("apache-beam")
    artifact = f"org.apache.beam:{name}:{version}"
    _maven(f"{COPY}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={CACHE}")
    (CACHE / f"{name}-{version}.jar").rename(JOB_SERVER)


def _fetch_flink(target: Path) -> None:
    """The jars of Flink's own distribution, as its Python package carries them."""
    package = f"apache-flink-libraries=={RELEASE}"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        _call([*pip, "--dest", scratch, package], "python3-pip")
        (archive,) = Path(scratch).iterdir()
        wanted = {Path(name).name for name in checksums("flink/")}
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and "/deps/lib/" in member.name and name in wanted:
                    with tar.extractfile(member) as source, open(target / name, "wb") as copy:
                        shutil.copyfileobj(source, copy)


def _maven(*arguments: str) -> None:
    _call(["mvn", "--batch-mode", "--quiet", *arguments], "maven")


def _call(command: list[str], package: str) -> None:
    if not shutil.which(command[0]):
        sys.exit(f"make flink: no {command[0]}; install it (Debian: apt-get install {package})")
    if status := subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        sys.exit(f"make flink: {command[0]} ended with status {status}")


def _write_job_server() -> None:
    """A jar that `java -jar` starts and that names the others: what --flink_job_server_jar wants."""
    entry = "Class-Path: " + " ".join(checksums("job-server/"))
    lines, rest = [entry[:MANIFEST_LINE_BYTES]], entry[MANIFEST_LINE_BYTES:]
    while rest:
        lines.append(f" {rest[: MANIFEST_LINE_BYTES - 1]}")
        rest = rest[MANIFEST_LINE_BYTES - 1 :]
    manifest = "\n".join(["Manifest-Version: 1.0", f"Main-Class: {MAIN_CLASS}", *lines, "", ""])
    with zipfile.ZipFile(JOB_SERVER, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", manifest)


if __name__ == "__main__":
    main()
