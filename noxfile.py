"""`nox` runs what a change must pass: lint, types, tests. `nox -l` lists the longer sessions."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
GROUPS = nox.project.load_toml("pyproject.toml")


def install_project(session: nox.Session) -> None:
    session.install("-e", ".", *nox.project.dependency_groups(GROUPS, "test"))


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and layers; installs neither torch nor the project."""
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


# types and tests need torch, gigabytes of it: they share one environment
shared = nox.session(venv_location=".nox/project", reuse_venv=True)


@shared
def types(session: nox.Session) -> None:
    """Static types of the three packages."""
    install_project(session)
    session.run("mypy")


@shared
def tests(session: nox.Session) -> None:
    """The fast suite; arguments go to pytest."""
    install_project(session)
    session.run("pytest", *session.posargs)
