"""A benchmark run on a Ray cluster: workers and machines come and go, the results stay the same byte for byte."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from sitter.dreambench import data
from sitter.dreambench.cluster import ATTEMPTS, Queue
from sitter.dreambench.plan import Plan
from test_dreambench import command, dataset, results, run

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError as why:
    ray, WHY = None, str(why)

SLOW = "fake:steps=3,step_ms=60"


def plan(root: Path) -> Plan:
    return Plan.make(data.read(root), None, None, model="m", protocol="B", method="two_stage", identifier="[V]", seed=0,
                     per_prompt=1, class_pictures=1, train={}, sample={}, networks={})


class Queueing(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.queue = Queue(plan(dataset(self.folder)).jobs(self.folder / "out"))

    def test_a_job_is_given_out_once_and_only_when_what_it_needs_is_done(self):
        order = []
        while not self.queue.over():
            job = self.queue.next("")
            self.assertTrue(all(need in order for need in job.needs), job.id)
            self.queue.begin(job)
            self.assertNotEqual(self.queue.next(""), job)
            self.queue.end(job, True)
            order.append(job.id)
        self.assertEqual(len(order), len(set(order)))
        self.assertIsNone(self.queue.next(""))

    def test_a_worker_stays_with_its_subject(self):
        for name in ("fox", "dog"):
            job = next(job for job in self.queue.jobs if job.id == f"teach/{name}")
            self.queue.begin(job)
            self.queue.end(job, True)
        self.assertEqual([self.queue.next(unit).id for unit in ("dog", "fox", "")], ["draw/dog/01", "draw/fox/01", "draw/fox/01"])

    def test_a_job_whose_workers_die_is_given_up_in_the_end(self):
        job = self.queue.next("")
        for attempt in range(ATTEMPTS):
            self.queue.begin(job)
            self.assertEqual(self.queue.lose(job), attempt + 1 < ATTEMPTS)
            self.assertEqual(self.queue.next("").id, job.id)


def workers() -> "list[int]":
    """Processes of Ray's actors on this machine that do our jobs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"ray::RemoteWorker" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


class OnRay(unittest.TestCase):
    """Three machines on 127.0.0.1."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.root, True)
        cls.data, cls.alone = dataset(cls.root / "data"), cls.root / "alone"
        run(cls.data, cls.alone, model=SLOW)
        cls.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cls.addClassCleanup(cls.cluster.shutdown)
        cls.nodes = [cls.cluster.add_node(num_cpus=1) for _ in range(2)]

    def start(self, out: Path) -> "subprocess.Popen[str]":
        words = command(self.data, out, "--cluster", self.cluster.address, "--workers", "2", model=SLOW)
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def wait_for(self, what, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), until, "nothing happens")
            time.sleep(0.02)

    def ends_as_alone(self, process: "subprocess.Popen[str]", out: Path) -> str:
        told = process.communicate(timeout=600)[1]
        self.assertEqual(process.returncode, 0, told)
        self.assertEqual(results(out), results(self.alone))
        return told

    def test_1_two_workers_do_what_one_does(self):
        out = self.root / "two"
        told = self.ends_as_alone(self.start(out), out)
        self.assertIn("2 workers", told)

    def test_2_a_worker_that_is_killed_while_it_teaches_is_replaced(self):
        out = self.root / "killed"
        process = self.start(out)
        self.wait_for(lambda: (out / "subjects").is_dir() and workers())
        os.kill(workers()[0], signal.SIGKILL)
        told = self.ends_as_alone(process, out)
        self.assertIn("its worker is gone; it is done again", told)

    def test_3_the_driver_that_is_killed_is_started_again(self):
        out = self.root / "driver"
        process = self.start(out)
        self.wait_for(lambda: (out / "log.jsonl").exists())
        process.kill()
        process.communicate()
        self.assertFalse((out / "report.html").exists())
        told = self.ends_as_alone(self.start(out), out)
        self.assertNotIn(" 0 done already", told)

    def test_4_a_machine_that_is_gone_is_done_without(self):
        out = self.root / "node"
        process = self.start(out)
        self.wait_for(lambda: (out / "log.jsonl").exists())
        self.cluster.remove_node(self.nodes[0])
        self.ends_as_alone(process, out)


if ray is None:
    print(f"not run on a cluster: {WHY}", file=sys.stderr)
    del OnRay

if __name__ == "__main__":
    unittest.main()
