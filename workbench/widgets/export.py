"""What is on screen as a file: HTML without scripts, CSV, PNG."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from workbench.widgets import static
from workbench.widgets.session import Session
from workbench.widgets.worker import in_words

FORMATS = ("html", "csv", "png")
# What a spreadsheet reads as a formula: at a cell's start, also where it breaks cells elsewhere than we do.
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[=+\-@＝＋－＠].)", re.DOTALL)


@dataclass(frozen=True)
class Exported:
    """A file: its name, its kind, what is in it."""

    name: str
    mime: str
    content: bytes


def export(session: Session, format: str, view: str | None = None) -> Exported:
    """A file of one view, or of all that are open.

    Raises:
        ValueError: for a format or a view that is not there, or a picture without what makes one.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: expected one of {FORMATS}")
    if view is not None and view not in session.views:
        raise ValueError(f"there is no view {view!r}; there are {', '.join(session.views)}")
    names = [view] if view is not None else list(session.state.open)
    stem = f"workbench-{view or 'bench'}"
    if format == "html":
        page = static.document(f"workbench: {session.config.name}", body(session, names))
        return Exported(f"{stem}.html", "text/html", page.encode())
    if format == "csv":
        return _tables(session, names, stem)
    return _picture(session, names, stem)


def body(session: Session, names: list[str]) -> str:
    """The static form of views, after the tokens and what was done to the run."""
    views = [session.views[name] for name in dict.fromkeys([*_above(session), *names]) if name in session.views]
    return _head(session) + "".join(static.section(view.title, _said(view)) for view in views)


def _said(view: Any) -> str:
    try:
        return view.static()
    except Exception as error:  # one view that has nothing to say must not keep the others from being read
        return static.note(in_words(error))


def _above(session: Session) -> list[str]:
    """What the shell shows above the views."""
    return ["tokens", "effect"] if session.state.specs else ["tokens"]


def _head(session: Session) -> str:
    state = session.state
    edits = "; ".join(map(repr, state.specs)) or "none"
    return static.section(
        "Workbench",
        static.note(f"model {session.config.name} · shown: {state.shown} · interventions: {edits}"),
    )


def _tables(session: Session, names: list[str], stem: str) -> Exported:
    files: dict[str, bytes] = {}
    for name in names:
        for part, content in csv_files(session.views[name].table()).items():
            files[f"{name}{part}.csv"] = content
    if len(files) == 1:
        return Exported(f"{stem}.csv", "text/csv", next(iter(files.values())))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Exported(f"{stem}.zip", "application/zip", packed.getvalue())


def csv_files(data: xr.Dataset) -> dict[str, bytes]:
    """A dataset as CSV: variables of the same dims together in one file, by the dims' names ("" where all are).

    Text that a spreadsheet would run as a formula (a token may be ``=cmd|…``) gets an apostrophe before it, as its own
    manual has it. Whoever wants the text as it is reads the dataset, or ``token_id``.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for name, values in data.data_vars.items():
        groups.setdefault(values.dims, []).append(name)
    made = {}
    for dims, variables in groups.items():
        part = "" if len(groups) == 1 else "-" + ("-".join(map(str, dims)) or "values")
        if dims:
            frame = data[variables].to_dataframe().reset_index()
        else:
            frame = pd.DataFrame({"name": variables, "value": [data[name].item() for name in variables]}, dtype=object)
        made[part] = _guarded(frame).to_csv(index=False).encode()
    return made


def _guarded(frame: pd.DataFrame) -> pd.DataFrame:
    for column in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = [guarded(value) for value in frame[column]]
    return frame


def guarded(value: Any) -> Any:
    """A text of which no spreadsheet makes a formula; anything else as it is."""
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def _picture(session: Session, names: list[str], stem: str) -> Exported:
    if len(names) != 1:
        raise ValueError(f"a PNG is of one view: say which of {', '.join(names) or 'them'} (view=…)")
    try:
        from workbench.figures.static import png
    except ImportError as error:
        raise ValueError(
            f"a PNG needs the extra 'pictures' (pip install 'gpt-oss-workbench[pictures]'): {error}"
        ) from None
    return Exported(f"{stem}.png", "image/png", png(session.views[names[0]].figure()))
