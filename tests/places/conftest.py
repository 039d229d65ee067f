"""Runs toy plugins at a place: the real agent, shepherd and worker, as processes on this machine."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from readtrack.home import Home
from readtrack.places import code, process
from readtrack.places.link import StreamLink
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import processes, store
from readtrack.runs.job import new_job

TOYS = Path(__file__).parents[1] / "toys"
DEADLINE = 60.0


def wait_for(condition, what, deadline=DEADLINE):
    """Poll until `condition()` is true, and return its value."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


@pytest.fixture
def wait():
    return wait_for


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """Make the toys known locally; at the place, only the sent code is available. Workers import the stub
    of torch.
    """
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(TOYS))
    earlier = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(TOYS / "light"), earlier))))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Elsewhere:
    """A place whose agent is a child process, with a connection that can be cut.

    links    every connection that was made
    reached  whether a new connection can be made
    """

    def __init__(self, home, far):
        self.home, self.far = home, far
        self.place = Place(name="far", kind="ssh", host="far")
        self.links = []
        self.reached = True
        self.processes = []

    @property
    def command(self):
        bare = ("env", "-u", "READTRACK_PLUGIN_PATH")  # no toys there
        return [*bare, sys.executable, "-u", "-m", "readtrack.places.agent", str(self.far)]

    def connect(self, place):
        if not self.reached:
            raise process.Unreachable("the cable is out")
        self.links.append(StreamLink(self.command))
        return self.links[-1]

    def cut(self):
        """Cut the connection in the middle of a message."""
        self.links[-1]._child.kill()

    def write_down(self):
        """Write the place into the reader's places.yaml."""
        self.home.ensure()
        (self.home.root / "places.yaml").write_text("far: {kind: ssh, host: far}\n")

    def start(self, paper, *, only="experiment", budget="smoke", **fields):
        self.write_down()
        job = new_job(paper, only=only, budget=budget, place=self.place.name, **fields)
        packed = code.pack(paper, find(self.home), {})
        started = process.start(job, self.home, self.place, packed, connect=self.connect)
        self.processes.append(started)
        return started

    def finish(self, started):
        wait_for(started.poll, "the end of the run")
        return store.load(started.folder)

    def reach(self, started, phase="train"):
        """Wait until the run is in this phase."""
        wait_for(lambda: store.load(started.folder).phase == phase, f"phase {phase}")

    def leave(self):
        self.reached = True
        for started in self.processes:
            while started.poll() is None:
                started.cancel()
                time.sleep(0.1)
        for folder in self.runs():
            for attempt in (folder / "attempts").glob("*/runs/*"):
                processes.kill_leftover_processes(attempt.name)

    def runs(self):
        return sorted((self.far / "elsewhere" / "runs").glob("[!.]*"))


@pytest.fixture
def elsewhere(home, tmp_path):
    place = Elsewhere(home, tmp_path / "far")
    yield place
    place.leave()


@pytest.fixture
def second(tmp_path):
    """Another reader's home with the same place."""
    place = Elsewhere(Home(tmp_path / "second"), tmp_path / "far")
    yield place
    place.leave()


# Real servers on the loopback address


@pytest.fixture
def servers():
    """Starts daemons in separate sessions, and ends all their processes."""
    started = []

    def start(*command, **options):
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
        started.append(child)
        return child

    yield start
    for child in reversed(started):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def sshd(tmp_path, servers, monkeypatch):
    """The name of a host reached by ssh, whose login shell prints a greeting. Skipped without sshd."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client and server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # compiled into sshd
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    port = free_port()
    (folder / "greeting").write_text('printf "Welcome {"\n')
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxSessions 20\n"
        f"SetEnv PYTHONPATH={os.environ['PYTHONPATH']} OMP_NUM_THREADS=1 BASH_ENV={folder}/greeting\n"
    )
    key = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "config").write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user_key\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
    )
    with (folder / "log").open("wb") as log:
        servers(program, "-D", "-e", "-f", folder / "sshd_config", stdout=log)
    wait_for(lambda: answers(port), "the ssh server")
    # The program takes no configuration from its environment, so a script calls it.
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (bin_ / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    return "far"


@pytest.fixture
def scheduler(tmp_path, servers, request):
    """The address of a Dask scheduler, and the processes of its workers (two, or the parameter), which
    share a home.
    """
    return _scheduler(tmp_path, servers, getattr(request, "param", 2), "tcp")


@pytest.fixture
def encrypted_scheduler(tmp_path, servers, monkeypatch):
    """The address of a Dask scheduler that accepts only clients with its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=readtrack", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    monkeypatch.setenv(f"{tls}CA_FILE", str(cert))
    for who in ("SCHEDULER", "WORKER", "CLIENT"):
        monkeypatch.setenv(f"{tls}{who}__CERT", str(cert))
        monkeypatch.setenv(f"{tls}{who}__KEY", str(key))
    return _scheduler(tmp_path, servers, 1, "tls")[0]


def _scheduler(tmp_path, servers, count, transport):
    pytest.importorskip("distributed", reason="needs the extra readtrack[dask]")
    port = free_port()
    address = f"{transport}://127.0.0.1:{port}"
    with (tmp_path / "dask.txt").open("wb") as log:
        host = ("--host", "127.0.0.1", "--protocol", transport)
        servers(
            *(sys.executable, "-m", "distributed.cli.dask_scheduler", *host),
            *("--port", str(port), "--no-dashboard", "--no-show"),
            stdout=log,
        )
        workers = [
            servers(
                *(sys.executable, "-m", "distributed.cli.dask_worker", address, *host, "--nthreads", "1"),
                *("--no-dashboard", "--no-nanny", "--name", f"n{number}", "--memory-limit", "0"),
                *("--local-directory", str(tmp_path / f"n{number}")),
                stdout=log,
            )
            for number in range(1, 1 + count)
        ]
    wait_for(lambda: answers(port), "the scheduler")
    # In a separate process, because Dask reads its settings only on import.
    program = (
        "import sys, distributed\n"
        "with distributed.Client(sys.argv[1], timeout=60, set_as_default=False) as client:\n"
        "    client.wait_for_workers(int(sys.argv[2]), timeout=60)\n"
    )
    subprocess.run([sys.executable, "-c", program, address, str(count)], check=True)
    return address, workers


_SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
JobRequeue=1
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=5
MinJobAge=300
Waittime=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes=n1 Default=YES MaxTime=60 State=UP PriorityTier=1
PartitionName=high Nodes=n1 MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture
def short():
    """A folder with a short path, because the path of a socket must be short."""
    folder = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(short, servers, monkeypatch):
    """A SLURM cluster with one node. Skipped if SLURM is not installed.

    node    starts the node's daemon again
    daemon  the process of the first daemon
    """
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.getuid() or not all(shutil.which(one, path=path) for one in ("munged", "slurmctld", "slurmd")):
        pytest.skip("needs root, and the packages slurm-wlm and munge")
    folder = short
    folder.chmod(0o755)
    munge = folder / "munge"
    for one in (munge, folder / "state", folder / "spool"):
        one.mkdir(mode=0o755)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o600)
    ports = (free_port(), free_port())
    text = _SLURM.format(host=socket.gethostname(), munge=munge, folder=folder, ports=ports)
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    with (folder / "out.txt").open("wb") as out:
        servers(
            *(shutil.which("munged", path=path), "--foreground", f"--key-file={munge}/key"),
            *(f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--log-file={munge}/log"),
            *(f"--seed-file={munge}/seed", "--num-threads=1"),
            stdout=out,
        )
        wait_for((munge / "socket").exists, "munge")
        servers(shutil.which("slurmctld", path=path), "-D", stdout=out)
        wait_for(lambda: answers(ports[0]), "slurmctld")

    def node():
        with (folder / "node.txt").open("ab") as out:
            return servers(shutil.which("slurmd", path=path), "-D", "-N", "n1", stdout=out)

    daemon = node()

    def idle():
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        return "idle" in done.stdout

    wait_for(idle, "the node")
    yield SimpleNamespace(node=node, daemon=daemon)
    subprocess.run(["scancel", "-u", "root"], capture_output=True, check=False)
