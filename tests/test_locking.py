import subprocess
import sys
import textwrap

import pytest

from edgefusion.errors import UsageError
from edgefusion.locking import sole_use

HOLDER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from edgefusion.locking import sole_use
    with sole_use(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
""")


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="Another run is at work"), sole_use(tmp_path):
            pass
        holder.kill()
    with sole_use(tmp_path):
        pass


def test_nothing_is_left_in_the_folder(tmp_path):
    with sole_use(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_failed_run_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path):
        raise ZeroDivisionError
    with sole_use(tmp_path):
        pass


def test_the_folder_is_made(tmp_path):
    with sole_use(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
