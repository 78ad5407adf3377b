"""`residualign report`: one page that shows what a run did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from residualign._progress import SILENT, Progress
from residualign._result import Result
from residualign.commands._flags import (
    OUTPUT,
    REPEATED,
    AdapterDir,
    Device,
    Dictionary,
    FormatName,
    GivenStore,
    ModelPath,
    Overwrite,
    Quick,
    flag,
)
from residualign.commands._request import NEUTRAL

if TYPE_CHECKING:
    from residualign.report.report import Report

__all__ = ["ReportOutcome", "ReportRequest", "run"]


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """Write one HTML page that shows in pictures and words what `adapt --out DIR` did.

    The page is DIR/report.html, or is written into --out; it opens offline. --format adds tables and figures for
    papers. --quick measures the dimensions and words of units on a sample of the images.
    """

    adapter: AdapterDir
    out: Annotated[
        Path | None,
        flag("--out", OUTPUT, "Output directory for the page, tables and figures. By default DIR.", metavar="DIR"),
        NEUTRAL,
    ] = None
    format: Annotated[
        tuple[FormatName, ...],
        flag(
            "--format",
            OUTPUT,
            "File format of tables and figures beside the page in --out" + REPEATED + ". By default the page alone.",
        ),
        NEUTRAL,
    ] = ()
    dictionary: Dictionary = None
    store: GivenStore = None
    model: ModelPath = None
    device: Device = "cpu"
    quick: Quick = False
    overwrite: Overwrite = False


@dataclass(frozen=True, repr=False, eq=False)
class ReportOutcome(Result):
    """The page as an object, and the files that were written: the page first."""

    request: ReportRequest
    report: Report
    files: tuple[Path, ...]

    @property
    def page(self) -> Path:
        """The page."""
        return self.files[0]

    def to_json(self) -> dict[str, Any]:
        """What `report --json` prints."""
        size = self.page.stat().st_size
        files = list(map(str, self.files))
        return {"page": str(self.page), "bytes": size, "files": files, **self.report.to_json()}


def run(request: ReportRequest, progress: Progress = SILENT) -> ReportOutcome:
    """Build the page and write it, and what `format` asks for.

    `BadInputError` for what cannot be read and for a page that exists, unless overwrite; `RunError` if writing
    fails.
    """
    from residualign._files import publish, saying_what_is_kept
    from residualign.errors import BadInputError
    from residualign.report.build import report_of_run
    from residualign.runs.files import check_analysis_files, write_analysis_files
    from residualign.runs.folder import REPORT_NAME
    from residualign.runs.opened import open_run

    check_analysis_files(request.out, request.format, request.overwrite)
    page = Path(request.out or request.adapter) / REPORT_NAME
    if page.exists() and not request.overwrite:
        raise BadInputError(f"{str(page)!r} exists; add --overwrite to replace it, or choose another folder with --out")
    report = report_of_run(
        open_run(request.adapter, store=request.store, model=request.model, device=request.device),
        model=request.model,
        dictionary=request.dictionary,
        device=request.device,
        quick=request.quick,
        progress=progress,
    )
    with saying_what_is_kept(page, "the run itself is unchanged; run the same command again"):
        page.parent.mkdir(parents=True, exist_ok=True)
        publish(page, report.html.encode())
    files = [page]
    if request.out is not None and request.format:
        files += write_analysis_files(
            request.out, "report", report.to_json(), report.tables, report.figures, request.format
        )
    return ReportOutcome(request, report, tuple(files))
