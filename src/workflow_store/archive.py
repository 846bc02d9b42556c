"""Runs as JSON Lines, for files and other programs.

A run is one line, `{"run": {…}, "steps": […]}`, with the wire form of the run and of its steps
in order. The format is JSON Lines (https://jsonlines.org): UTF-8, a line feed after each line.
"""

from __future__ import annotations

from pydantic import ValidationError

from . import json_codec
from .errors import InvalidStateError
from .state import WorkflowExecutionState, WorkflowStepState
from .store import RunSnapshot

__all__ = ["from_line", "to_line"]

_MAX_FIELD_LENGTH = 100
"""Maximum length of a field's name in an error; unknown fields may have any name."""


def to_line(snapshot: RunSnapshot) -> str:
    """Return the line of a run, without the line feed."""
    steps = ",".join(step.model_dump_json() for step in snapshot.steps)
    return f'{{"run":{snapshot.run.model_dump_json()},"steps":[{steps}]}}'


def from_line(line: str | bytes) -> RunSnapshot:
    """Return the run of a line.

    Raises:
        InvalidStateError: the line is malformed. The message names the field and contains no
            value.
    """
    try:
        members = json_codec.decode(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError:
        raise InvalidStateError("not valid UTF-8") from None
    except ValueError as error:
        raise InvalidStateError(str(error)) from None
    if (
        not isinstance(members, dict)
        or members.keys() != {"run", "steps"}
        or not isinstance(members["steps"], list)
    ):
        raise InvalidStateError('must be {"run": {…}, "steps": […]} with no other members')
    location = "run"
    try:
        run = WorkflowExecutionState.model_validate(members["run"])
        steps = []
        for index, fields in enumerate(members["steps"]):
            location = f"steps[{index}]"
            steps.append(WorkflowStepState.model_validate(fields))
    except ValidationError as error:
        details, *_ = error.errors(include_input=False, include_url=False)
        field = ".".join(map(str, (location, *details["loc"])))[:_MAX_FIELD_LENGTH]
        raise InvalidStateError(f"{field}: {details['msg']}") from error
    if len({step.step_id for step in steps}) < len(steps):
        raise InvalidStateError("steps: duplicate step_id")
    return RunSnapshot(run, steps)
