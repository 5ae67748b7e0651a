"""What is written about a container, and what is made of it after an accident."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from ocispec.value import replace
from runtime.cgroups.detect import NoCgroups
from runtime.container import state
from runtime.container.lifecycle import Containers
from runtime.container.state import ContainerRecord, ContainerState
from runtime.errors import ContainerError, ContainerUnknown, StoreUnreadable
from runtime.images.store import LayerStore
from runtime.linux.pidfd import ProcessHandle, boot_id
from runtime.paths import Paths
from runtime.snapshots.overlay import OverlaySnapshotter

ID = "ab" * 32
RECORD = ContainerRecord(
    id=ID,
    name="web",
    image="debian",
    image_id="sha256:" + "0" * 64,
    created_ns=1,
    command=("sh", "-c", "true"),
    network="none",
    labels=(("a", "b"),),
    anonymous_volumes=("c" * 64,),
)
GONE = ProcessHandle(1, 0)  # nothing started with the kernel's first tick but idle threads


@pytest.fixture
def containers(tmp_path) -> Containers:
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    paths.create()
    snapshots = OverlaySnapshotter(LayerStore(paths))
    return Containers(paths, lambda: snapshots, lambda: NoCgroups("none"))


def make(containers: Containers, current: ContainerState, **changes: object) -> str:
    container_id, name = containers.reserve("web")
    record = replace(RECORD, id=container_id, name=name, **changes)
    state.write_record(containers.paths, record, sync=False)
    state.write_state(containers.paths, container_id, current)
    return container_id


def running(watched: bool) -> ContainerState:
    own = ProcessHandle.of(os.getpid())
    return ContainerState(state.RUNNING, boot_id(), own if watched else GONE, GONE, started_ns=5)


def test_round_trip(containers: Containers) -> None:
    container_id = make(containers, running(True))
    assert state.read_record(containers.paths, container_id) == replace(RECORD, id=container_id)
    assert state.read_state(containers.paths, container_id) == running(True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": 2}', "\xff", '{"version": 1, "id": 3}']
)
def test_damage_is_told_and_names_the_file(containers: Containers, text: str) -> None:
    container_id = make(containers, running(True))
    with open(containers.paths.container_state(container_id), "w", encoding="latin-1") as file:
        file.write(text)
    with pytest.raises(StoreUnreadable, match=r"state\.json"):
        state.read_state(containers.paths, container_id)


def test_a_container_without_its_supervisor_does_not_run(containers: Containers) -> None:
    container_id = make(containers, running(False))
    found = containers.state(container_id)
    assert (found.status, found.exit_code) == (state.EXITED, 137)
    assert "killed" in found.error
    assert state.read_state(containers.paths, container_id).status == state.RUNNING
    assert containers.collect() == 1
    assert state.read_state(containers.paths, container_id).status == state.EXITED
    assert containers.collect() == 0


def test_a_pid_of_another_boot_is_nobody(containers: Containers) -> None:
    container_id = make(containers, replace(running(True), boot="another"))
    assert containers.state(container_id).status == state.EXITED


def test_collecting_removes_what_was_to_be_removed(containers: Containers) -> None:
    make(containers, running(False), auto_remove=True)
    assert containers.collect() == 1
    assert list(containers.all(pytest.fail)) == []
    paths = containers.paths
    for place in (paths.containers, paths.names, paths.run_containers, paths.snapshots):
        assert os.listdir(place) == [], place


def test_collecting_leaves_the_living_alone(containers: Containers) -> None:
    make(containers, running(True))
    assert containers.collect() == 0
    assert len(list(containers.all(pytest.fail))) == 1


def test_collecting_finishes_a_removal(containers: Containers) -> None:
    container_id = make(containers, running(False))
    directory = containers.paths.container(container_id)
    os.rename(directory, directory + ".tmp-removed")
    assert containers.collect() == 1
    assert os.listdir(containers.paths.containers) == []


def test_one_being_made_is_not_collected_and_not_listed(containers: Containers) -> None:
    containers.reserve("new")
    assert containers.collect() == 0
    assert list(containers.all(pytest.fail)) == []
    assert len(os.listdir(containers.paths.containers)) == 1


def test_what_a_killed_process_was_making_is_collected_at_once(containers: Containers) -> None:
    pid = os.fork()
    if pid == 0:
        containers.reserve("web")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    container_id, name = containers.reserve("web")  # its name is free again
    assert name == "web"
    assert os.listdir(containers.paths.containers) == [container_id]
    assert os.listdir(containers.paths.run_containers) == [container_id]


def test_running_containers_are_not_removed(containers: Containers) -> None:
    container_id = make(containers, running(True))
    with pytest.raises(ContainerError, match="container is running"):
        containers.remove("web")
    assert containers.find("web").id == container_id


def test_removal(containers: Containers) -> None:
    container_id = make(containers, replace(running(True), status=state.EXITED))
    os.makedirs(containers.paths.volume_data("c" * 64))
    containers.remove(container_id[:5], volumes=True)
    assert os.listdir(containers.paths.volumes) == os.listdir(containers.paths.names) == []
    with pytest.raises(ContainerUnknown):
        containers.remove("web")


def test_names_of_fields_are_stable(containers: Containers) -> None:
    """Another version of pyreg reads these."""
    container_id = make(containers, running(True))
    with open(containers.paths.container_record(container_id), encoding="utf-8") as file:
        assert {"version", "id", "name", "image", "imageId", "created", "command"} <= set(
            json.load(file)
        )


def test_one_damaged_container_does_not_hide_the_others(containers: Containers) -> None:
    make(containers, replace(running(True), status=state.EXITED))
    damaged, _ = containers.reserve("other")
    with open(containers.paths.container_record(damaged), "w", encoding="utf-8") as file:
        file.write("{")
    told: list[StoreUnreadable] = []
    assert [record.name for record, _ in containers.all(told.append)] == ["web"]
    assert damaged[:12] in told[0].hint
    assert containers.collect() == 0
    with pytest.raises(ContainerUnknown):
        containers.find("absent")
    containers.remove("other", force=True)
    assert containers.paths.container(damaged) not in os.listdir(containers.paths.containers)
    assert os.listdir(containers.paths.names) == ["web"]


def _reboot(containers: Containers) -> None:
    """The run directory lies on a tmpfs."""
    shutil.rmtree(containers.paths.run)
    containers.paths.create()


def test_after_a_reboot_everything_is_looked_at_once(containers: Containers) -> None:
    kept = make(containers, replace(running(True), boot="another"))
    with_rm = make_named(containers, "gone", replace(running(True), boot="another"))
    failed = make_named(containers, "failed", ContainerState(state.CREATED), auto_remove=False)
    half, _ = containers.reserve("half")  # its record was never written
    _reboot(containers)
    assert containers.collect() == 3
    assert state.read_state(containers.paths, kept).status == state.EXITED
    assert not os.path.exists(containers.paths.container(with_rm))
    assert not os.path.exists(containers.paths.container(half))
    assert containers.state(failed).status == state.CREATED
    assert sorted(os.listdir(containers.paths.names)) == ["failed", "web"]
    assert containers.collect() == 0


def make_named(
    containers: Containers, wanted: str, current: ContainerState, *, auto_remove: bool = True
) -> str:
    container_id, name = containers.reserve(wanted)
    changes = {"auto_remove": auto_remove, "anonymous_volumes": ()}
    record = replace(RECORD, id=container_id, name=name, **changes)
    state.write_record(containers.paths, record, sync=False)
    state.write_state(containers.paths, container_id, current)
    return container_id
