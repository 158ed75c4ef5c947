"""What the set-up scripts decide, on pretended machines: every program they call is a stand-in."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_TOOLS = ["bash", "basename", "cat", "chmod", "cut", "dirname", "env", "grep", "ls"]
REAL_TOOLS += ["mkdir", "realpath", "sed", "sha256sum"]

# A Python that makes environments holding itself, and notes what it is told to run.
PYTHON = """
case "$*" in
    --version) echo "Python $VERSION" ;;
    *sysconfig*) echo "$MACHINE/include" ;;
    *"import ensurepip"*) exit "$NO_ENSUREPIP" ;;
    *"version_info < (3, 10)"*) [ "$VERSION" != 3.9.2 ] ;;
    *version_info*) echo python3.11 ;;
    *"-m venv"*) for folder; do :; done; mkdir -p "$folder/bin"
        cat "$MACHINE/bin/python3" >"$folder/bin/python"; chmod +x "$folder/bin/python" ;;
    *"write_imagenet.py"*) for out; do :; done; out=${out#--out_dir=}; mkdir -p "$out"
        echo >"$out/train.beton"; echo >"$out/val.beton"; echo "$*" >>"$MACHINE/log" ;;
    *"ffvit sample"*) mkdir -p "$4"; echo "$*" >>"$MACHINE/log" ;;
    *) echo "$*" >>"$MACHINE/log" ;;
esac
"""


class Machine:
    """A machine with a checkout of ours and as much installed as a test says."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "machine" / "bin"
        self.checkout = folder / "checkout"
        self.log = folder / "machine" / "log"
        self.bin.mkdir(parents=True)
        for tool in REAL_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "missing")
        for name in ("scripts/setup.sh", "scripts/quickstart.sh", "pyproject.toml"):
            self.copy(name)
        for name in ("constraints.txt", "ffvit/jpeg/CMakeLists.txt", "ffvit/jpeg/kernel.cpp"):
            self.copy(name)
        self.copy("ffvit/jpeg/kernel.h")
        self.variables = {"VERSION": "3.11.2", "NO_ENSUREPIP": "0", "MACHINE": str(self.bin.parent)}
        self.install("id", "echo 1000")
        self.install("python3", PYTHON)

    def copy(self, name: str) -> None:
        (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, self.checkout / name)

    def install(self, name: str, script: str = "true") -> None:
        (self.bin / name).write_text(f"#!{self.bin}/bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def install_packages(self) -> None:
        """Install what the system packages bring."""
        self.install("g++")
        self.install("pkg-config", '[ "$1" != --modversion ] || echo 4.6.0')
        (self.bin.parent / "include").mkdir()
        (self.bin.parent / "include" / "Python.h").touch()

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "bash"), str(self.checkout / "scripts" / script), *arguments],
            env={"PATH": str(self.bin), **self.variables},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def take_log(self) -> list[str]:
        """Give what Python was told to run since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_root_installs_what_is_missing_with_apt(machine: Machine) -> None:
    machine.install("apt-get")
    machine.install("id", "echo 0")
    result = machine.run("setup.sh", "--dry-run")
    assert result.returncode == 0
    packages = "g++ pkg-config libopencv-dev libturbojpeg0-dev libjpeg-dev python3.11-dev"
    assert f"setup: apt-get install {packages}\n" in result.stderr


def test_sudo_without_a_password_is_as_good_as_root(machine: Machine) -> None:
    machine.install("apt-get")
    machine.install("sudo")
    assert "setup: apt-get install g++" in machine.run("setup.sh", "--dry-run").stderr


def test_packages_are_unpacked_under_prefix_without_root(machine: Machine) -> None:
    machine.install("apt-get")
    machine.install("sudo", "exit 1")
    machine.variables["NO_ENSUREPIP"] = "1"
    result = machine.run("setup.sh", "--dry-run")
    assert result.returncode == 0
    assert "apt-get install" not in result.stderr
    assert "python3.11-venv and what they need under .prefix" in result.stderr


def test_without_root_and_apt_one_line_says_what_to_install(machine: Machine) -> None:
    result = machine.run("setup.sh")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: expected a compiler")
    assert "libopencv-dev" in line
    assert not (machine.checkout / ".venv").exists()


def test_an_old_python_is_refused_in_one_line(machine: Machine) -> None:
    machine.install_packages()
    machine.variables["VERSION"] = "3.9.2"
    result = machine.run("setup.sh")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "expected Python 3.10 or newer, got Python 3.9.2 from" in line


def test_a_misspelt_argument_is_refused(machine: Machine) -> None:
    result = machine.run("setup.sh", "develop")
    assert result.returncode == 2
    assert result.stderr == "error: expected [--dry-run] [run|dev], got 'develop'\n"


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    machine.install_packages()
    result = machine.run("setup.sh", "--dry-run")
    assert "setup: create .venv" in result.stderr
    assert not (machine.checkout / ".venv").exists()
    assert machine.take_log() == []


def test_a_second_run_skips_everything(machine: Machine) -> None:
    machine.install_packages()
    first = machine.run("setup.sh")
    assert first.returncode == 0, first.stderr
    assert sum("install" in line for line in machine.take_log()) == 4
    second = machine.run("setup.sh")
    assert second.returncode == 0
    assert second.stderr == ""
    assert machine.take_log() == []


def test_a_changed_kernel_is_compiled_and_ffcv_is_not(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    with (machine.checkout / "ffvit/jpeg/kernel.cpp").open("a") as file:
        file.write("// changed\n")
    machine.run("setup.sh", "run")
    installs = [line for line in machine.take_log() if " install " in line]
    assert len(installs) == 1
    assert installs[0].endswith("--editable .")


def test_ffcv_is_compiled_again_for_another_opencv(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    machine.install("pkg-config", '[ "$1" != --modversion ] || echo 4.10.0')
    machine.run("setup.sh", "run")
    assert any(line.endswith("ffcv==1.0.2") for line in machine.take_log())


def test_another_libjpeg_compiles_the_kernel_and_not_ffcv(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    versions = 'case $* in "--modversion libjpeg") echo 3.0.1 ;; --modv*) echo 4.6.0 ;; esac'
    machine.install("pkg-config", versions)
    machine.run("setup.sh", "run")
    (install,) = [line for line in machine.take_log() if " install " in line]
    assert install.endswith("--editable .")


def test_tools_for_tests_come_only_when_asked_for(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    assert not any("--group dev" in line for line in machine.take_log())
    machine.run("setup.sh", "dev")
    (line,) = machine.take_log()
    assert line.endswith("--group dev")


def test_another_python_gets_a_new_environment(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.variables |= {"VERSION": "3.12.4", "PYTHON": "python3"}
    assert "create .venv with Python 3.12.4" in machine.run("setup.sh", "run").stderr


def test_quickstart_makes_sample_betons_and_model_once(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    assert machine.run("quickstart.sh").returncode == 0
    train = "train_imagenet.py --config ff_configs/quickstart.yaml"
    assert machine.take_log() == [
        "-m ffvit sample samples/digits",
        "write_imagenet.py --data_dir=samples/digits --out_dir=betons/quickstart",
        train,
    ]
    assert machine.run("quickstart.sh").returncode == 0
    assert machine.take_log() == [train]


def test_quickstart_takes_the_users_own_images(machine: Machine, tmp_path: Path) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    pets = tmp_path / "my pets"
    pets.mkdir()
    assert machine.run("quickstart.sh", os.fspath(pets)).returncode == 0
    write, train = machine.take_log()
    assert write == f"write_imagenet.py --data_dir={pets} --out_dir=betons/quickstart-my pets"
    assert "--data.flip=true" in train
    assert "--run.folder=runs/quickstart-my pets" in train


def test_quickstart_refuses_betons_of_another_folder_of_that_name(
    machine: Machine, tmp_path: Path
) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    for parent in ("a", "b"):
        (tmp_path / parent / "pets").mkdir(parents=True)
    assert machine.run("quickstart.sh", os.fspath(tmp_path / "a/pets")).returncode == 0
    result = machine.run("quickstart.sh", os.fspath(tmp_path / "b/pets"))
    assert result.returncode == 2
    assert "expected betons of" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_bench_installs_the_peers_once(machine: Machine) -> None:
    machine.install_packages()
    machine.run("setup.sh", "run")
    machine.take_log()
    machine.copy("scripts/bench.sh")
    assert machine.run("bench.sh", "--quick").returncode == 0
    *installs, run = machine.take_log()
    assert [" install " in line for line in installs] == [True, True]
    assert run == "-m benchmarks --quick"
    assert machine.run("bench.sh").returncode == 0
    assert machine.take_log() == ["-m benchmarks"]
