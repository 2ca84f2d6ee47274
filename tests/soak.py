"""Sends a server malformed requests, mutilated ones and clients that go away, and watches its memory.

`make soak SECONDS=600`. In between whole requests are answered, which must stay as they were. The last line tells the
figures; exit code 0 only if no malformed request got anything but a 4xx, no answer changed, and the memory after the
first third of the time grew by no more than a twentieth.
"""

import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
from malformed import CHAT, JSON, RAW, WRONG, Malformed, malformed, valid
from serving import Server, serve, write_policies
from tiny import CHAT_TEMPLATE, make_tiny_model

from sipo_pl.recipe.recipe import Template

BODY_BYTES = 20_000
GROWTH = 1.05
WARM = 1 / 3  # of the time, in which allocators fill their pools
LOOKS = 60  # at the memory


def mutilated(rng: random.Random) -> bytes:
    """Return the body of a right request with a few bytes changed, left out or doubled."""
    body = bytearray(json.dumps(valid("talk", stream=rng.random() < 0.5)).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 3)] = bytes(rng.randrange(256) for _ in range(rng.randint(0, 3)))
    return bytes(body)


class Soak:
    """A campaign against a server.

    Args:
        server: which.
        seed: of the mutilations.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self.server, self.rng = server, random.Random(seed)
        self.kinds = malformed("talk", BODY_BYTES)
        self.client = httpx.Client(base_url=server.url, timeout=120)
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.expected = self._whole()

    def round(self) -> None:
        """Send each kind once, raw bytes, mutilated bodies, clients that go away, and a request that is right."""
        for one in self.kinds:
            self._refused(one)
        for raw in RAW:
            self._raw(raw)
        for _ in range(40):
            self.counts["mutilated"] += 1
            status = self.client.post(CHAT, content=mutilated(self.rng), headers=JSON).status_code
            if status != 200 and status not in WRONG:
                self.problems.append(f"a mutilated request: {status}")
        for pieces in range(3):
            self._leave(pieces)
        self.counts["whole"] += 1
        if (answer := self._whole()) != self.expected:
            self.problems.append(f"{answer!r} is not {self.expected!r}")

    def _refused(self, one: Malformed) -> None:
        self.counts["malformed"] += 1
        status = self.client.request(one.method, one.path, content=one.body, headers=one.headers).status_code
        if status not in WRONG:
            self.problems.append(f"{one.name}: {status}")

    def _raw(self, raw: bytes) -> None:
        self.counts["no HTTP"] += 1
        host, port = self.server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection, suppress(OSError):
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)

    def _leave(self, pieces: int) -> None:
        self.counts["gone away"] += 1
        body = valid("talk", stream=True, max_tokens=1500)
        with self.client.stream("POST", CHAT, json=body) as response:
            for _, _line in zip(range(2 * pieces), response.iter_lines(), strict=False):
                pass

    def _whole(self) -> str:
        answer = self.client.post(CHAT, json=valid("talk", max_tokens=20)).raise_for_status().json()
        return str(answer["choices"][0]["message"]["content"])


def main(seconds: float) -> int:
    """Run the campaign; return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_tiny_model(folder / "base", seed=1, spread=0.3, chat_template=CHAT_TEMPLATE)
        model = write_policies(folder / "talk", base, ("kind", "short"), Template("chat"), 0.1)
        with serve(model, folder / "log", "--body_bytes", BODY_BYTES) as server:
            soak = Soak(server, seed=1)
            begun, memory = time.monotonic(), list[tuple[float, int]]()
            while (passed := time.monotonic() - begun) < seconds:
                soak.round()
                if passed >= len(memory) * seconds / LOOKS:
                    memory.append((passed, server.resident))
            memory.append((seconds, server.resident))
            code = server.stop()
    settled = [size for passed, size in memory if passed >= seconds * WARM]
    growth = max(settled) / settled[0]
    fine = not soak.problems and code == 0 and growth <= GROWTH
    for problem in soak.problems[:20]:
        print(f"  {problem}")
    told = ", ".join(f"{count} {what}" for what, count in soak.counts.items())
    print(f"memory in MiB: {' '.join(f'{size / 2**20:.0f}' for _, size in memory[:: max(1, len(memory) // 20)])}")
    print(
        f"{seconds:g} s: {told}; memory {settled[0] / 2**20:.1f} MiB after a third of the time, at most "
        f"{max(settled) / 2**20:.1f} since, {settled[-1] / 2**20:.1f} at the end; exit code {code}: "
        + ("fine" if fine else "FAILED")
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
