"""What is only there to be looked at in Prefect's UI: artifacts of stages and their progress."""

import base64
import re
import time
from collections.abc import Callable
from typing import Any
from prefect import artifacts
from prefect.context import FlowRunContext
from flows.result import Result
from shards import storage
from shards.progress import ProgressLine

SECONDS_BETWEEN_UPDATES = 5.0  # of a progress artifact


class PrefectView:
    """The artifacts of one flow run; where no flow is running, nothing is shown."""

    def __init__(self) -> None:
        self.watched = FlowRunContext.get() is not None

    def create(self, artifact: Callable[..., Any], *what: Any, **more: Any) -> Any:
        """Make or change an artifact.

        After one that failed there is no other, since each would wait for a server that is gone.

        Args:
            artifact: a function of ``prefect.artifacts``.
            *what: its arguments.
            **more: its keywords; a ``key`` is made one that Prefect takes.

        Returns:
            What the function returns, or None.
        """
        if not self.watched:
            return None
        if "key" in more:
            more["key"] = re.sub("[^a-z0-9]", "-", more["key"].lower())
        try:
            return artifact(*what, **more)
        except Exception:  # whatever it is, the chain goes on
            self.watched = False
            return None

    def show_result(self, name: str, result: Result) -> None:
        """Artifacts of a finished stage: counts of files, tables, the page.

        Args:
            name: of the stage.
            result: of it.
        """
        url, text = result["url"], result["text"]
        counts, tables = result.get("counts"), result.get("markdown")
        if counts:
            self.create(
                artifacts.create_table_artifact,
                [{"files": reason, "count": count} for reason, count in counts.items()],
                key=f"{name}-files",
                description=f"{url}: {text}",
            )
        if tables:
            self.create(
                artifacts.create_markdown_artifact,
                tables,
                key=f"{name}-results",
                description=f"measured here: {text}",
            )
        if "report.html" in result.get("outputs", {}):
            self._show_page(name, url)

    def _show_page(self, name: str, url: str) -> None:
        """A link to the page, and the picture of where the encoders look."""
        self.create(
            artifacts.create_markdown_artifact,
            f"[{url}/report.html]({url}/report.html)",
            key=f"{name}-page",
            description="the report: open it in a browser",
        )
        picture = base64.b64encode(storage.read_bytes(f"{url}/maps.png")).decode()
        self.create(
            artifacts.create_image_artifact,
            f"data:image/png;base64,{picture}",
            key=f"{name}-maps",
            description="where the encoders look",
        )


class ProgressArtifact:
    """How far a stage is, as a bar in Prefect's UI.

    Args:
        view: of the flow run.
        name: of the stage.
    """

    def __init__(self, view: PrefectView, name: str) -> None:
        self._view = view
        self._name = name
        self._next_update = 0.0
        self._artifact: Any = None

    def update(self, line: ProgressLine, text: str) -> None:
        """Show a line, unless another was just shown; the last one always.

        Args:
            line: how far it is.
            text: the line as it was printed.
        """
        now = time.monotonic()
        if now < self._next_update and line.completed != line.total:
            return
        self._next_update = now + SECONDS_BETWEEN_UPDATES
        percent = 100 * line.completed / max(line.total, 1)
        if self._artifact is None:
            self._artifact = self._view.create(
                artifacts.create_progress_artifact,
                percent,
                key=f"{self._name}-progress",
                description=text,
            )
        else:
            self._view.create(
                artifacts.update_progress_artifact, self._artifact, percent, description=text
            )
