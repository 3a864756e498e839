"""Mistakes as one sentence, and exit codes: 1 for a mistake, 2 for usage, 130 for Ctrl-C."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its errors told in one sentence on standard error. Errors that are no user's mistake keep their trace."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        from braidwater.errors import BraidwaterError, BraidwaterWarning, WorkerError
        from braidwater.extras import needed_for

        warnings.showwarning = _show_warning(BraidwaterWarning, warnings.showwarning)
        try:
            with needed_for("This command"):
                command(*arguments, **options)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            raise SystemExit(130) from None
        except BrokenPipeError:  # the reader of our output went away, as in `… | head`
            sys.stderr.close()
            raise SystemExit(1) from None
        except WorkerError as error:
            _tell(str(error))  # with the worker's own trace, which is what the user needs
            raise SystemExit(1) from None
        except BraidwaterError as error:
            _tell(" ".join(str(error).split()))
            raise SystemExit(1) from None
        except OSError as error:
            if error.filename is None:
                raise
            _tell(f"{error.strerror}: {error.filename}")
            raise SystemExit(1) from None

    return run


def _tell(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)


def _show_warning(kind: type[Warning], before: Callable[..., Any]) -> Callable[..., None]:
    """Our own warnings as a sentence; those of others as they are."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, kind):
            print(f"Warning: {message}", file=sys.stderr)
        else:
            before(message, category, *where, **more)

    return show
