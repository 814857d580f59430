"""The program ``edgefusion VERB``: the verbs are in ``verbs``, one function each.

Only the parser of the verb that is called is built, and torch is imported inside the verbs, so that help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from edgefusion.errors import EdgeFusionError, UsageError
from edgefusion.interruption import soon_over
from edgefusion.progress import say
from edgefusion.verbs.networks import compare, evaluate, search, train
from edgefusion.verbs.studies import channels, demo, export_study, ingest, phantom
from edgefusion.verbs.use import bench, export, info, predict, serve

_GO_ON = {
    "train": "Add --resume to go on from the last epoch.",
    "compare": "The same command goes on from there.",
    "search": "The same command goes on from there.",
    "demo": "The same command goes on from there.",
    "predict": "The same command does the rest.",
}
"""What to do after Ctrl-C, for verbs that keep what they finished; the others have to begin again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: What follows the program's name; by default from the command line.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong use.
    """
    is_program = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import edgefusion

        print(edgefusion.__version__)
        return 0
    verb = VERBS.get(arguments[0])
    try:
        if verb is None:
            raise UsageError(f"There is no verb '{arguments[0]}'.", f"Choose one of: {', '.join(VERBS)}.")
        # Who calls this function from a program of their own decides themselves when that ends.
        with soon_over(lambda: _say_interrupted(arguments[0])) if is_program else nullcontext():
            verb(list(arguments[1:]))
    except EdgeFusionError as error:
        say(f"edgefusion: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say_interrupted(arguments[0])
        if is_program:
            # Libraries can take seconds to be taken down one by one, and whoever pressed Ctrl-C is waiting.
            sys.stdout.flush()
            os._exit(130)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (a pager was quit): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        say(f"edgefusion: {error.strerror or error}{name}")
        return 1
    return 0


def _say_interrupted(verb: str) -> None:
    go_on = _GO_ON.get(verb)
    kept = f"What was finished is kept. {go_on}" if go_on else "Nothing was changed; the same command starts anew."
    say(f"edgefusion: Interrupted. {kept}")


def _overview() -> str:
    width = max(len(name) for name in VERBS)
    verbs = "\n".join(f"  {name:<{width}}  {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items())
    return (
        f"usage: edgefusion VERB ...\n\n{verbs}\n\nedgefusion VERB --help says more. For research, not for diagnosis."
    )


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "phantom": phantom,
    "ingest": ingest,
    "channels": channels,
    "train": train,
    "compare": compare,
    "search": search,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "export-study": export_study,
    "serve": serve,
    "bench": bench,
    "info": info,
}
"""The verbs, in the order in which a new user meets them."""


if __name__ == "__main__":
    sys.exit(main())
