"""A benchmark run on a Ray cluster: workers and machines come and go, the results stay the same byte for byte."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from sitter.dreambench import data, travel
from sitter.dreambench.plan import Plan
from sitter.dreambench.queue import ATTEMPTS, ClusterError, Done, News, Queue, run_jobs
from test_dreambench import GOLDEN, command, dataset, results, run

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError as why:
    ray, WHY = None, str(why)

SLOW = "fake:steps=10,step_ms=100"


def plan(root: Path) -> Plan:
    return Plan.make(data.read(root), None, None, model="m", protocol="B", method="two_stage", identifier="[V]", seed=0,
                     per_prompt=1, class_pictures=1, train={}, sample={}, networks={"dino": "d"})


class Queueing(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.jobs = plan(dataset(self.folder)).jobs(self.folder / "out")

    def test_a_job_is_given_out_once_and_only_when_what_it_needs_is_done(self):
        order, at_work, queue = [], [], Queue(self.jobs)
        while queue.left():
            job = queue.begin()
            if job is None:
                done = at_work.pop(0)
                queue.end(done, True)
                order.append(done.id)
                continue
            self.assertTrue(all(need in order for need in job.needs), job.id)
            at_work.append(job)
        self.assertEqual(sorted(order), sorted(job.id for job in self.jobs))
        self.assertIsNone(queue.begin())

    def test_a_worker_stays_with_its_subject(self):
        queue = Queue(self.jobs, ["teach/fox", "teach/dog"])
        self.assertEqual([queue.begin(unit).id for unit in ("dog", "fox", "")], ["draw/dog/01", "draw/fox/01", "draw/fox/02"])

    def test_what_is_done_is_not_given_out_again_though_what_it_needed_is_lost(self):
        queue, order = Queue(self.jobs, [job.id for job in self.jobs if job.id != "teach/fox"]), []
        while queue.left():
            job = queue.begin()
            order.append(job.id)
            queue.end(job, True)
        self.assertEqual(order, ["teach/fox"])

    def test_a_job_whose_workers_die_is_given_up_in_the_end(self):
        queue = Queue(self.jobs)
        for attempt in range(ATTEMPTS):
            job = queue.begin()
            self.assertEqual(job.id, "teach/fox")
            self.assertEqual(queue.lose(job), attempt + 1 < ATTEMPTS)


class AtOnce:
    """A crew that does jobs at once, but loses the worker of a job so many times as `losses` says."""

    def __init__(self, losses, starts=True):
        self.losses, self.starts, self.hired, self.did, self.waiting = losses, starts, 0, [], []

    def hire(self):
        self.hired += 1
        self.waiting.append(News(self.hired, gone="" if self.starts else "no room"))

    def give(self, worker, job, holds):
        self.did.append(job.id)
        lost = self.losses.get(job.id, 0) > 0
        if lost:
            self.losses[job.id] -= 1
        self.waiting.append(News(worker, job, None if lost else Done(0.0, str(worker), job.unit), "killed" if lost else ""))

    def news(self):
        found, self.waiting = self.waiting, []
        return found


class Working(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.jobs = plan(dataset(self.folder)).jobs(self.folder / "out")
        self.told = []

    def work(self, losses, workers=3, starts=True):
        queue, crew = Queue(self.jobs), AtOnce(losses, starts)
        run_jobs(queue, crew, workers, self.folder, self.told.append)
        return queue, crew

    def test_a_lost_job_is_done_again_by_a_new_worker(self):
        queue, crew = self.work({"teach/dog": 2})
        self.assertEqual((queue.failed, len(queue.done)), ([], len(self.jobs)))
        self.assertEqual((crew.did.count("teach/dog"), crew.hired), (3, 5))

    def test_a_job_that_ends_every_worker_is_given_up_and_what_needs_it_is_not_begun(self):
        queue, crew = self.work({"teach/dog": 99})
        self.assertEqual(crew.did.count("teach/dog"), ATTEMPTS)
        self.assertEqual(sorted(queue.failed), ["class/dog", "draw/dog/01", "draw/dog/02", "score/dog", "teach/dog"])
        self.assertEqual(len(queue.done), len(self.jobs) - 5)

    def test_no_more_workers_are_begun_than_there_are_jobs(self):
        self.assertEqual(self.work({}, workers=1000)[1].hired, len(self.jobs))

    def test_workers_that_never_start_end_the_run(self):
        with self.assertRaisesRegex(ClusterError, "do not start: no room"):
            self.work({}, starts=False)


class Travelling(unittest.TestCase):
    def test_files_and_folders_arrive_as_they_were(self):
        with tempfile.TemporaryDirectory() as folder:
            here, there = Path(folder, "here"), Path(folder, "there")
            travel.unpack({"pictures/fox/01/0.png": b"zero", "pictures/fox/01/1.png": b"one", "scores/fox.json": b"{}"}, here)
            taken = travel.pack(here, [here / "pictures" / "fox" / "01", here / "scores" / "fox.json", here / "not there"])
            for output in ("pictures/fox/01", "scores/fox.json"):
                travel.keep(taken, there / output, there)
            self.assertEqual(travel.pack(there, [there]), travel.pack(here, [here]))


def workers(at_work: bool = False) -> "list[int]":
    """Processes of Ray's actors on this machine that do our jobs."""
    found, title = [], b"ray::RemoteWorker" + (b".do" if at_work else b"")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if title in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


def works(node) -> bool:
    """Whether a worker is busy on one of the machines."""
    raylet = node.all_processes["raylet"][0].process.pid
    parent = lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return raylet in map(parent, workers(at_work=True))


class OnRay(unittest.TestCase):
    """Three machines on 127.0.0.1."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.root, True)
        cls.data, cls.alone = dataset(cls.root / "data"), cls.root / "alone"
        run(cls.data, cls.alone, model=SLOW)
        # Ray's workers stand back behind all other programs of a machine: on a busy one the tests would take minutes.
        os.environ.setdefault("RAY_worker_niceness", "0")
        cls.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cls.addClassCleanup(cls.cluster.shutdown)

    def start(self, out: Path, *more: str) -> "subprocess.Popen[str]":
        words = command(self.data, out, "--cluster", self.cluster.address, "--workers", "2", *more, model=SLOW)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        with open(self.told(out), "w") as file:
            return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=file)

    def told(self, out: Path) -> Path:
        return out.with_suffix(".txt")

    def wait_for(self, what, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), until, "nothing happens")
            time.sleep(0.02)

    def ends(self, process: "subprocess.Popen[str]", out: Path, code: int = 0) -> str:
        process.wait(600)
        told = self.told(out).read_text()
        self.assertEqual(process.returncode, code, told)
        return told

    def everything_goes_wrong(self, out: Path, *more: str) -> None:
        """A worker killed in the middle of a teaching, a machine gone, the driver killed: the results are those of an undisturbed
        run on one machine."""
        nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.addCleanup(lambda: [self.cluster.remove_node(node) for node in nodes])
        log = out / "log.jsonl"
        lost = lambda: self.told(out).read_text().count("its worker is gone; it is done again")
        process = self.start(out, *more)
        # The first job that is given out is a teaching; it takes a second.
        self.wait_for(lambda: workers(at_work=True))
        self.assertFalse(log.exists())
        for worker in workers(at_work=True):
            os.kill(worker, signal.SIGKILL)
        self.wait_for(lambda: "teach/fox: its worker is gone; it is done again" in self.told(out).read_text())
        # Each of the three machines has room for one of the two workers.
        self.wait_for(lambda: log.exists() and any(map(works, nodes)))
        first = next(node for node in nodes if works(node))
        before = lost()
        self.cluster.remove_node(first)
        nodes.remove(first)
        self.wait_for(lambda: lost() > before)
        process.kill()
        process.wait()
        self.assertFalse((out / "report.html").exists())
        self.wait_for(lambda: not workers())
        self.assertNotIn(" 0 done already", self.ends(self.start(out, *more), out))
        self.assertEqual(results(out), results(self.alone))
        jobs = [json.loads(line)["job"] for line in log.read_text().splitlines()]
        self.assertEqual(len(jobs), len(set(jobs)), "done twice")
        self.assertEqual([path.name for path in out.rglob(".*")], [])

    def test_results_in_a_shared_folder_survive_all_that_can_happen(self):
        self.everything_goes_wrong(self.root / "folder")

    def test_results_that_travel_survive_all_that_can_happen(self):
        self.everything_goes_wrong(self.root / "travel", "--no-shared-folder")

    def test_a_machine_without_the_networks_is_named(self):
        gone, out = self.root / "gone", self.root / "lacking"
        shutil.copytree(GOLDEN / "dino", gone)
        process = self.start(out, "--dino", str(gone))
        self.wait_for(lambda: (out / "plan.json").exists())
        shutil.rmtree(gone)
        self.assertRegex(self.ends(process, out, code=1), r"error: .*:\d+: .*/gone is not on this machine")


if ray is None:
    print(f"not run on a cluster: {WHY}", file=sys.stderr)
    del OnRay

if __name__ == "__main__":
    unittest.main()
