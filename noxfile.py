"""`nox` runs what a change must pass: lint, types, tests. `nox -l` lists the longer sessions."""

import sys
from pathlib import Path
import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests", "parity"]
GROUPS = nox.project.load_toml("pyproject.toml")
SHARED = Path(".nox", "project")

# one environment for all sessions that need torch: it is gigabytes
shared = nox.session(venv_backend="none")


def install(session: nox.Session, group: str) -> None:
    """Make the shared environment and bring it up to date, once for equal requirements.

    By uv where it is at hand, which is faster than pip. `rm -r .nox` begins anew.
    """
    python = str(SHARED / "bin" / "python")
    requirements = list(dict.fromkeys(nox.project.dependency_groups(GROUPS, "test", group)))
    wanted = "\n".join([*requirements, Path("pyproject.toml").read_text()])
    installed = SHARED / f"{group}.installed"
    if installed.exists() and installed.read_text() == wanted:
        return
    if not Path(python).exists():
        session.run(sys.executable, "-m", "venv", str(SHARED))
    options = ("--quiet", "--editable", ".", *requirements)
    try:
        session.run("uv", "pip", "install", "--python", python, *options, external=True)
    except nox.command.CommandFailed:  # no uv, or a mirror that only pip has been told of
        session.run(python, "-m", "pip", "install", *options)
    installed.write_text(wanted)


def run(session: nox.Session, *command: str, group: str = "test", **environment: str) -> None:
    """Run a Python module in the shared environment, with further environment variables."""
    install(session, group)
    # the processes that tests start would compile every module again, each of them
    variables = {"PYTHONDONTWRITEBYTECODE": "", **environment}
    session.run(str(SHARED / "bin" / "python"), "-m", *command, env=variables)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and layers; installs neither torch nor the project."""
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@shared
def types(session: nox.Session) -> None:
    """Static types of the three packages."""
    run(session, "mypy")


@shared
def tests(session: nox.Session) -> None:
    """The fast suite, a process a core; arguments go to pytest."""
    options = ("--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder")
    # a thread each: those of several processes would wait for each other, spinning
    run(session, "pytest", *options, *session.posargs, OMP_NUM_THREADS="1")


@shared
def parity(session: nox.Session) -> None:
    """Three training steps against the authors' code."""
    files = session.posargs or ("tests/care/test_released.py", "tests/test_examples.py")
    run(session, "pytest", "-m", "parity", *files)


@shared
def resume(session: nox.Session) -> None:
    """Training killed, stopped and continued, also under torchrun, about ten minutes."""
    run(session, "pytest", "-m", "resume", *session.posargs)


@shared
def crash(session: nox.Session) -> None:
    """Builds, trainings and evaluations killed at random moments, about ten minutes."""
    run(session, "pytest", "-m", "crash", *session.posargs)


@shared
def flows(session: nox.Session) -> None:
    """The pipeline killed 50 times, served, in a bucket, on Dask and Ray, up to an hour."""
    run(session, "pytest", "-m", "flows", *session.posargs, group="flows")


@shared
def slow(session: nox.Session) -> None:
    """Every objective trained on real images ($CARE_TEST_DATA), about half an hour."""
    run(session, "pytest", "-m", "slow", *session.posargs)


@shared
def cloud(session: nox.Session) -> None:
    """Object stores, started by the tests on this machine."""
    run(session, "pytest", "-m", "cloud", *session.posargs, group="cloud")


@shared
def hostile(session: nox.Session) -> None:
    """Broken, odd and malicious files in a child with limits ($CARE_TEST_DATA)."""
    run(session, "pytest", "-m", "hostile", *session.posargs)


@shared
def docs(session: nox.Session) -> None:
    """The documentation as a site in docs/_build; a broken link or anchor is an error."""
    options = ("--fail-on-warning", "--keep-going", "--quiet", "--fresh-env")
    run(session, "sphinx", *options, *session.posargs, "docs", "docs/_build", group="docs")


@shared
def gpu(session: nox.Session) -> None:
    """What one GPU computes and how fast, six minutes; arguments go to the benchmark."""
    try:
        run(session, "pytest", "-m", "gpu", "tests/gpu", group="bench")
    finally:  # the figures are wanted whatever a test says
        run(session, "tests.bench.gpu", *session.posargs, group="bench")


@shared
def trust(session: nox.Session) -> None:
    """Bits flipped in all that is written, a minute; arguments go to the campaign."""
    run(session, "tests.trust.flips", *(session.posargs or ("--flips", "10000")))


@shared
def size(session: nox.Session) -> None:
    """What a hundred million samples cost, simulated: 4 GB of disk, some minutes."""
    run(session, "tests.bench.size", *session.posargs, group="bench")


@shared
def bench(session: nox.Session) -> None:
    """Speed beside other packages, interleaved in one process; arguments name the benchmarks."""
    for name in session.posargs or (
        "views",
        "shards",
        "train",
        "small",
        "objectives",
        "checkpoint",
        "evaluate",
        "memory",
        "coco",
        "flows",
    ):
        run(session, f"tests.bench.{name}", group="bench")
