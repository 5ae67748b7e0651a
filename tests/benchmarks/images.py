"""Pulling a real image and running from it, against docker and podman."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.distribution import Target
from tests.benchmarks.harness import Row, contest
from tests.benchmarks.peers import Docker, Podman, Pyreg
from tests.benchmarks.sample import variants
from tests.builders.servers import dockerd, start_docker_registry
from tests.builders.tools import find_tool

REPOSITORY = "bench/debian"


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    """`pull` of the sample image from one docker-registry, then `run --rm --network none true`."""
    with ExitStack() as stack:
        server = start_docker_registry(root / "docker-registry")
        stack.callback(server.stop)
        peers: list[Pyreg | Docker | Podman] = [Pyreg(root, server.host)]
        if find_tool("dockerd"):
            peers.append(Docker(stack.enter_context(dockerd(root / "docker"))))
        if find_tool("podman"):
            peers.append(Podman(root))
        target = Target("docker-registry", server.port)
        for number, layers in enumerate(variants(rounds + 1)):
            target.push_image(REPOSITORY, f"v{number}", layers)
        image = f"{server.host}/{REPOSITORY}:v"

        def puller(peer: Pyreg | Docker | Podman) -> Callable[[int], float]:
            return lambda number: peer.pull(f"{image}{number}")

        def runner(peer: Pyreg | Docker | Podman) -> Callable[[int], float]:
            return lambda _: 1000 * peer.run(f"{image}1", "true")

        return [
            contest(
                "pull of a 3-layer Debian image, ready to run",
                {peer.name: puller(peer) for peer in peers},
                unit="s",
                rounds=rounds,
                more_is_better=False,
            ),
            contest(
                "run --rm --network none IMAGE true",
                {peer.name: runner(peer) for peer in peers},
                unit="ms",
                rounds=10 if quick else 30,
                more_is_better=False,
            ),
        ]
