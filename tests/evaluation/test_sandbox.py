"""Sandbox: whether code passes its test, and its limits of folder, memory and time."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ftlab.data import sources
from ftlab.evaluation import sandbox
from ftlab.evaluation.sandbox import holds, printed
from tests import isolation
from tests.nightly import few_by_day

RIGHT = "def double(x):\n    return 2 * x"
WRONG = "def double(x):\n    return x"
TEST = "assert double(2) == 4\nassert double('ab') == 'abab'"
HAS_AF_UNIX = hasattr(socket, "AF_UNIX")  # Windows has none in Python
needs_resource = pytest.mark.skipif(sys.platform != "linux", reason="the bound on memory is Linux's")


def rows(kind):
    lines = (sources.ROWS / "tutor.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def in_a_process_of_its_own(script):
    """As one would run it by hand."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def attempt(code):
    """What refuses `code`, as its own process sees it."""
    indented = code.replace("\n", "\n    ")
    return printed(
        f"try:\n    {indented}\nexcept BaseException as e:\n    print(type(e).__name__)\nelse: print('done')"
    )


def test_the_course_s_own_code_gets_the_verdict_that_it_gets_without_bounds():
    for row in rows("write")[::12]:
        assert holds(row["output"], row["test"])
        assert in_a_process_of_its_own(f"{row['output']}\n{row['test']}").returncode == 0
    for row in rows("read")[::12]:
        assert printed(row["input"]) == in_a_process_of_its_own(row["input"]).stdout


@pytest.mark.parametrize(
    "code",
    few_by_day([
        "while True: pass",
        "import time; time.sleep(60)",
        "while True: print('x' * 10**6)",
        "import sys\nsys.setrecursionlimit(10**9)\nf = lambda x: f(x)\nf(1)",
        "def f(x): return f(x)\nf(1)",
        "import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()",
        "import signal\nfor n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import os\nos.close(1); os.close(0)\nwhile True: pass",
    ], "while True: pass", "while True: print('x' * 10**6)", "def f(x): return f(x)\nf(1)"),
)  # fmt: skip
def test_code_without_an_end_has_one_and_its_test_does_not_hold(code):
    began = time.monotonic()
    assert not holds(f"{RIGHT}\n{code}", TEST, seconds=1.0)
    assert printed(code, seconds=0.7) is None
    assert time.monotonic() - began < 8


@needs_resource
@pytest.mark.parametrize(
    "code",
    ["x = [0] * 10**9", "x = 'a'\nwhile True: x += x", "x = []\nwhile True: x.append(' ' * 10**6)", "bytearray(2**30)"],
)
def test_memory_has_a_bound(code):
    assert attempt(code) == "MemoryError\n"
    assert not holds(f"{RIGHT}\n{code}", TEST)


def test_memory_for_what_functions_usually_do_is_there():
    assert printed("print(len([0] * 10**7))") == "10000000\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "import os; os._exit(97)",
        "raise SystemExit",
        "exit()",
        "import sys; sys.stdout.write('True'); raise SystemExit(0)",
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'0' * 16)\n    except OSError: pass\nos._exit(0)",
        "import atexit, os; atexit.register(os._exit, 0); raise KeyboardInterrupt",
        "import os, threading; threading.Timer(0.2, os._exit, [0]).start(); threading.Event().wait()",
    ],
)
def test_code_that_leaves_or_pretends_has_not_passed(code):
    assert not holds(f"{WRONG}\n{code}", TEST)
    assert not holds(f"{RIGHT}\n{code}", TEST)


@pytest.mark.parametrize(
    "code",
    [
        "len = lambda _: 3",
        "def sorted(values): return [1, 2, 3]",
        "import builtins\nbuiltins.sorted = lambda _: [1, 2, 3]\nbuiltins.len = lambda _: 3",
        "__builtins__ = {'len': lambda _: 3, 'sorted': lambda _: [1, 2, 3]}",
        "import builtins\nbuiltins.AssertionError = int",
        "AssertionError = None\n__debug__or = 1",
    ],
)
def test_a_test_is_judged_by_python_s_own_builtins(code):
    test = "assert len(double([1])) == 3\nassert sorted(double([1])) == [1, 2, 3]"
    assert not holds(f"{RIGHT}\n{code}", test)
    assert holds(f"{RIGHT}\n{code}", "assert double(2) == 4")


def test_a_function_may_have_the_name_of_a_builtin_and_is_what_is_tested():
    test = "assert sum([1, 2]) == 3\nassert sum([]) == 0"
    assert holds("def sum(values):\n    total = 0\n    for one in values: total += one\n    return total", test)
    assert not holds("def sum(values): return 3", test)


def test_there_is_no_network_to_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for code in (
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
            "import socket\nsocket.socket()",
            "import socket\nsocket.getaddrinfo('localhost', 80)",
            f"import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=1)",
            *["import socket\nsocket.socket(socket.AF_UNIX).connect('/tmp/.X11-unix/X0')"] * HAS_AF_UNIX,
            "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', 1))",
        ):
            assert attempt(code) in ("PermissionError\n", "URLError\n"), code
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def may_leave_the_network():
    return (
        sys.platform == "linux"
        and in_a_process_of_its_own(
            "from ftlab.evaluation import sandbox as s\nimport os\n"
            "before = os.readlink('/proc/self/ns/net')\ns._leave_the_network()\n"
            "raise SystemExit(before == os.readlink('/proc/self/ns/net'))"
        ).returncode
        == 0
    )


def test_where_the_kernel_permits_it_the_network_is_another_one():
    if not may_leave_the_network():
        isolation.lacking("the kernel does not permit it")
    own = str(Path("/proc/self/ns/net").readlink())
    assert printed("import os\nprint(os.readlink('/proc/self/ns/net'))").strip() != own


@pytest.mark.skipif(not HAS_AF_UNIX, reason="asyncio wakes its loop through the network where it has no AF_UNIX")
def test_coroutines_run():
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nprint(asyncio.run(f()))"
    assert printed(code) == "5\n"


def test_threads_run():
    assert printed("import threading\nthreading.Thread(target=print, args=['hi']).start()") == "hi\n"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.fork()",
        "import os\nwhile True: os.fork()",
        "import os\nos.system('true')",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.killpg(0, 9)",
        "import subprocess\nsubprocess.run(['true'])",
        "import _posixsubprocess\n_posixsubprocess.fork_exec()",
        "import multiprocessing as m\nm.Process(target=print).start()",
        "import multiprocessing as m\nm.get_context('spawn').Process(target=print).start()",
        "import ctypes\nctypes.CDLL(None)",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))",
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX's ways")
def test_it_starts_no_process_and_ends_none(code):
    assert attempt(code) == "PermissionError\n"


def test_it_changes_nothing_outside_of_its_folder(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("three years of work", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for code in (
        f"open({str(mine)!r}, 'w')",
        f"open({str(mine)!r}, 'r+b')",
        f"open({str(tmp_path / 'new')!r}, 'x')",
        f"import os\nos.open({str(mine)!r}, os.O_WRONLY | os.O_TRUNC)",
        f"import os\nos.remove({str(mine)!r})",
        f"import os\nos.chdir({str(tmp_path)!r}); os.remove('mine')",
        f"import os\nos.rename({str(mine)!r}, 'here')",
        f"import os\nos.symlink({str(mine)!r}, 'link'); open('link', 'a')",
        f"import os\nos.symlink('here', {str(tmp_path / 'link')!r})",
        f"import os\nos.remove('mine', dir_fd=os.open({str(tmp_path)!r}, os.O_RDONLY))",
        f"import os\nos.rmdir({str(tmp_path / 'folder')!r})",
        f"import os\nos.mkdir({str(tmp_path / 'new')!r})",
        f"import os\nos.chmod({str(mine)!r}, 0)",
        f"import shutil\nshutil.rmtree({str(tmp_path)!r})",
        f"import pathlib\npathlib.Path({str(mine)!r}).write_text('')",
        f"import sqlite3\nsqlite3.connect({str(tmp_path / 'new')!r})",
        "open('../beside', 'w')",
    ):
        assert attempt(code) == "PermissionError\n", code
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["folder", "mine"]
    assert mine.read_text(encoding="utf-8") == "three years of work"


def test_a_path_relative_to_a_folder_that_nobody_can_name_is_outside(tmp_path, monkeypatch):
    """As on macOS, which has no /proc/self/fd."""
    folder, readlink = tmp_path.resolve(), os.readlink

    def without_proc(path, *given, **named):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return readlink(path, *given, **named)

    monkeypatch.setattr(os, "readlink", without_proc)
    monkeypatch.chdir(folder)
    refuse = sandbox._refusal(str(folder))
    for event, arguments in (("os.remove", ("mine", 5)), ("os.rename", ("mine", str(folder / "here"), 5, -1))):
        with pytest.raises(PermissionError):
            refuse(event, arguments)
    refuse("os.remove", ("mine", -1))  # relative to the folder that it is in
    refuse("os.remove", (str(folder / "mine"), 5))  # and this is relative to nothing


def test_a_line_ends_as_the_code_prints_it_where_the_system_has_another_end(tmp_path):
    """As on Windows, where Python writes \\r\\n to stdout."""
    done = in_a_process_of_its_own(
        "import sys\nfrom ftlab.evaluation import sandbox\n"
        f"sys.stdout.reconfigure(newline='\\r\\n')\nsandbox._redirect({str(tmp_path / 'printed')!r})\nprint('a')"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "printed").read_bytes() == b"a\n"


def test_its_own_folder_is_empty_is_its_to_write_in_and_is_gone_afterwards():
    code = (
        "import os, tempfile\nprint(os.listdir())\nopen('a', 'w').write('x')\nprint(open('a').read(), os.listdir())\n"
    )
    assert printed(f"{code}\nwith tempfile.TemporaryFile() as f: f.write(b'x')") == "[]\nx ['a']\n"
    where = printed("import os\nprint(os.getcwd())").strip()
    assert not Path(where).parent.exists()


@needs_resource
def test_files_have_a_bound_too():
    assert attempt(f"open('a', 'wb').write(bytes({2 * sandbox.FILE}))") == "OSError\n"
    assert attempt("for n in range(1000): open(f'{n}', 'w').close()") == "PermissionError\n"
    assert attempt("f = [open('a', 'a') for _ in range(90)]") == "OSError\n"


@needs_resource
def test_what_is_printed_has_a_bound():
    assert printed(f"print('x' * {sandbox.FILE // 2})") == "x" * (sandbox.FILE // 2) + "\n"
    assert printed(f"print('x' * {2 * sandbox.FILE})") is None


def test_it_sees_nothing_of_this_process(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "helper.py").write_text("", encoding="utf-8")
    kept = "{'SYSTEMROOT'}" if sys.platform == "win32" else "set()"  # Windows starts no process without it
    assert printed("import os\nprint(set(os.environ))") == f"{kept}\n"
    assert attempt("import helper") == attempt("import ftlab") == attempt("import numpy") == "ModuleNotFoundError\n"
    assert attempt("input()") == "EOFError\n"


def test_the_same_code_gets_the_same_verdict_each_time():
    code = "import random\nprint(list({'a', 'b', 'c', 'd', 'e'}), random.random())"
    assert len({printed(code) for _ in range(4)}) == 1


def test_code_runs_as_a_program_does():
    assert printed("if __name__ == '__main__': print('main')") == "main\n"
    fields = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 3\n"
    )
    assert holds(f"{fields}\nimport pickle", "assert pickle.loads(pickle.dumps(P())) == P(3)")
    assert holds("# " + "x" * 300_000 + f"\n{RIGHT}", TEST)  # more than a command line takes


@pytest.mark.parametrize(
    "code", ["print('é', '日本', '\\ud83d\\ude00'.encode('utf-16', 'surrogatepass').decode('utf-16'))"]
)
def test_what_is_printed_is_utf_8_whatever_the_locale(code, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert printed(code) == "é 日本 😀\n"


@pytest.mark.parametrize("code", ["\0", "\ud800", "def f(:", "print('x')\n\0"])
def test_what_is_no_python_prints_nothing_and_passes_nothing(code):
    assert printed(code) is None
    assert not holds(f"{RIGHT}\n{code}", TEST)


def test_it_leaves_no_process_and_no_thread_behind():
    threads = threading.active_count()
    holds(f"{RIGHT}\nwhile True: pass", TEST, seconds=0.3)
    holds(RIGHT, TEST)
    assert threading.active_count() == threads
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
