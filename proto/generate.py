"""Is the generated code what the `.proto` files say, and is the contract still compatible?

The only generator:

    python proto/generate.py            lint, refuse a breaking change, write code and baseline
    python proto/generate.py --check    change nothing; report as path:line, exit 1 if anything
    python proto/generate.py --accept   like the first, but accept an intended breaking change

Needs the `proto` dependency group (grpcio-tools, mypy-protobuf and buf, pinned: the generator's
version is a requirement on the runtime's). Works offline. `proto/README.md` says when `--accept`
is right.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTO: Final = ROOT / "proto"
BASELINE: Final = PROTO / "baseline.binpb"
# Folders that hold generated code and nothing else, with the docstrings of their packages. The
# path of a proto file below `proto/` is that of its Python module.
OUTPUT_FOLDERS: Final = {
    "dray/api": "Generated protobuf code of the wire contract, by API version.",
    "dray/api/v1": "Generated from proto/dray/api/v1: import its modules, never edit them.",
    "scheduler/store/etcdpb": "Generated from proto/scheduler/store/etcdpb: etcd's messages.",
    "scheduler/store/v1": "Generated from proto/scheduler/store/v1: what the store's values hold.",
}
# mypy-protobuf narrows `DESCRIPTOR` of every message, which only this one check objects to.
STUB_HEADER: Final = b'# mypy: disable-error-code="mutable-override"\n'
TOOL_TIMEOUT_S: Final = 120.0  # a run takes about 2 s; longer means that a tool hangs

Findings = list[str]


def main() -> int:
    """Run the chosen mode; return the exit code."""
    parser = argparse.ArgumentParser(prog="proto/generate.py")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing, report differences")
    mode.add_argument("--accept", action="store_true", help="accept an intended breaking change")
    arguments = parser.parse_args()
    findings = check() if arguments.check else generate(accept=arguments.accept)
    for finding in findings:
        print(finding)
    print(f"proto: {len(findings)} findings" if findings else "proto: ok")
    return 1 if findings else 0


def check() -> Findings:
    """Return what is wrong with proto files, generated code and baseline. Changes nothing."""
    findings = lint()
    if findings:  # perhaps files that cannot be read at all
        return findings
    steps: tuple[Callable[[], Findings], ...] = (misformatted, breaking, outdated, drift)
    return [finding for step in steps for finding in step()]


def generate(*, accept: bool) -> Findings:
    """Write code and baseline, unless the proto files are wrong or the change is breaking."""
    findings = lint() or [*misformatted(), *([] if accept else breaking())]
    if findings:
        return findings
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(Path(scratch))
        for folder in OUTPUT_FOLDERS:
            replace_files(Path(scratch) / folder, ROOT / folder)
    BASELINE.write_bytes(image())
    return []


def lint() -> Findings:
    """Return violations of the lint rules in buf.yaml."""
    return buf_findings("lint", "proto")


def misformatted() -> Findings:
    """Return the proto files that are not in buf's format, with the first place."""
    diff = run([buf_path(), "format", "--diff", "proto"]).stdout.decode()
    findings: Findings = []
    path = ""
    for line in diff.splitlines():
        if line.startswith("--- "):
            path = line.split()[1].removesuffix(".orig")
        elif line.startswith("@@ "):
            first = line.split()[1].lstrip("-").split(",")[0]
            findings.append(f"{path}:{first}:1:Not in buf's format; run `buf format -w proto`.")
    return findings


def breaking() -> Findings:
    """Return changes against the committed baseline that break peers or stored data."""
    if not BASELINE.exists():
        return []
    return buf_findings("breaking", "proto", "--against", str(BASELINE.relative_to(ROOT)))


def outdated() -> Findings:
    """Return a finding if the baseline does not describe the proto files as they are."""
    if BASELINE.exists() and BASELINE.read_bytes() == image():
        return []
    name = BASELINE.relative_to(ROOT)
    return [f"{name}:1:1:The contract changed; run `python proto/generate.py`."]


def drift() -> Findings:
    """Return the first difference of each generated file from the generator's output."""
    findings: Findings = []
    with tempfile.TemporaryDirectory() as scratch:
        compile_protos(Path(scratch))
        for folder in OUTPUT_FOLDERS:
            expected, actual = files_of(Path(scratch) / folder), files_of(ROOT / folder)
            for name in sorted(expected.keys() | actual.keys()):
                line = first_difference(expected.get(name), actual.get(name))
                if line is not None:
                    where = f"{folder}/{name}:{line}:1"
                    findings.append(f"{where}:Not what proto/generate.py writes; run it.")
    return findings


def first_difference(expected: bytes | None, actual: bytes | None) -> int | None:
    """Return the number of the first line that differs (1: a file is missing), None if equal."""
    if expected is None or actual is None:
        return 1
    pairs = zip_longest(expected.splitlines(keepends=True), actual.splitlines(keepends=True))
    return next((n for n, (want, have) in enumerate(pairs, start=1) if want != have), None)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return name and content of the files directly in `folder`, which need not exist."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}


def replace_files(source: Path, target: Path) -> None:
    """Make the files directly in `target` those of `source`; write only what differs."""
    target.mkdir(parents=True, exist_ok=True)
    old, new = files_of(target), files_of(source)
    for name in old.keys() - new.keys():
        (target / name).unlink()
    for name, content in new.items():
        if old.get(name) != content:
            (target / name).write_bytes(content)


def compile_protos(output: Path) -> None:
    """Write the code of all proto files below `output`, as a mirror of the repository."""
    protos = sorted(PROTO.rglob("*.proto"))
    with_services = [path for path in protos if b"\nservice " in path.read_bytes()]
    run_protoc(protos, "--python_out", "--mypy_out=quiet", output=output)
    run_protoc(with_services, "--grpc_python_out", "--mypy_grpc_out=quiet", output=output)
    for stub in output.rglob("*.pyi"):
        stub.write_bytes(STUB_HEADER + stub.read_bytes())
    for folder, purpose in OUTPUT_FOLDERS.items():
        (output / folder / "__init__.py").write_text(f'"""{purpose}"""\n', encoding="utf-8")


def run_protoc(protos: list[Path], *flags: str, output: Path) -> None:
    """Run protoc over `protos`; its plugins are those beside the running Python."""
    included = resources.files("grpc_tools") / "_proto"
    run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), "-I", str(included)),
            *(f"{flag}{':' if '=' in flag else '='}{output}" for flag in flags),
            *(str(path) for path in protos),
        ]
    )


def image() -> bytes:
    """Return the whole contract, compiled, without comments: what the baseline holds."""
    options = ("--exclude-source-info", "-o", "-#format=binpb")
    return run([buf_path(), "build", "proto", *options]).stdout


def buf_findings(*arguments: str) -> Findings:
    """Return the lines that a buf check prints: path:line:column:message."""
    done = run([buf_path(), *arguments], may_fail=True)
    if done.returncode == 0:
        return []
    lines = (done.stdout or done.stderr).decode().splitlines()
    return lines or [f"proto/buf.yaml:1:1:`buf {arguments[0]}` ended with {done.returncode}"]


def buf_path() -> str:
    """Return the path of the buf beside the running Python, or of the one on PATH."""
    beside = Path(sys.executable).parent / "buf"
    found = str(beside) if beside.exists() else shutil.which("buf")
    if found is None:
        sys.exit("proto: buf is missing; install the `proto` dependency group")
    return found


def run(command: list[str], *, may_fail: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run a tool in the repository's root with the running Python's tools on PATH.

    Exits with the tool's own message when it fails and may not.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False
    )
    if done.returncode != 0 and not may_fail:
        sys.exit(f"proto: {command[0]} failed\n{done.stderr.decode(errors='replace')}")
    return done


if __name__ == "__main__":
    sys.exit(main())
