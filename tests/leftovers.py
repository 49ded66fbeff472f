"""What a run of the tests may not leave behind, and the folder that it works in.

Each part (one program, see run.py) gets a folder of its own as TMPDIR, which has to
be empty when it ends, and a group of processes, which has to be gone. Pytest works in
a base folder of its own beside that one: what is in it are the folders of failed tests
and of what whole modules share, and of those only the size is held to a bound (that of
a test that passed is removed at its end: http/folders.py). In the checkout nothing may
be new but build folders.

All of it is removed whatever was found, and also where the run is interrupted; only
what was found is a failure. Nothing is searched for in shared places such as /tmp,
where others work too.
"""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

MEMORY = "/dev/shm"
MEMORY_FREE = 512 << 20  # less than that is left to others
SHARED_BYTES = 256 << 20  # of modules' fixtures
GRACE = 5  # seconds for processes that were told to end


class Scratch:
    """The folders of one run. `found` are the sentences about what was left."""

    def __init__(self):
        self.found = []
        self.on_disk = tempfile.mkdtemp(prefix="attentiond-tests-")
        # the stores of the unit tests sync thousands of times
        self.in_memory = memory_folder() or self.on_disk
        self.taken = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for folder in {self.on_disk, self.in_memory}:
            remove(folder)

    def take(self, in_memory=False):
        self.taken += 1
        folder = os.path.join(self.in_memory if in_memory else self.on_disk, str(self.taken))
        os.mkdir(folder)
        return folder

    def give_back(self, name, folder):
        left = sorted(os.listdir(folder))
        if left:
            self.found.append(f"{name}: left in TMPDIR: {listed(left)}")
        base = base_folder(folder)
        if size_of(base) > SHARED_BYTES:
            largest = sorted(os.listdir(base), key=lambda entry: -size_of(os.path.join(base, entry)))
            self.found.append(f"{name}: {size_of(base) >> 20} MiB left in pytest's folder, "
                              f"most of it in {listed(largest)}")
        remove(folder)
        remove(base)

    def end_group(self, name, group):
        """Ends what is left of a process group whose leader has ended."""
        end = time.monotonic() + GRACE
        members = members_of(group)
        while members and time.monotonic() < end:
            time.sleep(0.02)
            members = members_of(group)
        if members:
            self.found.append(f"{name}: left running: {listed(members)}")
            os.killpg(group, signal.SIGKILL)


def base_folder(folder):
    """Pytest's --basetemp, beside a part's TMPDIR."""
    return folder + "-pytest"


def memory_folder():
    try:
        status = os.statvfs(MEMORY)
        if status.f_bavail * status.f_frsize >= MEMORY_FREE:
            return tempfile.mkdtemp(prefix="attentiond-tests-", dir=MEMORY)
    except OSError:
        pass
    return None


def remove(folder):
    """All of it, folders without permissions too."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def size_of(folder):
    """What the files below it take on the disk."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(path, file)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def members_of(group):
    """`PID command line` of the processes of a group that have not ended."""
    members = []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                state, _, of = file.read().rpartition(")")[2].split()[:3]
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                command = file.read().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == group and state not in "ZX":
            members.append(f"{pid} {command}")
    return members


def untracked(repository, builds):
    """What git does not know there, ignored or not, but for the build folders; None
    where there is no git or no checkout."""
    try:
        result = subprocess.run(
            ["git", "-C", repository, "status", "--porcelain", "--ignored", "-z", "--", "."],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return None
    if result.returncode != 0:
        return None
    names = re.findall(r"(?:^|\0)(?:\?\?|!!) ([^\0]+)", result.stdout)
    return {name for name in names if name.rstrip("/") not in builds}


def listed(names, most=5):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
