"""Is what the daemon answers in api/openapi.yaml? Every request of harness.Daemon is compared."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "api/openapi.yaml"
# What any path answers to requests that are no good HTTP, or not permitted; the document's
# description says so.
ANYWHERE = {403, 405, 408, 414, 431, 505}


def read_operations(text):
    """{path: {method: statuses}}. Only the shape of the document is read: paths at two spaces,
    methods at four, statuses at eight."""
    operations, statuses, methods = {}, None, None
    for line in text.splitlines():
        if re.match(r"\S", line):
            methods = None
        if match := re.match(r"  (/\S*):$", line):
            methods, statuses = operations.setdefault(match[1], {}), None
        elif methods is not None and (match := re.match(r"    ([a-z]+):( .*)?$", line)):
            statuses = methods.setdefault(match[1], set())
        elif statuses is not None and (match := re.match(r"        '(\d{3})':", line)):
            statuses.add(int(match[1]))
    return operations


def as_pattern(path):
    pattern = re.escape(path).replace(re.escape("{ref...}"), ".+")
    return re.compile(pattern.replace(re.escape("{name}"), "[^/]+"))


OPERATIONS = read_operations(DOCUMENT.read_text())
# The more specific first: "{ref...}" fits nearly everything.
PATTERNS = sorted(((as_pattern(path), methods) for path, methods in OPERATIONS.items()
                   if not path.startswith(("/function/", "/async-function/"))),
                  key=lambda entry: -len(entry[0].pattern))


def check(method, target, headers, status):
    """Raises AssertionError where a management route answers with what is not documented."""
    path = target.split("?")[0]
    if not path.startswith("/v1/") or status in ANYWHERE:
        return
    if path.startswith("/v1/uploads"):
        method = next((value for name, value in headers.items()
                       if name.lower() == "x-http-method-override"), method)
    fits = [methods for pattern, methods in PATTERNS if pattern.fullmatch(path)]
    names = ["get", "head"] if method == "HEAD" else [method.lower()]
    known = [methods[name] for methods in fits for name in names if name in methods]
    # Without a route: nothing there, or a stranger, or no path at all.
    allowed = known[0] if known else {400, 401, 404}
    if status not in allowed:
        raise AssertionError(f"{method} {path[:80]} answered {status}; api/openapi.yaml has only "
                             f"{sorted(allowed)}")
