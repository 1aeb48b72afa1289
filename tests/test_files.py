import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ftlab import files
from ftlab.errors import BadInput, CourseError

SLASH = re.escape(os.sep)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path) -> Path:
    """A folder with one file, "old", that is to be replaced."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old", encoding="utf-8")
    return tmp_path / "model"


def replace(folder: Path) -> None:
    with files.atomic(folder, folder=True) as partial:
        (partial / "weights").write_text("new", encoding="utf-8")


def test_a_file_and_a_folder_appear_whole_and_leave_nothing_beside_them(old, tmp_path):
    replace(old)
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert left(tmp_path) == ["a.json", "model"]
    assert (old / "weights").read_text(encoding="utf-8") == "new"
    assert left(old) == ["weights"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_stops_the_block_leaves_the_old_one(old, tmp_path, stop):
    def stopped():
        with files.atomic(old, folder=True) as partial:
            (partial / "weights").write_text("half", encoding="utf-8")
            raise stop

    with pytest.raises(stop):
        stopped()
    assert (left(tmp_path), (old / "weights").read_text(encoding="utf-8")) == (["model"], "old")


@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_replacement_interrupted_between_two_renames_leaves_old_or_new(old, tmp_path, monkeypatch, step, stop):
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == step:
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(stop):
        replace(old)
    monkeypatch.undo()
    files.sweep(tmp_path)
    assert (old / "weights").read_text(encoding="utf-8") in ("old", "new")
    assert left(tmp_path) == ["model"]


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from ftlab import files

what, step = sys.argv[2], int(sys.argv[3])
calls = []

def killed(function):
    def instead(*given, **named):
        calls.append(given)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return instead

Path.rename, shutil.rmtree, Path.mkdir = killed(Path.rename), killed(shutil.rmtree), killed(Path.mkdir)
with files.atomic(Path(sys.argv[1]), folder=True) as partial:
    (partial / "weights").write_text("new")
"""


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("again", ["sweep", "whole"])
def test_a_process_killed_at_any_step_leaves_old_or_new_and_the_next_one_tidies_up(old, tmp_path, step, again):
    command = [sys.executable, "-c", KILLED, str(old), "kill", str(step)]
    assert subprocess.run(command, check=False).returncode in (-signal.SIGKILL, 0)
    if again == "sweep":
        files.sweep(tmp_path)
    else:
        files.write_json(tmp_path / "other.json", {})
        (tmp_path / "other.json").unlink()
    assert left(tmp_path) == ["model"]
    assert (old / "weights").read_text(encoding="utf-8") in ("old", "new")


def test_a_folder_half_deleted_is_never_put_back(old, tmp_path):
    """Killed while the old folder is deleted; the new one is then thrown away by hand."""
    script = KILLED.replace("Path.rename, shutil.rmtree, Path.mkdir = killed(Path.rename), killed(shutil.rmtree), ", "")
    script = script.replace("killed(Path.mkdir)", "").replace("calls = []", "calls = []; rmtree = shutil.rmtree")
    script = script.replace(
        "with files",
        "def half(path, **named):\n"
        "    (Path(path) / 'model' / 'weights').unlink(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.rmtree = half\nwith files",
    )
    assert subprocess.run([sys.executable, "-c", script, str(old), "", "0"], check=False).returncode == -signal.SIGKILL
    assert (old / "weights").read_text(encoding="utf-8") == "new"
    files.remove(old)
    files.sweep(tmp_path)
    assert left(tmp_path) == []


HOLDING = """
import sys
from pathlib import Path
from ftlab import files

with files.atomic(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_living_process_writes_is_not_swept(tmp_path, kind):
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "model"), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        files.sweep(tmp_path)
        files.write_json(tmp_path / "a.json", {})
        assert len(list(tmp_path.glob(files.PARTIAL + "*"))) == 1
        other.communicate("")
    assert other.returncode == 0
    assert left(tmp_path) == ["a.json", "model"]


def test_a_sweep_takes_what_no_process_holds_and_leaves_what_is_a_person_s(tmp_path):
    for name in (".partial-old", ".partial-1", ".ftlab-lock-notes", "partial-a", ".lock-waf"):
        (tmp_path / name).write_text("", encoding="utf-8")
    with files.atomic(tmp_path / "a"):
        pass
    assert len(left(tmp_path)) == 6  # in a folder of anybody's a name alone proves nothing
    files.sweep(tmp_path)
    assert left(tmp_path) == [".ftlab-lock-notes", ".lock-waf", "a", "partial-a"]
    files.sweep(tmp_path / "none")


WRITING = """
import sys
from pathlib import Path
from ftlab import files

for number in range(25):
    with files.atomic(Path(sys.argv[1]), folder=True) as partial:
        for part in "abc":
            (partial / part).write_text(f"{sys.argv[2]} {number}")
    files.write_json(Path(sys.argv[1] + ".json"), [sys.argv[2]] * 1000)
"""


def test_processes_that_write_one_folder_at_once_leave_one_of_theirs_and_nothing_else(tmp_path):
    others = [subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "x"), name]) for name in ("one", "two")]
    assert [other.wait() for other in others] == [0, 0]
    assert left(tmp_path) == ["x", "x.json"]
    assert left(tmp_path / "x") == ["a", "b", "c"]
    assert len({(tmp_path / "x" / part).read_text(encoding="utf-8") for part in "abc"}) == 1
    assert len(set(json.loads((tmp_path / "x.json").read_text(encoding="utf-8")))) == 1


def block_raises(problem, path, **more):
    def run():
        with files.atomic(path, error=BadInput, **more) as partial:
            raise problem(partial) if callable(problem) else problem

    return run


OTHERS = [
    FileNotFoundError(errno.ENOENT, "No such file", "rows.csv"),
    PermissionError(errno.EACCES, "Permission denied", "/elsewhere/rows.csv"),
    PermissionError(errno.EPERM, "Operation not permitted"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    OSError("the shape is not what was expected"),
    OSError(errno.EMFILE, "Too many open files", "rows.csv"),
    ValueError("File too large for this tokenizer"),
]


@pytest.mark.parametrize("problem", OTHERS, ids=lambda problem: str(problem)[:30])
def test_an_error_that_is_not_about_writing_passes_as_it_is(tmp_path, problem):
    with pytest.raises(type(problem)) as raised:
        block_raises(problem, tmp_path / "a")()
    assert raised.value is problem
    assert left(tmp_path) == []


def test_a_file_that_the_block_does_not_find_in_its_own_folder_passes_as_it_is(tmp_path):
    def run():
        with files.atomic(tmp_path / "model", folder=True) as partial:
            (partial / "metrics.json").read_text(encoding="utf-8")

    with pytest.raises(FileNotFoundError):
        run()


DISK = [
    (lambda partial: OSError(errno.ENOSPC, "No space left on device"), rf"the disk is full: .*{SLASH}model could not"),
    (lambda partial: OSError(errno.EDQUOT, "Disk quota exceeded", str(partial / "w")),
     rf"the disk is full: .*{SLASH}model "),
    (lambda partial: OSError(errno.ENOSPC, "No space left on device", "/scratch/a"),
     rf"is full: {SLASH}scratch{SLASH}a could not"),
    (lambda partial: RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing "
                                  "file data/0: file write failed"), rf"the disk is full: .*{SLASH}model "),
    (lambda partial: Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
     rf"the disk is full: .*{SLASH}model could not be written"),
    (lambda partial: PermissionError(errno.EACCES, "Permission denied", str(partial / "w")),
     rf"{SLASH}model cannot be writt"),
    (lambda partial: OSError(errno.EROFS, "Read-only file system", str(partial)), "be written .* choose a folder"),
    (lambda partial: OSError(errno.EIO, "Input/output error"),
     rf"{SLASH}model could not be written .*; check the disk"),
]  # fmt: skip


@pytest.mark.parametrize(("problem", "sentence"), DISK)
def test_an_error_of_writing_is_one_sentence(tmp_path, problem, sentence):
    with pytest.raises(BadInput, match=sentence) as raised:
        block_raises(problem, tmp_path / "model", folder=True)()
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == []


def test_an_unknown_error_is_not_taken_for_a_full_disk():
    """It is what Windows says for EDQUOT, and libraries for much else."""
    assert not files.says_disk_is_full(RuntimeError("Unknown error"))
    assert files.says_disk_is_full(OSError(errno.EDQUOT, "Unknown error"))


def test_a_relative_path_is_explained_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = lambda partial: PermissionError(errno.EACCES, "Permission denied", str(partial.resolve() / "w"))  # noqa: E731
    with pytest.raises(BadInput, match=r"^model cannot be written \(Permission denied\)"):
        block_raises(problem, Path("model"), folder=True)()


def test_a_folder_removed_while_it_is_written_is_told(tmp_path):
    def run():
        with files.atomic(tmp_path / "model", folder=True) as partial:
            partial.rmdir()
            (partial / "weights").write_text("new", encoding="utf-8")

    with pytest.raises(CourseError, match=rf"{SLASH}model was removed by another program on the way; run the command"):
        run()


def test_a_disk_that_is_really_full_is_one_sentence(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path; from ftlab import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.write_json(Path(sys.argv[1]), list(range(10_000)))\n"
        "except files.CourseError as problem: print(problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.json")], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"the disk is full: \S+ could not be written; free some space there, .*\n", done.stdout)
    assert left(tmp_path) == []


def test_what_cannot_be_replaced_is_refused_and_stays(old, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    refused = [("file", True, "is a file, and a folder"), ("model", False, "is a folder"), ("pipe", False, "a pipe")]
    for name, folder, sentence in refused:
        with pytest.raises(BadInput, match=sentence), files.atomic(tmp_path / name, folder=folder, error=BadInput):
            raise AssertionError("the block was entered")
    with pytest.raises(BadInput, match="cannot be written"), files.atomic(tmp_path / "file" / "a", error=BadInput):
        pass
    with pytest.raises(BadInput, match="another name"), files.atomic(tmp_path / ("a" * 300), error=BadInput):
        pass
    assert left(tmp_path) == ["file", "model", "pipe"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_what_another_process_made_meanwhile_stays_where_nothing_is_to_be_replaced(old, tmp_path):
    def write(meanwhile):
        with files.atomic(tmp_path / "merged", folder=True, replace=False, error=BadInput) as partial:
            (partial / "weights").write_text("mine", encoding="utf-8")
            meanwhile()

    with pytest.raises(BadInput, match="merged is not empty, perhaps by another process; choose a new folder"):
        write(lambda: old.rename(tmp_path / "merged"))
    assert (left(tmp_path), (tmp_path / "merged" / "weights").read_text(encoding="utf-8")) == (["merged"], "old")
    with pytest.raises(BadInput, match="is not empty"):
        write(lambda: None)
    files.remove(tmp_path / "merged")
    write((tmp_path / "merged").mkdir)
    assert (left(tmp_path), (tmp_path / "merged" / "weights").read_text(encoding="utf-8")) == (["merged"], "mine")


def test_a_link_stays_and_what_it_leads_to_is_replaced(old, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(old)
    (tmp_path / "elsewhere" / "report.html").symlink_to(tmp_path / "report.html")
    replace(tmp_path / "link")
    with files.atomic(tmp_path / "elsewhere" / "report.html") as partial:
        partial.write_text("new", encoding="utf-8")
    assert (tmp_path / "link").is_symlink()
    assert (old / "weights").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "new"


def test_a_lock_is_held_by_one_and_freed_by_a_kill(tmp_path):
    lock = files.acquire_lock(tmp_path / ".lock")
    assert files.acquire_lock(tmp_path / ".lock") is None
    assert files.holder(tmp_path / ".lock") == f"process {os.getpid()}"
    files.release_lock(lock)
    assert left(tmp_path) == []
    script = (
        "import os, sys; from pathlib import Path; from ftlab import files\n"
        "files.acquire_lock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / ".lock")], check=False)
    assert left(tmp_path) == [".lock"]
    files.release_lock(files.acquire_lock(tmp_path / ".lock"))
    assert left(tmp_path) == []
    assert files.holder(tmp_path / ".lock") == "another process"


@pytest.mark.parametrize("left_over", [b"", b"x" + b"9" * 20])
def test_the_number_of_the_process_stands_where_windows_lets_others_read_it(tmp_path, monkeypatch, left_over):
    """Windows locks the first byte: while the lock is held, nobody reads or writes it through another handle."""
    monkeypatch.setattr(files, "NUMBER_AT", 1)
    (tmp_path / ".lock").write_bytes(left_over)  # by a killed process with a longer number
    lock = files.acquire_lock(tmp_path / ".lock")
    assert files.holder(tmp_path / ".lock") == f"process {os.getpid()}"
    if sys.platform != "win32":
        assert (tmp_path / ".lock").read_bytes() == (left_over[:1] or b"\0") + str(os.getpid()).encode()
    files.release_lock(lock)
    assert left(tmp_path) == []


def test_a_lock_may_be_waited_for(tmp_path):
    lock = files.acquire_lock(tmp_path / ".lock")
    threading.Timer(0.2, files.release_lock, [lock]).start()
    assert files.acquire_lock(tmp_path / ".lock", wait=10) is not None


def test_json_is_strict(tmp_path):
    files.write_json(
        tmp_path / "a.json", {"a": [float("nan"), 1.5], "b": (float("inf"), {"c": -float("inf")}), "d": "NaN"}
    )
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
        "a": [None, 1.5],
        "b": [None, {"c": None}],
        "d": "NaN",
    }


def test_a_scratch_folder_is_deleted_afterwards(tmp_path):
    with files.scratch(tmp_path / "new") as work:
        (work / "half").write_text("half", encoding="utf-8")
        (work / "whole").write_text("whole", encoding="utf-8")
        (work / "whole").rename(tmp_path / "new" / "whole")
    assert left(tmp_path / "new") == ["whole"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_scratch_folder_is_deleted_after_an_error_too(tmp_path, stop):
    def stopped():
        with files.scratch(tmp_path) as work:
            (work / "half").write_text("half", encoding="utf-8")
            raise stop

    with pytest.raises(stop):
        stopped()
    assert left(tmp_path) == []


def test_a_scratch_folder_of_a_killed_process_is_swept_by_the_next_and_that_of_a_living_one_stays(tmp_path):
    script = HOLDING.replace("files.atomic(", "files.scratch(").replace(', folder=sys.argv[2] == "folder"', "")
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "writing\n"
        with files.scratch(tmp_path):
            assert len(list(tmp_path.glob(files.PARTIAL + "*"))) == 2
        other.kill()
    assert len(left(tmp_path)) == 2  # the folder, and the lock that nobody holds
    with files.scratch(tmp_path):
        assert len(list(tmp_path.glob(files.PARTIAL + "*"))) == 1
    assert left(tmp_path) == []


def test_a_scratch_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(BadInput, match=r"file cannot be written .*; choose a folder"),
        files.scratch(tmp_path / "file", BadInput),
    ):
        raise AssertionError("the block was entered")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
@pytest.mark.parametrize(
    "write", [lambda path: files.scratch(path.parent, BadInput), lambda path: files.atomic(path, error=BadInput)]
)
def test_a_folder_in_which_no_file_can_be_made_is_refused_and_not_tried_for_ever(write):
    with pytest.raises(BadInput, match=r"/proc.* could not be written"), write(Path("/proc/model")):
        raise AssertionError("the block was entered")
