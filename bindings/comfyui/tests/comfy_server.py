"""A headless ComfyUI with the pack, in a folder of its own, on loopback; and a client for it. Needs `websocket-client`."""
from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from typing import Any, Callable, Iterator, Optional

import websocket

PACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPOSITORY = os.path.dirname(os.path.dirname(PACK))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


class Server:
    """Starts ComfyUI of `comfyui` (a source tree) with `python`, and ends it."""

    def __init__(self, comfyui: str, base: str, python: str = sys.executable, options: tuple[str, ...] = ()) -> None:
        self.base, self.log_path = base, os.path.join(base, "comfyui.log")
        for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
            os.makedirs(os.path.join(base, folder), exist_ok=True)
        # As a person installs it.
        shutil.copytree(PACK, os.path.join(base, "custom_nodes", "sitter"), ignore=shutil.ignore_patterns("__pycache__", "tests", "tools"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = dict(os.environ)
        if "SITTER_LIBRARY" in os.environ:
            # The package from the source tree; else the one that is installed.
            source = os.path.join(REPOSITORY, "bindings", "python", "src")
            environment["PYTHONPATH"] = os.pathsep.join([source, environment.get("PYTHONPATH", "")])
            environment["SITTER_LIBRARY"] = os.path.abspath(os.environ["SITTER_LIBRARY"])
        command = [
            python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes",
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", "sitter", "--base-directory", base,
            "--database-url", "sqlite:///:memory:", "--preview-method", "none", "--cache-classic", *options,
        ]
        self._log = open(self.log_path, "w")
        self.process = subprocess.Popen(command, cwd=comfyui, stdout=self._log, stderr=subprocess.STDOUT, env=environment)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return self
            except (OSError, urllib.error.URLError):
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-3000:]}")

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def log(self) -> str:
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def memory(self) -> int:
        """Resident bytes (Linux)."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def get(self, path: str) -> Any:
        body = self.raw(path)
        return json.loads(body)

    def raw(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else None


class Result:
    """What one queued graph did."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.texts: list[tuple[str, str]] = []
        # Encoded pictures that nodes showed while they worked.
        self.previews: list[bytes] = []
        self.seconds = 0.0
        self.outputs: dict[str, Any] = {}
        # From Stop to the message that says so.
        self.stopped_after: Optional[float] = None

    def of(self, kind: str) -> list[Any]:
        return [data for name, data in self.messages if name == kind]

    @property
    def end(self) -> str:
        return next((n for n, _ in reversed(self.messages) if n in ("execution_success", "execution_error", "execution_interrupted")), "")

    @property
    def error(self) -> str:
        return next((data["exception_message"] for data in self.of("execution_error")), "")

    @property
    def ran(self) -> list[str]:
        return [data["node"] for data in self.of("executing") if data["node"]]

    @property
    def cached(self) -> set[str]:
        return {node for data in self.of("execution_cached") for node in data["nodes"]}


class Client:
    """One web socket, as an editor holds it."""

    def __init__(self, server: Server) -> None:
        self.server, self.id = server, uuid.uuid4().hex
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{server.port}/ws?clientId={self.id}", timeout=600)

    def run(self, graph: dict[str, Any], stop_when: Optional[Callable[[Result], bool]] = None) -> Result:
        """Queues a graph and listens to its end. Presses Stop once `stop_when` says so."""
        answer = self.server.post("/prompt", {"prompt": graph, "client_id": self.id})
        if "prompt_id" not in answer:
            raise AssertionError(f"ComfyUI refused the graph: {json.dumps(answer)[:2000]}")
        result, pressed, began = Result(), None, time.monotonic()
        for kind, data in self._messages():
            if kind == "text":
                result.texts.append(data)
            elif kind == "preview":
                result.previews.append(data)
            elif data.get("prompt_id") == answer["prompt_id"]:
                result.messages.append((kind, data))
                if pressed and kind == "execution_interrupted":
                    result.stopped_after = time.monotonic() - pressed
                if kind == "executing" and data["node"] is None:
                    break
            if stop_when and pressed is None and stop_when(result):
                pressed = time.monotonic()
                threading.Thread(target=self.server.post, args=("/interrupt", {})).start()
        result.seconds = time.monotonic() - began
        result.outputs = self.server.get(f"/history/{answer['prompt_id']}")[answer["prompt_id"]]["outputs"]
        return result

    def _messages(self) -> Iterator[tuple[str, Any]]:
        while True:
            frame = self.socket.recv()
            if isinstance(frame, str):
                message = json.loads(frame)
                yield message["type"], message["data"]
                continue
            event = struct.unpack(">I", frame[:4])[0]
            if event == 1:
                yield "preview", frame[8:]
            elif event == 4:
                yield "preview", frame[8 + struct.unpack(">I", frame[4:8])[0]:]
            elif event == 3:
                size = struct.unpack(">I", frame[4:8])[0]
                yield "text", (frame[8:8 + size].decode(), frame[8 + size:].decode())

    def pictures(self, result: Result, node: str) -> list[bytes]:
        found = result.outputs[node]["images"]
        query = "/view?filename={filename}&subfolder={subfolder}&type={type}"
        return [self.server.raw(query.format(**{k: urllib.request.quote(v) for k, v in one.items()})) for one in found]


def api_graph(workflow: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """What the editor sends for a workflow that it saved."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values, inputs = iter(node.get("widgets_values", [])), {}
        described = info[node["type"]]["input"]
        for name, (kind, *rest) in {**described.get("required", {}), **described.get("optional", {})}.items():
            settings = rest[0] if rest else {}
            if (kind in WIDGETS or isinstance(kind, list)) and not settings.get("forceInput"):
                inputs[name] = next(values)
                if settings.get("control_after_generate"):
                    next(values)
        for socket_ in node["inputs"]:
            if socket_["link"] is not None:
                inputs[socket_["name"]] = sources[socket_["link"]]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def nodes(graph: dict[str, Any], kind: str) -> list[str]:
    """Their numbers."""
    return [number for number, node in graph.items() if node["class_type"] == kind]
