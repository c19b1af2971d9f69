"""What Windows refuses and other systems allow, refused here too: `python -m pytest -p tests.windows tests/sweeps`.

Windows renames, replaces and removes no file that this process has open or mapped, and knows no name with one of
``< > : " | ? *``, with a space or a point at its end, or of a device (CON, NUL, …). An audit hook sees every such
call of Python and raises what Windows would. It looks at /proc and so works on Linux alone; it cannot be taken off.
"""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

NO_NAME = re.compile(r'[<>:"|?*\x00-\x1f]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Nobody's files but a test's: what is under these is made by the system or by others.
NOT_OURS = ("/proc", "/dev", "/sys", "/run")


def in_use() -> dict[tuple[int, int], str]:
    """Every file that this process has open or mapped: (device, inode) → how."""
    found: dict[tuple[int, int], str] = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(int(number))
        except OSError:
            continue  # the folder that was listed
        found[status.st_dev, status.st_ino] = "open"
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[4] != "0":
                major, minor = (int(part, 16) for part in fields[3].split(":"))
                found.setdefault((os.makedev(major, minor), int(fields[4])), "mapped")
    return found


def refuse_in_use(path: Any, what: str) -> None:
    """PermissionError, as on Windows, for a file that is open or mapped here."""
    try:
        status = os.stat(os.fspath(path), follow_symlinks=False)
    except (OSError, TypeError, ValueError):
        return
    how = in_use().get((status.st_dev, status.st_ino))
    if how and not os.path.isdir(path):
        raise PermissionError(errno.EACCES, f"Windows {what} no file that is {how} here", os.fsdecode(path))


def refuse_name(path: Any) -> None:
    """OSError, as on Windows, for a name that it does not know."""
    if not isinstance(path, str | bytes | os.PathLike):
        return
    text = os.fsdecode(path)
    if text.startswith(NOT_OURS):
        return
    for part in Path(text).parts[1 if text.startswith("/") else 0 :]:
        if part not in {"..", "."} and NO_NAME.search(part):
            raise OSError(errno.EINVAL, "Windows knows no such name", text)


def hook(event: str, given: tuple[Any, ...]) -> None:
    """The audit hook."""
    if event == "os.rename":
        refuse_in_use(given[0], "renames")
        refuse_in_use(given[1], "replaces")
        refuse_name(given[1])
    elif event == "os.remove":
        refuse_in_use(given[0], "removes")
    elif event == "os.mkdir" or (event == "open" and given[2] & WRITES):
        refuse_name(given[0])


def pytest_configure(config: Any) -> None:
    """pytest's own call."""
    if sys.platform == "linux":
        sys.addaudithook(hook)
