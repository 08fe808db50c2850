#!/usr/bin/env python3
"""Checks the rules of CONTRIBUTING.md that a machine can check; prints what breaks them.

Runs as the test "unit:tidy". Reads only files git knows or would add.
"""

import ast
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_COLUMNS, MAX_FUNCTION, MAX_HEADER_COMMENT, MAX_README = 100, 70, 12, 80
CODE = {".h", ".cpp", ".c", ".py", ".cmake"}
SCRIPTS = {"scripts", ".ci", "rootfs"}  # where files without a suffix are programs

# Who may include whom (docs/architecture.md). tests/ and bench/ may include everything.
MAY_INCLUDE = {
    "base": {"base"},
    "net": {"net", "base"},
    "sandbox": {"sandbox", "net", "base"},
    "images": {"images", "base"},
    "runtime": {"runtime", "sandbox", "images", "net", "base"},
    "api": {"api", "runtime", "sandbox", "images", "net", "base"},
}
# Headers of other projects: each lives behind one file of ours. json.hpp is slow: only in .cpp.
ONE_FILE = ["microhttpd.h", "sqlite3.h", "archive.h", "archive_entry.h", "seccomp.h",
            "sys/capability.h", "zlib.h", "zstd.h", "curl/curl.h", "openssl/evp.h",
            "openssl/sha.h", "nettle/gcm.h", "crypt.h", "libmnl/libmnl.h", "nftables/libnftables.h",
            "absl/time/time.h"]
JSON_HEADER = "nlohmann/json.hpp"
FORBIDDEN = [(re.compile(r"\b(TODO|FIXME|XXX)\b"), "unfinished work belongs in an issue"),
             (re.compile(r"/(work/main|home|root/\.)[/a-z]"), "a path of somebody's machine")]


def source_files():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"],
                         check=True, capture_output=True).stdout.decode()
    return [Path(name) for name in out.split("\0") if name and (ROOT / name).is_file()]


def is_code(path):
    if path.suffix in CODE or path.name == "CMakeLists.txt":
        return True
    return path.suffix in ("", ".sh") and path.parts[0] in SCRIPTS


def check_lines(path, lines, complain):
    limit = 800 if path.parts[0] in ("tests", "bench") else 600
    if len(lines) > limit:
        complain(path, len(lines), f"file has {len(lines)} lines, the limit is {limit}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS:
            complain(path, number, f"{len(line)} columns, the limit is {MAX_COLUMNS}")
        if path.name == "tidy.py":
            continue
        for pattern, why in FORBIDDEN:
            if pattern.search(line):
                complain(path, number, why)


NOT_A_FUNCTION = re.compile(
    r"^(namespace|class|struct|enum|union|extern|template|}|#|//|\s)|=\s*{$")


def check_c_functions(path, lines, complain):
    """A function's signature starts in column 0 and ends with "{"; "}" in column 0 closes it."""
    begin = None
    signature = None
    for number, line in enumerate(lines, 1):
        if begin is None:
            if line and line[0] not in " }#/" and "(" in line and not line.endswith(";"):
                signature = number
            if line.endswith("{") and signature is not None and not NOT_A_FUNCTION.search(
                    lines[signature - 1]):
                begin = signature
            if line.endswith(("{", ";", "}")):
                signature = None
        elif line.startswith("}"):
            if number - begin + 1 > MAX_FUNCTION:
                complain(path, begin, f"function of {number - begin + 1} lines, the limit is "
                                      f"{MAX_FUNCTION}")
            begin = None


def check_python_functions(path, text, complain):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = node.end_lineno - node.lineno + 1
            if size > MAX_FUNCTION:
                complain(path, node.lineno,
                         f"function of {size} lines, the limit is {MAX_FUNCTION}")


def check_header(path, lines, complain):
    if not lines or not lines[0].startswith("//"):
        complain(path, 1, "a header begins with its contract, a comment")
    if "#pragma once" not in lines:
        complain(path, 1, "no #pragma once")
    top = next((n for n, line in enumerate(lines) if not line.startswith("//")), 0)
    if top > MAX_HEADER_COMMENT:
        complain(path, 1, f"contract of {top} lines, the limit is {MAX_HEADER_COMMENT}")


def check_includes(path, lines, complain, users):
    for number, line in enumerate(lines, 1):
        match = re.match(r'#include [<"]([^>"]+)[>"]', line)
        if not match:
            continue
        name, top = match[1], path.parts[0]
        folder = name.split("/")[0]
        if top in MAY_INCLUDE and folder in MAY_INCLUDE and folder not in MAY_INCLUDE[top]:
            complain(path, number, f"{top}/ may not include {folder}/")
        if name == JSON_HEADER and path.suffix == ".h":
            complain(path, number, f"{JSON_HEADER} costs seconds per file: only in a .cpp")
        if name in ONE_FILE and top in MAY_INCLUDE:
            users.setdefault(name, set()).add(path)


def readme_above(path, files):
    for folder in path.parents:
        if folder / "README.md" in files:
            return folder / "README.md"
    return None


def check_readmes(files, complain):
    """Every file is named, by name or stem, in the README of its folder or the next one up."""
    known = set(files)
    texts = {}
    for path in files:
        if path.name == "README.md" or path.parts[0].startswith(".") or len(path.parts) == 1:
            continue
        readme = readme_above(path, known)
        if readme is None or readme == Path("README.md"):
            complain(path, 1, f"no README.md in {path.parts[0]}/")
            continue
        text = texts.setdefault(readme, (ROOT / readme).read_text())
        names = {path.name, path.stem, re.sub(r"_test$", "", path.stem)}
        inside = str(path.relative_to(readme.parent))
        patterns = re.findall(r"`([^`]*\*[^`]*)`", text)  # a row for many
        if any(fnmatch.fnmatch(inside, pattern) for pattern in patterns):
            continue
        if not any(re.search(r"(?<![\w-])" + re.escape(n) + r"(?![\w-])", text) for n in names):
            complain(readme, 1, f"does not name {inside}")


def check_cited_tests(files, complain):
    """A test that a document names, `test_x` or `Suite.Name`, exists."""
    tests = [path for path in files if path.parts[0] in ("tests", "scripts", "bench")]
    known = {path.stem for path in tests}
    for path in tests:
        if path.suffix in (".py", ".cpp"):
            text = (ROOT / path).read_text()
            known |= set(re.findall(r"^ *def (test_\w+)", text, re.MULTILINE))
            known |= {".".join(names) for names in
                      re.findall(r"^TEST(?:_F|_P)?\((\w+), *(\w+)\)", text, re.MULTILINE)}
    cited = re.compile(r"`(test_\w+|[A-Z][a-z]\w*\.[A-Z][a-z]\w+)`")
    for path in files:
        if path.suffix != ".md":
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            for name in cited.findall(line):
                if name not in known:
                    complain(path, number, f"cites the test {name}, which does not exist")


def check_gathered_code(files, complain):
    """What a linker script gathers by its mangled name is in the source."""
    source = "\n".join((ROOT / path).read_text() for path in files
                       if path.parts[0] in MAY_INCLUDE and path.suffix == ".cpp")
    for script in (path for path in files if path.suffix == ".ld"):
        for number, line in enumerate((ROOT / script).read_text().splitlines(), 1):
            for ours in re.findall(r"\.text\.\S*?5pulga(\S*)", line):
                while match := re.search(r"(\d+)([A-Za-z]\w*)", ours):
                    name, ours = match[2][:int(match[1])], ours[match.start(2) + int(match[1]):]
                    if not re.search(rf"\b{name}\b", source):
                        complain(script, number, f"gathers {name}, which does not exist")


def check_readme_sizes(files, complain):
    for path in files:
        if path.name != "README.md" or len(path.parts) == 1:
            continue
        lines = (ROOT / path).read_text().count("\n")
        if lines > MAX_README:
            complain(path, lines, f"README has {lines} lines, the limit is {MAX_README}: details "
                                  "belong into docs/ or a folder below")


def check_root(complain):
    lines = (ROOT / "CMakeLists.txt").read_text().count("\n")
    if lines >= 80:
        complain(Path("CMakeLists.txt"), lines, "the root CMakeLists.txt stays below 80 lines")


def main():
    problems = []

    def complain(path, line, what):
        problems.append(f"{path}:{line}: {what}")

    files = source_files()
    users = {}
    for path in files:
        if not is_code(path):
            continue
        text = (ROOT / path).read_text()
        lines = text.splitlines()
        check_lines(path, lines, complain)
        if path.suffix == ".py" or (lines and "python3" in lines[0]):
            check_python_functions(path, text, complain)
        elif path.suffix in (".h", ".cpp", ".c"):
            check_c_functions(path, lines, complain)
            check_includes(path, lines, complain, users)
        if path.suffix == ".h":
            check_header(path, lines, complain)
    for header, paths in users.items():
        if len(paths) > 1:
            complain(sorted(paths)[1], 1, f"<{header}> is included by {len(paths)} files: "
                                          + ", ".join(str(p) for p in sorted(paths)))
    check_readmes(files, complain)
    check_cited_tests(files, complain)
    check_gathered_code(files, complain)
    check_readme_sizes(files, complain)
    check_root(complain)
    print("\n".join(sorted(problems)) or f"tidy: {len(files)} files, nothing to complain about")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
