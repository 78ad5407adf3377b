"""`residualign report`: one page that shows what a run did."""

from __future__ import annotations

from residualign.cli import options as o
from residualign.cli.console import Out


def report(
    adapter: o.AdapterDir,
    out: o.AnalysisOut = None,
    format: o.Formats = None,
    dictionary: o.DictionaryFile = None,
    store: o.StoreOption = None,
    model: o.ModelPath = None,
    device: o.Device = "cpu",
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Write one HTML page that shows in pictures and words what `adapt --out DIR` did.

    The page is DIR/report.html, or lies in --out; it opens offline. --format adds tables and figures for papers.
    """
    from residualign.report.build import run_report

    printer = Out(json)
    made, written = run_report(
        adapter,
        out=out,
        formats=None if format is None else [one.value for one in format],
        store=store,
        model=model,
        dictionary=dictionary,
        device=device,
        overwrite=overwrite,
        progress=printer,
    )
    contents = made.contents.to_json()
    printer.finish(
        {"page": str(written[0]), "bytes": written[0].stat().st_size, "files": list(map(str, written)), **contents}
    )
    if not json:
        from residualign.cli.views import facts, paragraph

        for sentence in made.contents.findings:
            printer.show(paragraph(f"- {sentence}"))
        printer.show("")
        size = f"{written[0].stat().st_size / 1e6:.1f} MB, opens offline"
        printer.show(
            facts(
                ("page", f"{written[0]} ({size})"),
                *((("files", f"{len(written) - 1} more in {out}"),) if written[1:] else ()),
            )
        )
