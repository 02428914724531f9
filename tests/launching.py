"Scripts that run in two processes, for the tests."
import os, shutil, socket, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = 'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT'
ABORTED = 'terminate called without an active exception'


def environment():
    "Ours, with the package to be found and no trace of another launcher."
    ours = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    return {**ours, 'PYTHONPATH': os.pathsep.join([str(ROOT), ours.get('PYTHONPATH', '')]), 'OMP_NUM_THREADS': '1'}


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def finished(words, seconds):
    "As `subprocess.run`, but a launcher that takes too long is asked to end, and ends its workers; killed, it leaves them running."
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            texts = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.terminate()
            raise
    return subprocess.CompletedProcess(words, running.returncode, *texts)


def launch_two(words, out):
    """Run a command in two processes, and once more where one was aborted on its way out: now and then a thread of
    PyTorch wants back into an interpreter that has ended (Python 3.11 ends that thread, and C++ takes it ill).
    What the first one wrote to `out` goes."""
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1']
    for _ in range(2):
        shutil.rmtree(out, ignore_errors=True) if Path(out).is_dir() else Path(out).unlink(missing_ok=True)
        done = finished([*launch, f'--master_port={free_port()}', *map(str, words)], 270)
        if ABORTED not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done
